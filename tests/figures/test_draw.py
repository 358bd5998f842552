"""Drawing a directory: which figures, which files, when again, what is refused."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import types

import matplotlib.image
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from vae_jax.core import errors
from vae_jax.figures import draw, style
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables

PICTURES = {"samples", "reconstructions", "traversals", "interpolations", "latent_plane", "manifold"}
CURVES = {"learning_curves", "rates"}
STOCHASTIC = {"densities", "posterior_std"}  # of models whose codes are drawn
OTHERS = {"latents", "water_filling", "gradient_variance", "steering", "priors", "intervals", "reliability"}
OTHERS |= {
    "line",
    "factor_read",
    "prior_draws",
    "factor_traversals",
    "attribute_vectors",
    "disentanglement",
    "over_beta",
    "factors_over_beta",
}
FEW = ["learning_curves", "samples", "reconstructions"]
MANY = [round(0.1 * (number + 1), 1) for number in range(50)]


def applicable(workdir, table=draw.FIGURES) -> set[str]:
    """The names of the figures that would be drawn; much quicker than drawing them."""
    directory = Directory(workdir)
    return {name for name, function in table.items() if function(directory) is not None}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, studies):
    """A study whose names are markup, formulas and control characters, with all its figures; read only."""
    names = {"vae": r"$\foo$ & <script>", "beta_vae": "a\tb\x07", "ae": "50 $ and $ 1_2^3"}
    workdir = studies.write_study(tmp_path_factory.mktemp("drawn"), names=names)
    return types.SimpleNamespace(workdir=workdir, paths=draw.draw(workdir))


def test_draws_every_figure_of_a_study(drawn):
    expected = {f"{name}.png" for name in set(draw.FIGURES) - OTHERS} | {"traversals.gif", "interpolations.gif"}
    assert {path.name for path in drawn.paths} == expected
    assert {path.name for path in (drawn.workdir / "figures").iterdir()} == expected | {"drawn.json"}
    for path in drawn.paths:
        assert path.stat().st_size < 1_000_000
        if path.suffix == ".png":
            height, width, _ = matplotlib.image.imread(path, format="png").shape
            assert 100 <= height <= 3000 and 400 <= width <= 2000, path


@pytest.mark.parametrize("count", [1, 8, 50])
def test_every_figure_of_so_many_settings_can_be_read(tmp_path, studies, count):
    workdir = studies.write_grid(tmp_path, {"objective.beta": MANY[:count]}, seeds=1 if count == 50 else 2)
    directory = Directory(workdir)
    drawn = {name: figure for name, function in draw.FIGURES.items() if (figure := function(directory)) is not None}
    assert set(drawn) >= PICTURES | CURVES | STOCHASTIC | ({"trade_off"} if count > 1 else set())
    for figure in drawn.values():
        studies.check_layout(figure)
        for axes in figure.axes:
            assert len([line for line in axes.lines if len(line.get_xdata()) == 3]) <= 2 * style.LINES or count == 50


@pytest.mark.parametrize("keys", [
    {"model.prior": ["normal", "laplace", "flow"]},
    {"objective.beta": [0.5, 1.0, 4.0], "model.latents": [2, 3]},
    {"objective.beta": [0.5, 1.0], "model.sigma": ["learned", "per_pixel", "optimal"]},
    {"objective.beta": [1.0], "optimizer.name": [f"optimizer{number}" for number in range(12)]},
])  # fmt: skip
def test_figures_of_grids_can_be_read(tmp_path, studies, keys):
    directory = Directory(studies.write_grid(tmp_path, keys, seeds=2))
    for function in draw.FIGURES.values():
        if (figure := function(directory)) is not None:
            studies.check_layout(figure)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"shape": (64,)}, {"latent_panels"} | STOCHASTIC | CURVES),
        ({"labels": False}, PICTURES - {"interpolations"} | STOCHASTIC | CURVES),
        ({"latents": 3}, PICTURES - {"latent_plane", "manifold"} | STOCHASTIC | CURVES),
        ({"shape": (6, 8, 3)}, PICTURES | {"latent_panels"} | STOCHASTIC | CURVES),
    ],
    ids=["vectors", "no labels", "3 latents", "colours"],
)
def test_leaves_out_what_a_single_run_cannot_show(tmp_path, studies, change, names):
    assert applicable(studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1, **change)) == names


def test_draws_a_single_autoencoder_and_needs_no_metrics(tmp_path, studies):
    studies.write_study(tmp_path, {"ae": studies.VARIANTS["ae"]}, seeds=1)
    # The std of a deterministic code has no meaning, and its rate is infinite.
    assert applicable(tmp_path) == PICTURES | {"latent_panels", "learning_curves"}
    (tmp_path / "metrics.jsonl").unlink()
    assert applicable(tmp_path) == PICTURES | {"latent_panels"}


def test_no_decision_depends_on_the_name_of_a_run(tmp_path, studies):
    other = {name: f"run{number}" for number, name in enumerate(studies.VARIANTS)}
    alike = dict.fromkeys(studies.VARIANTS, "x")
    drawn = []
    for folder, names in (("own", None), ("other", other), ("alike", alike)):
        (tmp_path / folder).mkdir()
        directory = Directory(studies.write_study(tmp_path / folder, seeds=1, names=names))
        figures = {name: figure for name, function in draw.FIGURES.items() if (figure := function(directory))}
        drawn.append({name: [_content(axes) for axes in figure.axes] for name, figure in figures.items()})
    assert drawn[0] == drawn[1] == drawn[2]


def _content(axes) -> tuple:
    """What is drawn in axes, without texts: where lines and pictures are, and in which colours."""
    lines = [(line.get_color(), np.asarray(line.get_xydata()).round(9).tolist()) for line in axes.lines]
    pictures = [hashlib.md5(np.ascontiguousarray(image.get_array()).tobytes()).hexdigest() for image in axes.images]
    return lines, pictures, [np.asarray(c.get_offsets()).round(9).tolist() for c in axes.collections if len(c.get_offsets())]


def test_names_are_texts(drawn):
    directory = Directory(drawn.workdir)
    assert {setting.name for setting in directory.settings} >= {r"$\foo$ & <script>"}
    labels = {setting.label for setting in directory.settings}
    assert r"$\foo$ & <script>" in labels and r"a\tb\x07, beta 0.5" in labels
    figure = draw.FIGURES["samples"](directory)
    figure.draw_without_rendering()
    assert not any(axes.title.get_parse_math() for axes in figure.axes)


@pytest.fixture(scope="module")
def few(tmp_path_factory, studies):
    """A study of one run with a config, and few of its figures; read only."""
    workdir = tmp_path_factory.mktemp("few")
    studies.write_grid(workdir, {"objective.beta": [1.0]}, config={"name": "vae"})
    draw.draw(workdir, only=FEW)
    return workdir


@pytest.fixture
def paths(few, tmp_path):
    """The figures in a copy of it, which is in `tmp_path`."""
    shutil.copytree(few, tmp_path, dirs_exist_ok=True)
    return [tmp_path / f"figures/{name}.png" for name in FEW]


def test_nothing_is_drawn_twice_from_the_same_data(tmp_path, paths):
    times = {path: path.stat().st_mtime_ns for path in paths}
    assert draw.draw(tmp_path, only=FEW) == paths and {path: path.stat().st_mtime_ns for path in paths} == times
    paths[0].write_bytes(b"changed by hand")
    paths[1].unlink()
    assert draw.draw(tmp_path, only=FEW) == paths
    assert paths[0].read_bytes() != b"changed by hand" and paths[1].exists()
    assert {path: path.stat().st_mtime_ns for path in paths[2:]} == {path: times[path] for path in paths[2:]}


@pytest.mark.parametrize("change", ["results.csv", "metrics.jsonl", "arrays", "config.json"])
def test_other_data_are_drawn_anew(tmp_path, paths, change):
    times = {path: path.stat().st_mtime_ns for path in paths}
    if change == "arrays":
        path = run_directory.arrays_path(tmp_path, 0)
        run_directory.write_arrays(path, run_directory.read_arrays(path) | {"samples": np.zeros((64, 8, 8, 1))})
    elif change == "config.json":
        run_directory.write_json(tmp_path / change, {"config": {"model": {"prior": "laplace"}}})
    else:
        os.truncate(tmp_path / change, 0) if change == "metrics.jsonl" else tables.write_csv(
            tmp_path / change, [row | {"mse": 0.5} for row in tables.read_csv(tmp_path / change)]
        )
    for path in draw.draw(tmp_path, only=FEW):
        assert path.stat().st_mtime_ns > times[path], path
    # What the new data cannot show is gone.
    assert (tmp_path / "figures/learning_curves.png").exists() == (change != "metrics.jsonl")


def test_one_figure_one_format_and_one_selection(tmp_path, studies):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("vae", "beta_vae")})
    every = draw.draw(tmp_path, only=FEW)
    before = {path: path.read_bytes() for path in every}
    (path,) = draw.draw(tmp_path, only=["samples"], select={"objective.beta": "2"}, format="pdf")
    assert path.name == "samples.pdf" and path.read_bytes().startswith(b"%PDF")
    assert {path: path.read_bytes() for path in every} == before
    (path,) = draw.draw(tmp_path, only=["samples"], format="svg")
    assert b"<svg" in path.read_bytes()
    chosen = Directory(tmp_path, {"objective.beta": "2", "seed": "1"})
    assert [(setting.name, len(setting.rows)) for setting in chosen.trained] == [("beta_vae", 1)]
    # The picture of a selection does not stay as that of the study.
    draw.draw(tmp_path, only=["samples"], select={"objective.beta": "2"})
    assert (tmp_path / "figures/samples.png").read_bytes() != before[tmp_path / "figures/samples.png"]
    draw.draw(tmp_path, only=FEW)
    assert (tmp_path / "figures/samples.png").read_bytes() == before[tmp_path / "figures/samples.png"]


@pytest.mark.parametrize(("name", "is_cropped"), [("samples", True), ("learning_curves", False)])
def test_a_figure_is_drawn_once_into_the_file_that_matplotlib_saves(drawn, name, is_cropped, monkeypatch):
    """Which draws it twice, the first time to lay it out."""
    theirs, crop = io.BytesIO(), {"bbox_inches": "tight", "pad_inches": draw.MARGIN} if is_cropped else {}
    draw.FIGURES[name](Directory(drawn.workdir)).savefig(theirs, dpi=draw.DPI, metadata={"Software": None}, **crop)
    draws, draw_patch = [], Rectangle.draw

    def counted(patch, renderer):
        draws.extend([patch] if patch is patch.get_figure().patch else [])
        draw_patch(patch, renderer)

    monkeypatch.setattr(Rectangle, "draw", counted)
    assert draw.content(draw.Asked(f"{name}.png", str(drawn.workdir), {})) == theirs.getvalue()
    assert len(draws) == 1


def test_pictures_that_move(drawn):
    for name in ("traversals.gif", "interpolations.gif"):
        with Image.open(drawn.workdir / "figures" / name) as picture:
            assert picture.n_frames == 16 and picture.info["loop"] == 0  # 9 steps there, 7 between back
            first = np.asarray(picture.convert("RGB"))
            picture.seek(8)
            last = np.asarray(picture.convert("RGB"))
            assert (last != first).any()
            # White stays white, though the palette has colours that are close to it.
            assert all((frame[0] == 255).all() and (frame[:, 0] == 255).all() for frame in (first, last))


def test_only_what_was_drawn_is_recorded_and_removed(tmp_path, studies):
    """Where all figures are asked for; of vectors there are four, none of which moves."""
    studies.write_grid(tmp_path, {"objective.beta": [1.0]}, config={"name": "vae"}, latents=3, shape=(64,))
    (tmp_path / "figures").mkdir()
    for name in ("mine.png", "reliability.png"):  # of a name that is drawn, but not from this study
        (tmp_path / "figures" / name).write_bytes(b"")
    draw.draw(tmp_path)
    names = {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()}
    assert {name for name in run_directory.recorded(tmp_path) if name.startswith("figures/")} == names - {
        "figures/mine.png",
        "figures/reliability.png",
    }
    drawn = json.loads((tmp_path / "figures/drawn.json").read_text())
    drawn |= {"../results.csv": {"from": "", "content": ""}, "mine.png": {"from": "", "content": ""}}
    (tmp_path / "figures/drawn.json").write_text(json.dumps(drawn))
    draw.draw(tmp_path)
    assert (tmp_path / "results.csv").exists() and (tmp_path / "figures/mine.png").exists()


def test_a_figure_from_outside_is_drawn_every_time(tmp_path, studies, monkeypatch):
    studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1)
    seen = []

    def mine(directory):
        seen.append(directory)
        figure = style.new_figure(4, 3, "mine")
        figure.add_subplot().plot([1, 2], [2, directory.trained[0].mean("mse")[0]])
        return figure

    monkeypatch.setitem(draw.FIGURES, "mine", mine)
    for _ in range(2):
        assert tmp_path / "figures/mine.png" in draw.draw(tmp_path, only=["samples", "mine"])
    assert len(seen) == 2 and "figures/mine.png" in run_directory.recorded(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["sample"]}, r"unknown figure 'sample': did you mean samples"),
        ({"select": {"objective.beta": "3"}}, r"--select=objective.beta=3: no run has it; there are 0.0, 1.0"),
        ({"select": {"beta": "1"}}, r"unknown --select name 'beta': did you mean objective.beta"),
        ({"format": "jpg"}, r"--format=jpg: should be one of png, pdf, svg"),
    ],
)
def test_what_there_is_not_is_refused(tmp_path, studies, arguments, message):
    studies.write_study(tmp_path, seeds=1)
    with pytest.raises(errors.UserError, match=message):
        draw.draw(tmp_path, **arguments)
    assert not (tmp_path / "figures").exists()


def test_missing_or_damaged_files_are_the_users_mistake(tmp_path, studies):
    with pytest.raises(errors.UserError, match=r"results\.csv"):
        draw.draw(tmp_path)
    studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1)
    run_directory.arrays_path(tmp_path, 0).write_bytes(b"PK")
    with pytest.raises(errors.UserError, match=r"run_0000\.npz"):
        draw.draw(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes_mean": "images"}, "'codes_mean'|'codes_std'"),
        ({"plane_latents": None}, "'plane_latents' is missing"),
        ({"codes_std": None}, "'codes_std' is missing"),
        ({"samples": "traversals"}, None),  # of the right shape: another number of samples
        ({"samples": "codes_mean"}, "'samples' has pictures of shape"),
        ({"labels": "rate_per_latent"}, "'labels' has 2 entries"),
        ({"plane": "samples"}, "'plane_latents' has 400 entries"),
        ({"reconstructions": "samples"}, "'reconstructions' has 64 entries"),
    ],
)
def test_arrays_that_do_not_fit_together_are_the_users_mistake(tmp_path, studies, change, message):
    studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    for name, other in change.items():
        arrays[name] = arrays.get(other)
    run_directory.write_arrays(path, {name: array for name, array in arrays.items() if array is not None})
    if message is None:
        draw.draw(tmp_path, only=["samples"])
        return
    with pytest.raises(errors.UserError, match=message):
        draw.draw(tmp_path, only=sorted(set(draw.FIGURES) - CURVES))  # which read no arrays


def test_a_link_in_place_of_the_folder_is_refused(tmp_path, studies):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    studies.write_study(tmp_path / "run", {"vae": studies.VARIANTS["vae"]}, seeds=1)
    (tmp_path / "run/figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.UserError, match="is a link"):
        draw.draw(tmp_path / "run")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_draws_in_a_thread(tmp_path, studies):
    studies.write_study(tmp_path, {"vae": studies.VARIANTS["vae"]}, seeds=1)
    threads = [threading.Thread(target=draw.FIGURES["samples"], args=[Directory(tmp_path)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "matplotlib.pyplot" not in sys.modules


def test_imports_neither_jax_nor_matplotlib():
    code = "import sys, vae_jax.figures.draw; print({'jax', 'matplotlib', 'flax', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
