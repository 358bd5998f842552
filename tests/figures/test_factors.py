"""Figures on known factors: what is drawn, with the numbers of the table beside it, and nothing without factors."""

import numpy as np
import pytest

from vae_jax.figures import factors
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory

NAMES = ("hair", "smile", "glasses")
STEPS, SHOWN, SIZE = 9, 8, 8


def write(studies, workdir, betas=(0.0, 1.0, 4.0), seeds=2):
    """A study of faces of noise."""
    generator, rows = np.random.default_rng(0), []
    workdir.mkdir(exist_ok=True)
    for beta in betas:
        for seed in range(seeds):
            number = len(rows)
            row = {
                "run": number,
                "name": "ae" if beta == 0 else "vae",
                "seed": seed,
                "objective.noise_scale": float(beta > 0),
            }
            row |= {
                "objective.distortion_weight": 1.0,
                "objective.beta": beta,
                "elbo": -10.0 - beta,
                "rate": 3.0 / (1 + beta),
            }
            row |= {"prior_to_nearest": 0.01, "active_units": 3.0, "mig": 0.1, "mig_x": 0.2, "sap": 0.3}
            row |= {f"attribute_{kind}_{name}": 0.5 for kind in ("effect", "leak") for name in NAMES}
            rows.append(row)
            pictures = lambda *axes: generator.random((*axes, SIZE, SIZE, 1), np.float32)  # noqa: E731
            arrays = {
                "factor_names": np.array(NAMES),
                "factor_chosen": np.array(0),
                "factor_read": generator.random((STEPS, 16)),
            }
            arrays |= {f"factor_{kind}line": pictures(SHOWN, STEPS) for kind in ("", "true_", "average_")}
            arrays |= {"factor_drawn": pictures(SHOWN), "factor_drawn_nearest": pictures(SHOWN)}
            arrays |= {"factor_traversals": pictures(len(NAMES), STEPS), "images": pictures(SHOWN)}
            arrays |= {f"attribute_{name}_{when}": pictures(SHOWN) for name in NAMES for when in ("before", "after")}
            run_directory.write_arrays(run_directory.arrays_path(workdir, number), arrays)
    studies.write_table(workdir, rows)
    return Directory(workdir)


@pytest.fixture(scope="module")
def faces(studies, tmp_path_factory):
    return write(studies, tmp_path_factory.mktemp("faces") / "run")


@pytest.mark.parametrize(
    "name", ["line", "factor_read", "prior_draws", "factor_traversals", "attribute_vectors", "disentanglement"]
)
def test_it_is_drawn_and_can_be_read(name, studies, faces):
    studies.check_layout(getattr(factors, name)(faces))


def test_the_line_says_what_was_read(faces):
    figure = factors.line(faces)
    texts = [axes.get_xlabel() for axes in figure.axes]
    assert texts[0] == "0.15" and texts[STEPS - 1] == "0.85"  # of the true images
    panel = faces.panels("factor_line", 6, pictures=False).panels[0]
    assert f"{panel.arrays['factor_read'][0, 0]:.2f}" in texts


def test_attributes_have_their_effect_and_leak(faces):
    titles = [axes.get_title() for axes in factors.attribute_vectors(faces).axes]
    assert "glasses: effect 0.50, leak 0.500" in titles


def test_metrics_have_a_plane_each_and_the_ae_its_place(faces):
    figure = factors.disentanglement(faces)
    assert [axes.get_title() for axes in figure.axes] == ["MIG", "SAP", "MIG, x", "active latents"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["AE", "1", "4"]


def test_many_settings(studies, tmp_path):
    directory = write(studies, tmp_path / "many", betas=tuple(np.linspace(0, 8, 12)), seeds=1)
    for name in ("line", "factor_read", "prior_draws", "attribute_vectors", "disentanglement"):
        studies.check_layout(getattr(factors, name)(directory))


def test_a_study_without_factors_has_none(studies, tmp_path):
    directory = Directory(studies.write_study(tmp_path))
    for name in ("line", "factor_read", "prior_draws", "factor_traversals", "attribute_vectors", "disentanglement"):
        assert getattr(factors, name)(directory) is None


def test_every_lowest_panel_of_the_factor_read_has_numbers_below(studies, tmp_path):
    figure = factors.factor_read(write(studies, tmp_path / "six", betas=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0), seeds=1))
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    labelled = [axes.xaxis.get_tick_params()["labelbottom"] for axes in shown]
    assert labelled == [False, False, True, True, True, True] == [bool(axes.get_xlabel()) for axes in shown]


def test_only_factors_are_attributes_and_zeros_have_no_sign(studies, tmp_path):
    directory = write(studies, tmp_path / "run", betas=(1.0,), seeds=1)
    path = run_directory.arrays_path(tmp_path / "run", 0)
    arrays = run_directory.read_arrays(path)
    names = np.array(["scale", "x"])
    kept = {key: value for key, value in arrays.items() if not key.startswith("attribute_")} | {"factor_names": names}
    kept |= {f"attribute_{name}_{when}": arrays["images"] for name in ("scale", "traversal") for when in ("before", "after")}
    run_directory.write_arrays(path, kept)
    studies.write_table(
        tmp_path / "run", [directory.rows[0] | {"attribute_effect_scale": -0.001, "attribute_leak_scale": 0.02}]
    )
    figure = factors.attribute_vectors(Directory(tmp_path / "run"))
    assert [axes.get_title() for axes in figure.axes] == ["scale: effect 0.00, leak 0.020"]


def test_the_migs_of_factors_share_a_scale_and_points_at_zero_are_whole(studies, tmp_path):
    directory = write(studies, tmp_path / "run")
    rows = [row | {"mig_x": 0.001, "mig_y": 0.6 * (row["objective.beta"] > 0)} for row in directory.rows]
    studies.write_table(tmp_path / "run", rows)
    planes = {axes.get_title(): axes for axes in factors.disentanglement(Directory(tmp_path / "run")).axes}
    assert planes["MIG, x"].get_ylim() == planes["MIG, y"].get_ylim() and planes["MIG, x"].get_ylim()[1] > 0.6
    assert all(axes.get_ylim()[0] < 0 for axes in planes.values())
