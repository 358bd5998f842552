"""Figures of decoders that give intervals."""

import itertools
import math

import numpy as np
import pytest

from vae_jax.figures import calibration, draw
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables


def write_calibration(workdir, sigmas=("0.1", "learned"), shape=(4, 4, 1), betas=(1.0, 4.0)) -> None:
    """Some betas of each kind of sigma: intervals half of which hold the data, and a coverage of the nominal squared."""
    levels = np.arange(1, 20) / 20
    rows: list = []
    for sigma, beta in itertools.product(sigmas, betas):
        images = np.linspace(0, 1, 16 * math.prod(shape)).reshape(16, *shape)
        half = np.where(np.arange(images.size) % 2, 0.1, -0.1).reshape(images.shape)
        scale = 0.5 if sigma == "0.1" else 0.1
        arrays = {"images": images, "predictive_mean": images, "predictive_sigma": np.full_like(images, scale)}
        arrays |= {"predictive_low": images - half, "predictive_high": images + half}
        arrays |= {"coverage_levels": levels, "coverage": levels**2, "coverage_se": levels / 100}
        arrays |= {"pit_histogram": np.full(20, 0.05), "pit_histogram_se": np.full(20, 0.01)}
        run_directory.write_arrays(run_directory.arrays_path(workdir, len(rows)), arrays)
        coverage = {"coverage_3sigma": 0.9, "predictive_coverage_3sigma": 0.95, "mean_code_coverage_3sigma": 0.97}
        settings = {"model.sigma": sigma, "objective.beta": beta, "elbo": -beta}
        rows.append({"run": len(rows), "name": "any", "seed": 0} | settings | coverage)
    tables.write_csv(workdir / "results.csv", rows)


def test_reliability_has_a_panel_for_each_decoder_and_a_curve_for_each_beta(tmp_path, studies):
    write_calibration(tmp_path)
    assert {path.name for path in draw.draw(tmp_path)} == {"intervals.png", "reliability.png"}
    figure = calibration.reliability(Directory(tmp_path))
    for label, axes in zip(("sigma 0.1", "sigma learned"), figure.axes[::2], strict=True):
        assert axes.get_title() == label
        assert [bar.get_label().split(", ")[1] for bar in axes.containers] == ["beta 1", "beta 4"]
        assert len({bar.lines[0].get_color() for bar in axes.containers}) == 2
        for bar in axes.containers:
            line, _, (segments,) = bar.lines
            np.testing.assert_allclose(line.get_ydata(), line.get_xdata() ** 2)
            errors = [np.ptp(segment[:, 1]) / 2 for segment in segments.get_segments()]
            np.testing.assert_allclose(errors, line.get_xdata() / 100)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["beta 1", "beta 4"]  # once, off the curves
    studies.check_layout(figure)


@pytest.mark.parametrize("count", [8, 50])
def test_reliability_of_many_settings(tmp_path, studies, count):
    write_calibration(tmp_path, sigmas=("learned",), betas=[float(beta + 1) for beta in range(count)])
    figure = calibration.reliability(Directory(tmp_path))
    studies.check_layout(figure)
    assert (len(figure.axes) == 3) == (count == 50)  # with a bar beside the axes


def test_intervals_say_which_coverage_was_measured_and_mark_what_is_outside(tmp_path, studies):
    write_calibration(tmp_path)
    figure = calibration.intervals(Directory(tmp_path))
    studies.check_layout(figure)
    assert [axes.get_title() for axes in figure.axes[::2]] == ["sigma 0.1, beta 1", "sigma learned, beta 1"]  # the best beta
    for axes in figure.axes[1::2]:
        measured = "measured coverage: this interval 95.00 %,\nz drawn once 90.00 %, mean code 97.00 %"
        assert axes.get_title() == measured
        inside, outside = (line.get_xdata() for line in axes.lines[1:])
        assert list(inside) == list(range(1, 16, 2)) and list(outside) == list(range(0, 16, 2))


def test_sigma_has_one_scale_for_all_decoders(tmp_path):
    write_calibration(tmp_path)
    for axes, level in zip(calibration.intervals(Directory(tmp_path)).axes[::2], (1.0, 0.2), strict=True):
        assert axes.get_yticklabels()[2].get_text() == "sigma (white: 0.5 or more)"
        picture = np.asarray(axes.images[0].get_array())
        assert picture[2 * 5, 0] == pytest.approx(level)


def test_intervals_of_vectors_are_not_drawn(tmp_path):
    write_calibration(tmp_path, shape=(16,))
    assert {path.name for path in draw.draw(tmp_path)} == {"reliability.png"}
