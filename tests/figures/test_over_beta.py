"""Figures of a network that is told beta: its line among separate runs, one image over beta, where latents switch off."""

import numpy as np
import pytest

from vae_jax.figures import over_beta, rate_distortion
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import tables

BETAS = [0.5, 1.0, 2.0, 4.0]


@pytest.fixture
def directory(tmp_path, studies):
    """Conditioned and separate runs at the same betas, two seeds."""
    return Directory(
        studies.write_grid(tmp_path, {"objective.beta": BETAS, "model.conditioning": ["beta", "none"]}, seeds=2)
    )


def test_the_conditioned_family_is_a_line_with_a_band_and_the_others_are_points(directory):
    (told,) = (family for family in directory.families if over_beta.is_told_beta(directory, family))
    (alone,) = (family for family in directory.families if family is not told)
    for axes in rate_distortion.trade_off(directory).axes:
        (line,) = (line for line in axes.lines if line.get_label() == told.label)
        prefix = "train_" if axes.get_title() == "training split" else ""
        expected = [rate_distortion.point_of(setting, prefix).xy for setting in told.settings]
        np.testing.assert_allclose(line.get_xydata(), expected)
        assert len(axes.collections) > len(axes.containers)  # the band, beside the error bars
        assert {bar.get_label() for bar in axes.containers} == {setting.label for setting in alone.settings}
        assert not any(len(line.get_xdata()) == len(BETAS) for line in axes.lines if line.get_color() == alone.color)


def test_one_image_over_beta_is_of_one_network(directory, studies):
    figure = over_beta.over_beta(directory)
    studies.check_layout(figure)
    *pictures, std, rate = figure.axes
    assert [axes.get_title() for axes in pictures] == ["image", "beta 0.5", "beta 1", "beta 2", "beta 4"]
    assert [len(axes.images) for axes in pictures] == [1] * 5
    for axes in (std, rate):
        lines = [line for line in axes.lines if len(line.get_xdata()) == len(BETAS)]
        assert len(lines) == 2 and all(list(line.get_xdata()) == BETAS for line in lines)


def test_more_than_eight_latents_have_a_bar_along_their_rates(tmp_path, studies):
    workdir = studies.write_grid(tmp_path, {"objective.beta": BETAS}, config={"model": {"conditioning": "beta"}}, latents=10)
    figure = over_beta.over_beta(Directory(workdir))
    studies.check_layout(figure)
    *_, std, rate, bar = figure.axes
    assert std.get_legend() is None and bar.get_ylabel() == "latent"
    lines = [line for line in rate.lines if len(line.get_xdata()) == len(BETAS)]
    heights = [line.get_ydata()[0] for line in lines]
    assert len(lines) == 10 and heights == sorted(heights, reverse=True)  # as the colours are ordered
    assert bar.get_yticklabels()[0].get_text() == "1"  # of most rate


def test_there_is_none_without_such_a_network(tmp_path, studies):
    assert over_beta.over_beta(Directory(studies.write_grid(tmp_path, {"objective.beta": BETAS}))) is None


def test_a_latent_switches_off_between_the_last_beta_that_uses_it_and_the_next():
    betas = np.array([0.5, 1.0, 4.0, 9.0])
    rates = np.array([[3, 2, 1, 0.5], [2, 1, 0, 0], [0, 0, 0, 0], [1, 0.5, 0.2, 0]]).T
    assert over_beta.switched_off(betas, rates) == {1: 2.0, 3: 6.0}


def test_factors_over_beta_are_the_means_over_seeds(tmp_path, studies):
    studies.write_grid(tmp_path, {"objective.beta": BETAS, "model.conditioning": ["beta", "none"]}, seeds=2)
    rows = tables.read_csv(tmp_path / "results.csv")
    for row in rows:
        beta, seed = row["objective.beta"], row["seed"]
        row |= {"midpoint_ratio": 1 / beta + seed, "prior_to_nearest": 0.1, "attribute_effect_hair": 0.5 / beta}
        row |= {"attribute_effect_hair_image_se": 0.1, "attribute_effect_smile": 0.2}
    tables.write_csv(tmp_path / "results.csv", rows)
    figure = over_beta.factors_over_beta(Directory(tmp_path))
    studies.check_layout(figure)
    middle, _, effects = figure.axes
    np.testing.assert_allclose(middle.lines[0].get_xydata(), [(beta, 1 / beta + 0.5) for beta in BETAS])
    assert [line.get_label() for line in effects.lines] == ["hair", "smile"]
    np.testing.assert_allclose(effects.lines[0].get_ydata(), [0.5 / beta for beta in BETAS])
