"""Families, labels and comparisons: what a study's config fields make of its runs."""

import math

import pytest

from vae_jax.figures import settings, style
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Role
from vae_jax.storage import run_directory


def rows_of(values, name="vae", **columns):
    """A row for each of these dicts of config fields."""
    return [{"name": name, "seed": 0, "elbo": -20.0} | columns | each for each in values]


def families(workdir, studies, rows):
    studies.write_table(workdir, rows)
    return Directory(workdir)


def test_roles_and_families_of_the_ablations(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path))
    found = {family.label: (family.role, family.axis, [s.label for s in family.settings]) for family in directory.families}
    assert found == {
        "ae": (Role.DETERMINISTIC, "", ["ae"]),
        "vae_no_kl": (Role.NO_KL, "", ["vae_no_kl"]),
        "beta_vae": (Role.BOTH, "objective.beta", ["beta_vae, beta 0.5", "vae", "beta_vae, beta 2"]),
        "kl_only": (Role.KL_ONLY, "", ["kl_only"]),
        "pca": (Role.CLOSED_FORM, "", ["pca"]),
    }
    assert len({family.color for family in directory.families}) == 5
    assert [s.label for s in directory.trained] == [s.label for s in directory.settings][:-1]


def test_one_name_for_all_is_labelled_by_the_fields(tmp_path, studies):
    directory = Directory(studies.write_study(tmp_path, names=dict.fromkeys(studies.VARIANTS, "x"), seeds=1))
    labels = {setting.label for setting in directory.trained}
    assert labels == {"x, deterministic", "x, no KL", "x, KL only", "x, beta 0.5", "x, beta 1", "x, beta 2"}


def test_a_grid_of_two_fields_has_a_family_for_each_value_of_the_second(tmp_path, studies):
    rows = rows_of([{"objective.beta": b, "model.latents": k} for k in (2, 8) for b in (4.0, 1.0)])
    directory = families(tmp_path, studies, rows)
    assert [family.label for family in directory.families] == ["latents 2", "latents 8"]
    assert [s.label for s in directory.families[0].settings] == ["beta 1, latents 2", "beta 4, latents 2"]


def test_methods_are_told_by_their_kind_and_have_their_own_weights(tmp_path, studies):
    rows = rows_of([{"objective.beta": b, "objective.kind": "weighted"} for b in (1.0, 2.0)], "beta_vae")
    rows += rows_of([{"objective.capacity": c, "objective.kind": "capacity"} for c in (5.0, 10.0)], "capacity")
    rows += rows_of([{"objective.beta": b, "objective.kind": "weighted", "schedule.beta": "cyclical:9"} for b in (1.0, 2.0)])
    studies.write_table(tmp_path, rows)
    config = {"objective": {"kind": "weighted", "beta": 1.0, "capacity": 0.0}, "schedule": {"beta": "constant"}}
    run_directory.write_json(tmp_path / "config.json", {"config": config})
    directory = Directory(tmp_path)
    assert [(f.label, f.axis) for f in directory.families] == [
        ("beta_vae", "objective.beta"), ("capacity", "objective.capacity"), ("vae", "objective.beta"),
    ]  # fmt: skip
    assert [s.label for s in directory.families[1].settings] == ["capacity 5", "capacity 10"]


def test_fields_the_grid_leaves_out_are_those_of_the_config(tmp_path, studies):
    studies.write_table(tmp_path, rows_of([{"model.sigma": 0.1}, {}, {"model.sigma": "learned"}]))
    run_directory.write_json(tmp_path / "config.json", {"config": {"model": {"sigma": "0.1", "hidden": [64, 64]}}})
    directory = Directory(tmp_path)
    assert [len(setting.rows) for setting in directory.settings] == [2, 1]  # the first two are the same setting
    assert directory.value(directory.settings[0], "model.hidden") == "(64,64)"


def chosen(directory, most):
    choice = settings.comparison(directory.trained, most)
    return [setting.label for setting in choice.settings], choice.note


