"""Learning curves, the posterior's std, rates of latents, variances of gradients: what is drawn, from which columns."""

import itertools
import math

import numpy as np
import pytest

from vae_jax.figures import learning
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables


def test_learning_curves_are_means_over_the_seeds_with_their_range(tmp_path, studies):
    directory = Directory(studies.write_grid(tmp_path, {"objective.beta": [1.0, 3.0]}, seeds=3))
    figure = learning.learning_curves(directory)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "distortion", "rate"]
    metrics = run_directory.read_jsonl(tmp_path / "metrics.jsonl")
    for axes, name in zip(figure.axes, ("loss", "distortion", "rate"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == {"beta 1", "beta 3", "_beta 1, validation split", "_beta 3, validation split"}
        for label, runs in (("beta 1", (0, 1, 2)), ("beta 3", (3, 4, 5))):
            for prefix, line in (("train", lines[label]), ("valid", lines[f"_{label}, validation split"])):
                values = [[r[f"{prefix}_{name}"] for r in metrics if r["run"] == run] for run in runs]
                np.testing.assert_allclose(line.get_ydata(), np.mean(values, axis=0))
                assert line.get_linestyle() == ("-" if prefix == "train" else "--")
                assert list(line.get_xdata()) == [1, 2, 3]
        assert len(axes.collections) == 2  # bands


def test_more_than_eight_lines_have_a_bar_and_a_row_for_each_split(tmp_path, studies):
    directory = Directory(studies.write_grid(tmp_path, {"objective.beta": [float(b) for b in range(1, 13)]}))
    figure = learning.learning_curves(directory)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title.split(", ")[-1] for title in titles] == ["training split"] * 3 + ["validation split"] * 3
    bars = [axes for axes in figure.axes if axes.get_ylabel() == "beta"]
    assert len(bars) == 2 and [text.get_text() for text in bars[0].get_yticklabels()][::6] == ["1", "12"]


def test_families_have_planes_of_their_own_beyond_eight_settings(tmp_path, studies):
    grid = {"model.prior": ["normal", "flow"], "objective.beta": [1.0, 2.0, 3.0, 4.0, 5.0]}
    figure = learning.learning_curves(Directory(studies.write_grid(tmp_path, grid)))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[::3] == ["loss, prior normal", "loss, prior flow"] and len(titles) == 6
    assert max(len(axes.lines) for axes in figure.axes) == 10


def test_the_fall_of_the_first_steps_leaves_the_plane(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [1.0]})
    rows = [{"run": 0, "epoch": e, "train_loss": 20 + math.exp(-e) + 500 * (e == 0)} for e in range(51)]
    (tmp_path / "metrics.jsonl").unlink()
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", rows)
    axes = learning.learning_curves(Directory(tmp_path)).axes[0]
    assert axes.get_ylim()[0] < 20 < axes.get_ylim()[1] < 22


def test_the_rate_of_a_deterministic_code_is_no_curve(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("ae", "vae")}))
    loss, _, rate = learning.learning_curves(directory).axes
    assert "ae" in {line.get_label() for line in loss.lines} and "ae" not in {line.get_label() for line in rate.lines}


def test_posterior_std_leaves_out_deterministic_codes(tmp_path, studies):
    axes = learning.posterior_std(Directory(studies.write_study(tmp_path))).axes[0]
    labels = {line.get_label() for line in axes.lines}
    assert labels == {"vae_no_kl", "kl_only", "vae", "beta_vae, beta 0.5", "beta_vae, beta 2"}
    assert labels == {text.get_text() for text in axes.texts}


def write_rates(workdir, studies, rates):
    """A setting for each list of rates, two seeds of which the second has them in another order."""
    studies.write_grid(
        workdir, {"objective.beta": [float(n + 1) for n in range(len(rates))]}, seeds=2, latents=len(rates[0])
    )
    for number, rate in enumerate(rates):
        for seed, order in enumerate((rate, rate[::-1])):
            path = run_directory.arrays_path(workdir, 2 * number + seed)
            run_directory.write_arrays(path, run_directory.read_arrays(path) | {"rate_per_latent": np.array(order)})
    return Directory(workdir)


