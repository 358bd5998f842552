"""Figures of pictures: which are shown, beside which references, in which order."""

import numpy as np
import pytest

from vae_jax.evaluation import queries
from vae_jax.figures import images
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory


def change(workdir, run=0, **arrays) -> None:
    path = run_directory.arrays_path(workdir, run)
    kept = {name: array for name, array in run_directory.read_arrays(path).items() if arrays.get(name, array) is not None}
    run_directory.write_arrays(path, kept | {name: array for name, array in arrays.items() if array is not None})


def single(workdir, studies, **shape):
    return studies.write_study(workdir, {"vae": studies.VARIANTS["vae"]}, seeds=1, **shape)


def test_samples_stand_beside_as_many_test_images(tmp_path, studies):
    single(tmp_path, studies)
    change(tmp_path, images=np.ones((16, 8, 8, 1)), samples=np.full((64, 8, 8, 1), 0.25))
    real, drawn = images.samples(Directory(tmp_path)).axes
    assert real.get_title() == "test images" and drawn.get_title() == "vae"
    for axes, level in ((real, 1), (drawn, 0.25)):
        picture = np.asarray(axes.images[0].get_array())
        assert picture.shape == (35, 35) and (picture[picture > 0] == level).all() and (picture > 0).sum() == 16 * 64


@pytest.mark.parametrize(("shape", "count"), [((8, 8, 1), 64), ((32, 32, 3), 64), ((64, 64, 1), 16)])
def test_as_many_samples_are_shown_as_there_is_room_for(tmp_path, studies, shape, count):
    single(tmp_path, studies, shape=shape)
    change(tmp_path, test_images=np.ones((64, *shape)), samples=np.full((64, *shape), 0.25))
    for axes, level in zip(images.samples(Directory(tmp_path)).axes, (1, 0.25), strict=True):
        picture = np.asarray(axes.images[0].get_array())
        assert np.isclose(picture, level).sum() == count * np.prod(shape)


def test_where_codes_are_not_held_to_the_prior_is_what_evaluation_wrote(tmp_path, studies):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("vae_no_kl", "vae")}, seeds=1)
    for run, held in enumerate((True, False)):  # the other way round than the weights alone say
        change(tmp_path, run, held_to_prior=np.array(held))
    directory = Directory(tmp_path)
    titles = {axes.get_title() for axes in images.samples(directory).axes}
    assert titles == {"test images", "vae_no_kl", "vae\n(codes not held to the prior)"}
    moved = {axes.get_title(): axes.get_xlabel() for axes in images.traversals(directory).axes}
    assert "the prior" in moved["vae_no_kl"] and "its codes" in moved["vae"]


def test_pictures_are_of_one_seed(tmp_path, studies):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("ae", "vae")}, seeds=2)
    run_directory.arrays_path(tmp_path, 1).unlink()  # of the vae with seed 0
    change(tmp_path, 0, samples=np.full((64, 8, 8, 1), np.nan))
    panels = Directory(tmp_path).panels("samples").panels
    assert {panel.setting.name: panel.row["seed"] for panel in panels} == {"ae": 1, "vae": 1}


def test_images_that_are_shown_are_not_alike():
    pictures = np.zeros((8, 2, 2, 1))
    pictures[6:] = [[[[1.0], [0]], [[0], [0]]], [[[0], [0]], [[0], [1.0]]]]
    assert list(images.unlike(pictures, None, 3)) == [0, 6, 7]
    labels = np.array([0, 0, 0, 1, 1, 2, 0, 0])
    assert list(images.unlike(pictures, labels, 3)) == [0, 3, 5]
    assert list(images.unlike(pictures, labels, 5)) == [0, 3, 5, 6, 7]