def test_one_thing_varies_and_the_rest_is_held_at_the_best(tmp_path, studies):
    grid = [(b, k, -20 - abs(b - 1) - abs(k - 4)) for k in (2, 4, 8) for b in (0.25, 1.0, 4.0)]
    rows = [row | {"elbo": e} for (b, k, e) in grid for row in rows_of([{"objective.beta": b, "model.latents": k}])]
    directory = families(tmp_path, studies, rows)
    labels, note = chosen(directory, 8)
    assert labels == ["beta 0.25, latents 4", "beta 1, latents 4", "beta 4, latents 4"] and note == "latents 4 in all"


def test_texts_are_compared_at_values_that_all_have(tmp_path, studies):
    rows = []
    for prior, shift in (("normal", 0.0), ("flow", 5.0)):
        for beta, elbo in ((0.5, -22.0), (1.0, -20.0), (2.0, -21.0)):
            rows += rows_of([{"model.prior": prior, "objective.beta": beta}], elbo=elbo + shift)
    directory = families(tmp_path, studies, rows)
    labels, note = chosen(directory, 8)
    assert labels == ["prior normal, beta 1", "prior flow, beta 1"]
    assert note == "beta 1 in all"


def test_methods_without_common_values_are_shown_at_their_best(tmp_path, studies):
    rows = rows_of([{"objective.kind": "weighted", "objective.beta": 1.0}], elbo=-20.0)
    rows += rows_of([{"objective.kind": "weighted", "objective.beta": 4.0}], elbo=-25.0)
    rows += rows_of([{"objective.kind": "capacity", "objective.capacity": 5.0}], elbo=-23.0)
    rows += rows_of([{"objective.kind": "capacity", "objective.capacity": 9.0}], elbo=-21.0)
    studies.write_table(tmp_path, rows)
    config = {"objective": {"beta": 3.0, "capacity": 0.0}}
    run_directory.write_json(tmp_path / "config.json", {"config": config})
    choice = settings.comparison(Directory(tmp_path).trained, 8)
    assert [setting.score for setting in choice.settings] == [-20.0, -21.0] and choice.note == "the best of each by elbo"


def test_many_values_are_spread_and_the_best_is_among_them(tmp_path, studies):
    rows = rows_of([{"objective.beta": b / 10} for b in range(1, 51)])
    for row in rows:
        row["elbo"] = -20 - abs(row["objective.beta"] - 0.9)
    directory = families(tmp_path, studies, rows)
    labels, note = chosen(directory, 6)
    assert len(labels) == 6 and labels[0] == "beta 0.1" and labels[-1] == "beta 5" and "beta 0.9" in labels and note == ""


def test_the_validation_split_chooses_where_it_was_evaluated(tmp_path, studies):
    rows = rows_of(
        [{"objective.beta": 1.0, "valid_elbo": -30.0}, {"objective.beta": 2.0, "valid_elbo": -25.0, "elbo": -21.0}]
    )
    directory = families(tmp_path, studies, rows)
    assert max(directory.trained, key=lambda s: s.score).label == "beta 2"


def test_score_of_what_has_no_elbo_is_its_error(tmp_path, studies):
    directory = families(tmp_path, studies, rows_of([{"model.latents": 1}], elbo=-math.inf, mse=0.25))
    assert directory.trained[0].score == -0.25


@pytest.mark.parametrize("count", [1, 2, 8, 12, 50])
def test_colors_of_families_differ(count):
    assert len({str(color) for color in style.family_colors([(2, 1)] * count)}) == count
    assert len({str(color) for color in style.sequence(count)}) == count
    assert style.family_colors([(2, 1)]) == style.family_colors([(0, 1), (2, 3)])[1:] == [style.BLUE]


def test_text_can_be_read_on_white():
    for color in (*style.PALETTE, *style.sequence(50), *style.CLASSES):
        assert sum(a * b for a, b in zip(style.ink(color), (0.2126, 0.7152, 0.0722), strict=True)) <= 0.42