def test_rates_are_sorted_and_counted(tmp_path, studies):
    figure = learning.rates(write_rates(tmp_path, studies, [[0.5, 2.0, 0.0], [0.001, 0.0, 0.3]]))
    heights = [[patch.get_height() for patch in axes.patches] for axes in figure.axes]
    assert heights == [[2.0, 0.5, 0.0], [0.3, 0.001, 0.0]]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["2 of 3 above 0.01 nats", "1 of 3 above 0.01 nats"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


@pytest.mark.parametrize("count", [9, 50])
def test_rates_of_many_settings_are_a_map(tmp_path, studies, count):
    figure = learning.rates(write_rates(tmp_path, studies, [[1.0, 2.0, number / 10] for number in range(count)]))
    table = figure.axes[0].images[0].get_array()
    assert table.shape == (count, 3) and list(table[3]) == [2.0, 1.0, 0.3]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[:2] == (["beta 1", "beta 2"] if count == 9 else ["beta 1", "beta 3"])


def test_a_prior_that_ties_the_latents_has_no_rate_of_each(tmp_path, studies):
    directory = write_rates(tmp_path, studies, [[1.0, 2.0]])
    for run in (0, 1):
        path = run_directory.arrays_path(tmp_path, run)
        run_directory.write_arrays(path, run_directory.read_arrays(path) | {"rate_per_latent": np.array([3.0])})
    assert learning.rates(Directory(tmp_path)) is None and directory is not None


def test_gradient_variance_has_a_line_for_each_estimator(tmp_path):
    rows = [
        {"run": run, "name": "vae", "seed": seed, "model.latents": latents}
        | {"gradient_variance_reparameterized": latents + seed, "gradient_variance_score": 100 * latents**2 + seed}
        for run, (latents, seed) in enumerate(itertools.product((2, 4, 16), (0, 1, 2)))
    ]
    tables.write_csv(tmp_path / "results.csv", rows)
    axes = learning.gradient_variance(Directory(tmp_path)).axes[0]
    bars = {bar.get_label(): bar.lines for bar in axes.containers}
    assert set(bars) == {text.get_text() for text in axes.texts} and axes.get_yscale() == "log"
    for label, mean in (("reparameterisation", [3, 5, 17]), ("score function", [401, 1601, 25601])):
        line, _, (segments,) = bars[label]
        np.testing.assert_allclose(line.get_ydata(), mean)
        for ends, middle in zip(segments.get_segments(), mean, strict=True):  # the error of 0, 1, 2 is 1 / sqrt(3)
            np.testing.assert_allclose(ends[:, 1], middle + np.array([-1, 1]) / math.sqrt(3))
    tables.write_csv(tmp_path / "results.csv", rows[:3])
    assert learning.gradient_variance(Directory(tmp_path)) is None  # one number of latents


def test_a_rate_that_is_infinite_is_said_and_has_no_axes(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.noise_scale": [0.0], "objective.beta": [0.0], "model.latents": [2, 3]})
    axes = learning.learning_curves(Directory(tmp_path)).axes[2]
    assert axes.get_title() == "rate" and not axes.axison
    assert [text.get_text() for text in axes.texts] == ["infinite: the codes are points"]


def test_a_label_does_not_repeat_the_heading_of_its_plane(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [0.5, 1.0, 4.0], "model.latents": [2, 3, 4]})
    figure = learning.learning_curves(Directory(tmp_path))
    legend = figure.axes[2].get_legend()
    assert figure.axes[2].get_title() == "rate, latents 2"
    assert [text.get_text() for text in legend.get_texts()] == ["beta 0.5", "beta 1", "beta 4"]
    texts = {text.get_text() for axes in learning.posterior_std(Directory(tmp_path)).axes for text in axes.texts}
    assert texts == {"beta 0.5", "beta 1", "beta 4"}


def test_fifty_lines_have_no_bands(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [float(beta + 1) for beta in range(50)]}, seeds=2)
    figure = learning.learning_curves(Directory(tmp_path))
    assert "bands" not in figure.get_suptitle() and "dashed" not in figure.get_suptitle()
    for each in (figure, learning.posterior_std(Directory(tmp_path))):
        assert not any(collection for axes in each.axes for collection in axes.collections if axes.lines)


