"""Figures of codes: where they lie, on which scale, against which prior."""

import math

import numpy as np
import pytest

from vae_jax.figures import latents, style
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables


def circles(figure) -> list[int]:
    """The prior's circles in each axes."""
    return [sum(type(artist).__name__ == "Circle" for artist in axes.get_children()) for axes in figure.axes]


@pytest.mark.parametrize("prior", ["normal", "laplace"])
@pytest.mark.parametrize("source", ["config", "grid"])
def test_circles_are_those_of_a_normal_prior_in_every_panel(tmp_path, studies, prior, source):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("ae", "vae")}, seeds=1)
    if source == "config":
        run_directory.write_json(tmp_path / "config.json", {"config": {"model": {"prior": prior}}})
    else:
        rows = tables.read_csv(tmp_path / "results.csv")
        tables.write_csv(tmp_path / "results.csv", [row | {"model.prior": prior} for row in rows])
    plane, panels = (function(Directory(tmp_path)) for function in (latents.latent_plane, latents.latent_panels))
    count = 2 * (prior == "normal")
    assert circles(plane) == [count] * 4 and set(circles(panels)) == {count}
    assert ("sigma of N(0, I)" in panels.get_suptitle().replace("\n", " ")) == (prior == "normal")


def test_draws_stand_for_a_prior_that_is_not_normal(tmp_path, studies):
    studies.write_grid(tmp_path, {"model.prior": ["normal", "vamp"]})
    path = run_directory.arrays_path(tmp_path, 1)
    drawn = np.random.default_rng(3).normal(2, 0.5, size=(400, 2))
    run_directory.write_arrays(path, run_directory.read_arrays(path) | {"prior_samples": drawn})
    directory = Directory(tmp_path)
    for function in (latents.latent_plane, latents.latent_panels):
        figure = function(directory)
        title = figure.get_suptitle().replace("\n", " ")
        assert "dashed: 1 and 2 sigma of N(0, I); crosses: draws from the prior" in title
        crosses = [[c for c in axes.collections if c.get_label() == "prior"] for axes in figure.axes]
        assert sum(map(len, crosses)) == sum(count == 0 for count in circles(figure)) == len(figure.axes) // 2
        for axes, (points,) in ((axes, found) for axes, found in zip(figure.axes, crosses, strict=True) if found):
            np.testing.assert_array_equal(points.get_offsets(), drawn[: latents.DRAWS])
            inside = (drawn > axes.get_xlim()[0]).all(axis=1) & (drawn < axes.get_xlim()[1]).all(axis=1)
            assert inside.mean() > 0.9  # the prior is in view
    densities = latents.densities(directory)
    latent = int(densities.axes[3].get_xlabel().removeprefix("latent ")) - 1
    (dashed,) = [patch for patch in densities.axes[3].patches if patch.get_linestyle() == "--"]
    values, edges, _ = dashed.get_data()
    np.testing.assert_allclose(values, np.histogram(drawn[:, latent], edges)[0] / 400 / np.diff(edges))


def test_codes_that_are_not_held_to_the_prior_fill_their_own_panel(tmp_path, studies):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("vae_no_kl", "vae")}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    small = 0.05 * arrays["codes_mean"]
    run_directory.write_arrays(path, arrays | {"codes_mean": small})
    figure = latents.latent_panels(Directory(tmp_path))
    (own,) = [axes for axes in figure.axes if axes.get_xlim()[1] < 1]
    assert own.get_xlim()[1] == pytest.approx(1.05 * np.abs(small).max())


def test_axes_of_codes_are_equal(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path))
    for function in (latents.latent_plane, latents.latent_panels):
        for axes in function(directory).axes:
            assert axes.get_aspect() == 1.0
            assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))


def test_panels_are_on_one_scale_and_again_on_their_own_where_that_is_too_small(tmp_path, studies):
    studies.write_study(tmp_path, seeds=1)
    assert len({axes.get_xlim() for axes in latents.latent_panels(Directory(tmp_path)).axes}) == 1
    path = run_directory.arrays_path(tmp_path, 1)  # of the model without KL
    arrays = run_directory.read_arrays(path)
    run_directory.write_arrays(path, arrays | {"codes_mean": 10 * arrays["codes_mean"]})
    figure = latents.latent_panels(Directory(tmp_path))
    limits = {(axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start): axes for axes in figure.axes}
    assert len({limits[0, column].get_xlim() for column in range(3)}) == 1
    assert limits[1, 0].get_xlim()[1] > 2 * limits[1, 2].get_xlim()[1]
    headings = [limits[0, column].get_title().split("\n")[0] for column in range(3)]
    assert headings == ["reconstruction only", "KL only", "reconstruction and KL"]


def test_both_terms_are_shown_by_the_model_of_equal_weights(tmp_path, studies):
    figure = latents.latent_panels(Directory(studies.write_study(tmp_path, names={"vae": "one", "kl_only": "two"})))
    headings = [axes.get_title() for axes in figure.axes]
    assert headings[1].endswith("two, sampled codes") or headings[1].endswith("two, mean codes")
    assert "one, " in headings[2]


