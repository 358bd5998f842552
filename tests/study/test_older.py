"""Descriptions of studies by older versions, in the fields of this one: the same runs in the same order."""

from vae_jax.study import grid, older
from vae_jax.study.config import default_config

KEPT = {key: value for key, value in grid.flatten(default_config().to_dict()).items() if key not in older.ABSENT}


def runs_of(rows=(), sweeps=(), **fields) -> list[grid.Run]:
    """The runs of an older study; its config has no field that is younger."""
    config = KEPT | {name.replace("__", "."): value for name, value in fields.items()}
    flat, rows, sweeps = older.translated(config, rows, sweeps)
    assert older.COOLING not in flat
    return grid.expand(flat, grid.adding(rows), sweeps)


def test_fields_that_are_younger_are_at_what_their_absence_means():
    (run,) = runs_of()
    assert (run.config["optimizer.name"], run.config["schedule.sigma"], run.config["optimizer.ema"]) == (
        "adam",
        "constant",
        0,
    )
    assert run.settings == {}


def test_a_config_of_this_version_stays():
    config = grid.flatten(default_config().to_dict()) | {"objective.importance_samples": 5}
    assert older.translated(config, [{"seed": 1}], [("name", ["a"])]) == (config, [{"seed": 1}], [("name", ["a"])])


def test_cooling_is_a_schedule_of_sigma():
    learned = {"model__likelihood": "gaussian", "model__sigma": "learned"}
    (run,) = runs_of(optimizer__cooling=0.4, train__epochs=20_000, **learned)
    assert run.config["schedule.sigma"] == "cooling:8000"
    found = runs_of(sweeps=[("seed", [0, 1]), ("train.epochs", [10, 20])], optimizer__cooling=0.5, **learned)
    assert [(run.seed, run.config["schedule.sigma"]) for run in found] == [
        (0, "cooling:5"), (0, "cooling:10"), (1, "cooling:5"), (1, "cooling:10"),
    ]  # fmt: skip


def test_several_draws_are_a_kind_of_objective():
    (run,) = runs_of(objective__importance_samples=5)
    assert (run.config["objective.kind"], run.config["objective.importance_samples"]) == ("importance", 5)
    found = runs_of(
        rows=[{"name": "vae", "objective.importance_samples": 1}, {"name": "iwae", "objective.importance_samples": 5}]
    )
    assert [(run.name, run.config["objective.kind"]) for run in found] == [("vae", "weighted"), ("iwae", "importance")]