def test_legends_and_bars_stand_beside_their_own_curves(tmp_path, studies):
    """A long legend in one row, a bar in another: the curves keep their width, and no heading touches the next."""
    told = {"model.conditioning": ["beta"], "objective.beta": [1.0]}
    rows = studies.write_grid(tmp_path, told, seeds=2, name="a_network_that_is_told")
    found = tables.read_csv(rows / "results.csv")
    for beta in range(9):
        settings = {"model.conditioning": "none", "objective.beta": float(beta + 1)}
        found.append(studies.write_run(tmp_path, settings, "beta_vae"))
    tables.write_csv(tmp_path / "results.csv", found)
    figure = learning.learning_curves(Directory(tmp_path))
    studies.check_layout(figure)
    curves = [axes for axes in figure.axes if axes.lines]
    bars = [axes for axes in figure.axes if axes.get_ylabel() == "beta"]
    assert len(curves) == 9 and len(bars) == 2
    for bar in bars:
        gap = bar.get_position().x0 - max(axes.get_position().x1 for axes in curves)
        assert 0 < gap < 0.05
    assert min(axes.get_position().width for axes in curves) > 0.2


def test_losses_of_likelihoods_that_do_not_compare_have_planes_of_their_own(tmp_path, studies):
    grid = {"model.likelihood": ["bernoulli", "gaussian", "continuous_bernoulli"]}
    figure = learning.learning_curves(Directory(studies.write_grid(tmp_path, grid)))
    assert [axes.get_title().replace("\n", " ") for axes in figure.axes][::3] == [
        "loss, Bernoulli",
        "loss, log density of the pixels",
    ]
    lines = [[line.get_label() for line in axes.lines if not line.get_label().startswith("_")] for axes in figure.axes]
    assert [len(labels) for labels in lines] == [1] * 3 + [2] * 3


def test_the_title_names_the_only_split(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [1.0]})
    rows = [{key: value for key, value in row.items() if not key.startswith("valid")} for row in metrics_of(tmp_path)]
    (tmp_path / "metrics.jsonl").unlink()
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", rows)
    assert (
        learning.learning_curves(Directory(tmp_path)).get_suptitle() == "Learning curves in nats per image, training split"
    )


def metrics_of(workdir):
    return run_directory.read_jsonl(workdir / "metrics.jsonl")


def test_bands_are_whole(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": [1.0]}, seeds=2)
    (tmp_path / "metrics.jsonl").unlink()
    rows = [
        {"run": run, "epoch": epoch, "train_loss": 100.0 * (epoch == 0) + 10 + (2 * run - 1) * 3}
        for run in (0, 1)
        for epoch in range(51)
    ]
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", rows)
    low, high = learning.learning_curves(Directory(tmp_path)).axes[0].get_ylim()
    assert low < 7 and 13 < high < 20


def test_rates_without_a_kl_do_not_squash_the_others(tmp_path, studies):
    studies.write_study(tmp_path, {name: studies.VARIANTS[name] for name in ("vae_no_kl", "vae")}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    run_directory.write_arrays(path, run_directory.read_arrays(path) | {"rate_per_latent": np.array([30.0, 20.0])})
    figure = learning.rates(Directory(tmp_path))
    free, held = figure.axes
    assert free.get_ylim() == held.get_ylim() == (0, 1.18)
    assert free.texts[0].get_text() == "2 of 2 above 0.01 nats\ncut off: up to 30.0 nats"
    assert "cut off" not in held.texts[0].get_text()
