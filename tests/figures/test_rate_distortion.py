"""The rate-distortion plane, ways to steer, priors: points, curves, views and labels."""

import math

import numpy as np
import pytest

from vae_jax.figures import rate_distortion
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables


def bars_of(axes) -> dict:
    return {bar.get_label(): bar for bar in axes.containers}


def test_trade_off_shows_mean_and_standard_error_over_seeds(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path, seeds=3))
    rows = tables.read_csv(tmp_path / "results.csv")
    for axes, prefix in zip(rate_distortion.trade_off(directory).axes, ("train_", ""), strict=True):
        bars = bars_of(axes)
        # Every setting of finite rate, also where it lies out of view.
        assert set(bars) == {"vae", "vae_no_kl", "kl_only", "beta_vae, beta 0.5", "beta_vae, beta 2"}
        for label, beta in (("vae", 1.0), ("beta_vae, beta 0.5", 0.5)):
            runs = [row for row in rows if row["name"] == label.split(",")[0] and row["objective.beta"] == beta]
            line, _, segments = bars[label].lines
            for axis, column in enumerate(("rate", "distortion")):
                mean, error = tables.mean_and_stderr([row[prefix + column] for row in runs])
                ends = segments[axis].get_segments()[0][:, axis]
                np.testing.assert_allclose(float(line.get_data()[axis][0]), mean)
                np.testing.assert_allclose(ends, [mean - error, mean + error])


def test_trade_off_joins_betas_in_order_with_the_vae_among_them(tmp_path, studies):
    axes = rate_distortion.trade_off(Directory(studies.write_study(tmp_path))).axes[1]
    bars = {label: bar.lines[0].get_xdata()[0] for label, bar in bars_of(axes).items()}
    order = ["beta_vae, beta 0.5", "vae", "beta_vae, beta 2"]
    joined = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == len(order)]
    np.testing.assert_array_equal(joined, [[bars[label] for label in order]])
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("beta_vae") == 1 and "beta 0.5" in texts and "1 (vae)" in texts  # one label a curve, and numbers


def test_trade_off_names_what_lies_out_of_view(tmp_path, studies):
    for axes in rate_distortion.trade_off(Directory(studies.write_study(tmp_path))).axes:
        texts = [text.get_text() for text in axes.texts]
        assert any(text.startswith("out of view: kl_only, ") for text in texts)
        assert any(text.startswith("out of view: vae_no_kl, rate 20.0") for text in texts)
        assert "ae: infinite rate" in texts


def test_families_of_a_grid_have_a_curve_each(tmp_path, studies):
    grid = {"objective.beta": [0.5, 1.0, 2.0], "model.latents": [2, 3]}
    axes = rate_distortion.trade_off(Directory(studies.write_grid(tmp_path, grid))).axes[0]
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len({line.get_color() for line in curves}) == 2
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("latents 2") == texts.count("latents 3") == 1


def test_more_families_than_colors_have_a_bar(tmp_path, studies):
    grid = {"objective.beta": [0.5, 1.0], "model.latents": list(range(2, 14))}
    figure = rate_distortion.trade_off(Directory(studies.write_grid(tmp_path, grid)))
    assert len(figure.axes) == 3 and "latents 2" in {text.get_text() for text in figure.axes[2].get_yticklabels()}
    assert not any(text.get_text().startswith("latents") for text in figure.axes[0].texts)


def test_distortions_that_do_not_compare_are_in_planes_of_their_own(tmp_path, studies):
    grid = {"objective.beta": [0.5, 1.0], "model.likelihood": ["gaussian", "continuous_bernoulli", "discretized_logistic"]}
    figure = rate_distortion.trade_off(Directory(studies.write_grid(tmp_path, grid)))
    titles = [axes.get_title() for axes in figure.axes]
    density, mass = "log density of the pixels", "log probability of the grey levels"
    assert titles == [f"{split} split, {unit}" for unit in (density, mass) for split in ("training", "test")]
    assert [len(axes.containers) for axes in figure.axes] == [4, 4, 2, 2]
    assert figure.axes[0].get_ylim() != figure.axes[2].get_ylim()


def test_a_likelihood_of_another_file_has_its_own_plane(tmp_path, studies):
    grid = {"objective.beta": [0.5, 1.0], "model.likelihood": ["gaussian", "mine"]}
    figure = rate_distortion.trade_off(Directory(studies.write_grid(tmp_path, grid)))
    assert figure.axes[2].get_title() == "training split, mine"


def test_grey_pixels_under_a_bernoulli_are_said(tmp_path, studies):
    for binarize, said in (("none", True), ("dynamic", False)):
        (folder := tmp_path / binarize).mkdir()
        config = {"model": {"likelihood": "bernoulli"}, "data": {"binarize": binarize}}
        studies.write_grid(folder, {"objective.beta": [0.5, 1.0]}, config=config)
        figure = rate_distortion.trade_off(Directory(folder))
        assert any("up to a normaliser" in text for text, _, _ in studies.texts_of(figure)) == said