def test_reconstructions_are_under_their_images_with_their_error(tmp_path, studies):
    single(tmp_path, studies)
    axes = images.reconstructions(Directory(tmp_path)).axes[0]
    arrays = run_directory.read_arrays(run_directory.arrays_path(tmp_path, 0))
    chosen = images.unlike(arrays["images"], arrays["labels"], images.COLUMNS)
    picture = np.asarray(axes.images[0].get_array())
    for column, number in enumerate(chosen):
        part = slice(9 * column, 9 * column + 8)
        np.testing.assert_array_equal(picture[:8, part], arrays["images"][number, ..., 0])
        np.testing.assert_array_equal(picture[9:17, part], arrays["reconstructions"][number, ..., 0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["test images", "vae"]
    assert axes.texts[0].get_text().startswith("mse 0.")


def test_traversals_are_sorted_by_their_effect_which_is_printed(tmp_path, studies):
    single(tmp_path, studies, latents=3)
    rows = [np.broadcast_to(np.linspace(0, end, 9)[:, None, None, None], (9, 8, 8, 1)) for end in (0.25, 1.0, 0.0)]
    change(tmp_path, traversals=np.concatenate(rows), rate_per_latent=np.array([1.0, 3.0, 2.0]))
    axes = images.traversals(Directory(tmp_path)).axes[0]
    # Evaluation moved latents 2, 3, 1, by rate; the one it moved second has the largest effect.
    assert [text.get_text() for text in axes.get_yticklabels()] == ["image, decoded", "latent 3", "latent 2", "latent 1"]
    assert [text.get_text() for text in axes.texts] == ["1.000", "0.250", "0.000"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2 %", "26 %", "50 %", "74 %", "98 %"]
    picture, arrays = (
        np.asarray(axes.images[0].get_array()),
        run_directory.read_arrays(run_directory.arrays_path(tmp_path, 0)),
    )
    np.testing.assert_array_equal(picture[:8, :8], arrays["images"][0, ..., 0])
    np.testing.assert_array_equal(picture[:8, 9:17], arrays["reconstructions"][0, ..., 0])


def test_interpolations_lie_between_their_images(tmp_path, studies):
    single(tmp_path, studies)
    lines = np.zeros((4, queries.STEPS, 8, 8, 1))
    lines[:, -1] = np.array([0.1, 0.9, 0.5, 0.7])[:, None, None, None]  # how unlike the ends are
    ends = np.arange(8)[:, None, None, None] / 10 + np.zeros((8, 8, 8, 1))
    change(tmp_path, interpolations=lines.reshape(-1, 8, 8, 1), interpolation_images=ends)
    figure = images.interpolations(Directory(tmp_path))
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert [(picture[0, 0], picture[0, -1]) for picture in pictures] == [(0.2, 0.3), (0.4, 0.5), (0.6, 0.7)]  # not the first
    assert pictures[0].shape[1] == 9 * (queries.STEPS + 2) - 1
    change(tmp_path, interpolation_images=None)  # as older directories are
    picture = np.asarray(images.interpolations(Directory(tmp_path)).axes[0].images[0].get_array())
    assert picture.shape[1] == 9 * queries.STEPS - 1


def test_a_fine_grid_shows_every_second_picture(tmp_path, studies):
    single(tmp_path, studies)
    side = 17
    levels = np.arange(side * side)[:, None, None, None] / side**2 + np.zeros((side * side, 8, 8, 1))
    change(tmp_path, manifold=levels)
    axes = images.manifold(Directory(tmp_path)).axes[0]
    picture = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(picture[::9, ::9].ravel(), levels[:, 0, 0, 0].reshape(side, side)[::2, ::2].ravel())
    for axis, start in ((axes.xaxis, 4.4), (axes.yaxis, 75.5)):
        assert [text.get_text() for text in axis.get_ticklabels()] == ["2 %", "26 %", "50 %", "74 %", "98 %"]
        assert axis.get_ticklocs()[0] == pytest.approx(start, abs=0.6)


def test_a_decoder_that_was_never_trained_has_no_manifold(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path, names={"kl_only": "other"}, seeds=1))
    assert "other" not in {axes.get_title() for axes in images.manifold(directory).axes}


def test_pair_is_an_autoencoder_beside_the_best_model(tmp_path, studies):
    pair = Directory(studies.write_study(tmp_path)).pair("traversals")
    assert pair.panels[0].setting.name == "ae" and pair.note == "with KL the best by elbo"
    best = pair.panels[1].setting
    assert best.score == max(s.score for s in Directory(tmp_path).trained if s.role == best.role)


def test_pair_of_one_family_is_the_one_of_most_rate_and_the_best(tmp_path, studies):
    directory = Directory(studies.write_grid(tmp_path, {"objective.beta": [0.1, 1.0, 2.0, 8.0]}))
    pair = directory.pair("traversals")
    best = max(directory.trained, key=lambda s: s.score)
    assert {panel.setting.label for panel in pair.panels} == {"beta 0.1", best.label}
