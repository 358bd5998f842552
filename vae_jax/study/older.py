"""Reads `config.json` of format 1: fields that exist no more, in terms of those that replaced them."""

import itertools
from collections.abc import Mapping, Sequence

from vae_jax.core.schema import Value
from vae_jax.study.config import ABSENT, Flat

DRAWS, COOLING = "objective.importance_samples", "optimizer.cooling"
YOUNGER = "optimizer.name"  # absent from every config in which the two above have their older meaning


def translated(
    config: Mapping[str, Value], rows: Sequence[Flat], sweeps: Sequence[tuple[str, Sequence]]
) -> tuple[Flat, list[Flat], list[tuple[str, Sequence]]]:
    """A study's config (flat), rows and sweeps, with the fields of this version.

    Where an older field cannot be translated by itself, the sweeps are multiplied out into rows, in the order of the runs.
    """
    if YOUNGER in config:
        return ABSENT | dict(config), list(rows), list(sweeps)
    config, rows = ABSENT | {DRAWS: 1, COOLING: 0.0} | dict(config), list(rows)
    swept = {key for row in (*rows, dict(sweeps)) for key in row}
    if swept & {DRAWS, COOLING} or (config[COOLING] and "train.epochs" in swept):
        axes = [[{key: value} for value in values] for key, values in sweeps]
        products = itertools.product(rows or [{}], *axes)
        rows, sweeps = [dict(itertools.chain(*map(dict.items, parts))) for parts in products], []
        rows = [{key: value for key, value in (row | _newer(config | row)).items() if key != COOLING} for row in rows]
    config |= _newer(config)
    del config[COOLING]
    return config, rows, list(sweeps)


def _newer(config: Flat) -> Flat:
    """What replaces the older fields of one run."""
    newer: Flat = {}
    if config[DRAWS] > 1:
        newer["objective.kind"] = "importance"
    if config[COOLING]:
        newer["schedule.sigma"] = f"cooling:{config[COOLING] * config['train.epochs']:g}"
    return newer