def test_plane_lies_over_its_codes_with_the_largest_second_latent_on_top(tmp_path, studies):
    studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    # Pictures as bright as their latents are large, so that the picture shows its own axes.
    first, second = np.unique(arrays["plane_latents"][:, 0]), np.unique(arrays["plane_latents"][:, 1])
    right, up = ((arrays["plane_latents"] - [first[0], second[0]]) / [np.ptp(first), np.ptp(second)]).T
    arrays["plane"] = np.broadcast_to((0.5 * right + 0.5 * (up > 0.5))[:, None, None, None], (400, 8, 8, 1))
    run_directory.write_arrays(path, arrays)
    codes, decoded = latents.latent_plane(Directory(tmp_path)).axes
    image = decoded.images[0]
    picture, (left, end, bottom, top) = np.asarray(image.get_array()), image.get_extent()
    # Every second of 20: the first and the 19th in a row, the last and the second in a column.
    assert picture[4, 4] == 0.5 and picture[4, -4] == pytest.approx(0.5 + 0.5 * 18 / 19)
    assert picture[-4, 4] == 0 and picture[-4, -4] == pytest.approx(0.5 * 18 / 19)
    cell = 2 * (first[1] - first[0]), 2 * (second[1] - second[0])  # of which the decoded point is the centre
    np.testing.assert_allclose([left, end], [first[0] - cell[0] / 2, first[18] + cell[0] / 2])
    np.testing.assert_allclose([bottom, top], [second[1] - cell[1] / 2, second[19] + cell[1] / 2])
    assert codes.get_xlim() == decoded.get_xlim() and codes.get_ylim() == decoded.get_ylim()


def test_a_collapsed_model_alone_is_drawn(tmp_path, studies):
    studies.write_study(tmp_path, {"kl_only": studies.VARIANTS["kl_only"]}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    arrays |= {"codes_mean": 0 * arrays["codes_mean"], "plane_latents": 0 * arrays["plane_latents"]}
    run_directory.write_arrays(path, arrays)
    for function in (latents.latent_plane, latents.latent_panels):
        figure = function(Directory(tmp_path))
        figure.savefig(tmp_path / "figure.png")
        studies.check_layout(figure)


@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_densities_are_those_of_the_posteriors(tmp_path, studies, prior):
    studies.write_grid(tmp_path, {"objective.beta": [1.0]}, config={"model": {"prior": prior}})
    above, below = latents.densities(Directory(tmp_path)).axes
    arrays = run_directory.read_arrays(run_directory.arrays_path(tmp_path, 0))
    latent = int(arrays["rate_per_latent"].argmax())
    assert below.get_xlabel() == f"latent {latent + 1}"
    *single, last = (line.get_xydata().T for line in above.get_lines())
    single = single if prior == "normal" else [*single, last]
    assert len(single) == latents.POSTERIORS
    for (x, y), mean in zip(single, arrays["codes_mean"][:, latent], strict=False):
        assert x[y.argmax()] == pytest.approx(mean)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-6)
    if prior == "normal":
        assert last[1].max() == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-3)


def test_the_mixture_is_the_mean_of_its_densities():
    mean, std, edges = np.array([-1.0, 2.0, 0.5]), np.array([1e-4, 0.5, 1.0]), np.linspace(-4, 4, 41)
    density = latents.mixture_density(mean, std, edges)
    assert np.sum(density * np.diff(edges)) == pytest.approx(1, abs=1e-3)
    z = np.linspace(1.0, 1.2, 2001)
    exact = np.mean([np.trapezoid(style.normal_density((z - m) / s) / s, z) for m, s in zip(mean, std, strict=True)])
    assert density[25] * 0.2 == pytest.approx(exact, rel=1e-5)
    assert density.argmax() in (14, 15)  # around the narrow one at -1, on the edge of two bins


def test_densities_share_their_axes_and_say_what_lies_outside(tmp_path, studies):
    studies.write_study(tmp_path, seeds=1)
    path = run_directory.arrays_path(tmp_path, 1)  # of the model without KL
    arrays = run_directory.read_arrays(path)
    arrays |= {"codes_mean": np.where(np.arange(40)[:, None] < 10, 50.0, 0.0) + 0 * arrays["codes_mean"]}
    run_directory.write_arrays(path, arrays | {"codes_std": 0.01 + 0 * arrays["codes_std"]})
    figure = latents.densities(Directory(tmp_path))
    rows = [[axes for axes in figure.axes if axes.get_subplotspec().rowspan.start == row] for row in (0, 1)]
    for row in rows:
        assert len({axes.get_xlim() for axes in row}) == len({axes.get_ylim() for axes in row}) == 1
    free = next(axes for axes in rows[0] if axes.get_title().startswith("vae_no_kl"))
    assert free.texts[0].get_text() == "peaks up to 40\n25 % of codes outside"
    assert free.get_title().endswith("(not held to the prior)")