def test_diverged_runs_are_counted(tmp_path, studies):
    studies.write_study(tmp_path)
    rows = tables.read_csv(tmp_path / "results.csv")
    (vae, *_) = (row for row in rows if row["name"] == "vae")
    vae |= {"distortion": math.nan, "train_distortion": math.nan, "rate": math.nan, "train_rate": math.nan, "elbo": math.nan}
    rows[-2]["diverged"] = 7
    tables.write_csv(tmp_path / "results.csv", rows)
    assert "without 2 diverged runs" in rate_distortion.trade_off(Directory(tmp_path)).get_suptitle()


def write_methods(workdir) -> None:
    rows: list = []
    for kind, key, value, rate in (
        *(("weighted", "objective.beta", beta, 4 / beta) for beta in (1.0, 2.0, 4.0)),
        *(("mmd", "objective.mmd_weight", weight, 900 / weight) for weight in (30.0, 300.0)),
    ):
        for seed in range(2):
            row = {"run": len(rows), "name": "any" if kind == "weighted" else "mmd", "seed": seed, "objective.kind": kind}
            rows.append(row | {key: value} | {f"{prefix}rate": rate + seed for prefix in ("", "train_")})
            rows[-1] |= {"distortion": 20.0 - rate / 10, "train_distortion": 19.0 - rate / 10}
    tables.write_csv(workdir / "results.csv", rows)
    config = {"objective": {"kind": "weighted", "beta": 0.0, "mmd_weight": 0.0}}
    run_directory.write_json(workdir / "config.json", {"config": config})


def test_steering_has_a_curve_for_each_kind_and_the_view_of_the_weighted_one(tmp_path):
    write_methods(tmp_path)
    directory = Directory(tmp_path)
    assert rate_distortion.trade_off(directory) is None
    for axes, distortion in zip(rate_distortion.steering(directory).axes, ("16.0", "17.0"), strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert f"out of view: mmd, mmd_weight 30, rate 30.5, distortion {distortion}" in texts
        assert axes.get_xlim()[1] < 30
        assert texts.count("any") == 1


def test_priors_have_a_row_each_and_a_panel_for_each_measure(tmp_path, studies):
    studies.write_grid(tmp_path, {"model.prior": ["normal", "flow"]}, seeds=3)
    rows = tables.read_csv(tmp_path / "results.csv")
    for row in rows:
        row["importance_bound"] = -20.0 - row["run"]
    tables.write_csv(tmp_path / "results.csv", rows)
    directory = Directory(tmp_path)
    figure = rate_distortion.priors(directory)
    assert [axes.get_xlabel().split("\n")[0] for axes in figure.axes] == ["importance bound", "rate"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["prior normal", "prior flow"]
    assert [bar.lines[0].get_xdata()[0] for bar in figure.axes[0].containers] == [-21, -24]
    assert rate_distortion.trade_off(directory) is None


def test_priors_are_compared_under_one_likelihood(tmp_path, studies):
    studies.write_grid(tmp_path, {"model.prior": ["normal", "flow"], "model.sigma": ["learned", "per_pixel"]})
    rows = [
        row
        for row in tables.read_csv(tmp_path / "results.csv")
        if (row["model.prior"], row["model.sigma"]) != ("flow", "learned")
    ]
    tables.write_csv(tmp_path / "results.csv", rows)
    figure = rate_distortion.priors(Directory(tmp_path))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 2 and all("sigma per_pixel" in label for label in labels)


@pytest.mark.parametrize("count", [1, 8, 50])
def test_numbers_stand_along_a_curve(tmp_path, studies, count):
    betas = [round(0.1 * (number + 1), 1) for number in range(count)]
    figure = rate_distortion.trade_off(Directory(studies.write_grid(tmp_path, {"objective.beta": betas})))
    assert (figure is None) == (count == 1)
    if figure is not None:
        numbers = [text.get_text() for text in figure.axes[0].texts if "ELBO" not in text.get_text()]
        assert 3 <= len(numbers) <= rate_distortion.NUMBERS + 1 and "beta 0.1" in numbers


def test_error_bars_are_in_view(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [0.5, 1.0, 4.0]}, seeds=2)
    rows = tables.read_csv(tmp_path / "results.csv")
    for row in rows:
        row["distortion"] = row["train_distortion"] = 20 + row["objective.beta"] + 3 * row["seed"]
    tables.write_csv(tmp_path / "results.csv", rows)
    for axes in rate_distortion.trade_off(Directory(tmp_path)).axes:
        low, high = axes.get_ylim()
        assert low < 20.5 and high > 27  # means from 22 to 25.5 with errors of 1.5


def test_a_split_that_was_not_evaluated_has_no_plane(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [0.5, 1.0, 4.0]})
    rows = tables.read_csv(tmp_path / "results.csv")
    tables.write_csv(
        tmp_path / "results.csv", [{k: v for k, v in row.items() if not k.startswith("train_")} for row in rows]
    )
    figure = rate_distortion.trade_off(Directory(tmp_path))
    studies.check_layout(figure)
    assert [axes.get_title() for axes in figure.axes] == ["test split"]
