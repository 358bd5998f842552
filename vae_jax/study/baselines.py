"""Closed-form rows of `results.csv`, one for each setting that they depend on; what does not apply stays empty."""

from vae_jax.evaluation import baselines
from vae_jax.storage.run_directory import Row
from vae_jax.study import rules
from vae_jax.study.grid import Run
from vae_jax.study.planning import Study


def rows(study: Study, first: int) -> list[Row]:
    """The rows of every baseline that the runs ask for, numbered from `first` on."""
    found: dict[tuple, Row] = {}
    for group in study.groups:
        for run in (study.rows[number].run for number in study.rows_of(group)):
            for name in run.config["baselines"]:
                key = (name, *(value for field, value in run.config.items() if _applies(name, field)))
                if key in found or (name == "ppca" and run.config["objective.beta"] == 0):
                    continue
                kind, sigma = rules.sigma(run.config)
                settings = (run.config["model.latents"], run.config["objective.beta"], sigma if kind == "fixed" else None)
                metrics = baselines.row(name, group.dataset, *settings, run.config["eval.without"])
                if metrics is not None:
                    found[key] = {"run": first + len(found), "name": name} | _settings(name, run) | metrics
    return list(found.values())


def _settings(baseline: str, run: Run) -> Row:
    return {field: value for field, value in run.settings.items() if _applies(baseline, field)}


def _applies(baseline: str, field: str) -> bool:
    """Whether a closed form depends on a field of the config."""
    fields = ("model.latents", "model.sigma", "objective.beta") if baseline == "ppca" else ("model.latents",)
    return field in fields or field.startswith("data.")
