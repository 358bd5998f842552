"""Evaluate the trained runs of a directory anew, from its checkpoints; writes results.csv and arrays/.

    python -m experiments.evaluate --workdir=runs/ablations
    python -m experiments.evaluate --workdir=runs/ablations --config.eval.importance_samples=1000

Any `eval` field can become other than it was (--config.eval.x=VALUE); `config.json` says which the table is of.
"""

from absl import flags

from experiments import command_line, config_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a trained study.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study, where that adds parts; it is run for those only.")
_OVERRIDE = flags.DEFINE_multi_string("override", [], "What --config.KEY=VALUE stands for: KEY=VALUE.")


def main() -> None:
    from vae_jax.study import study
    from vae_jax.system import multihost

    if _CONFIG.value:
        config_files.run(_CONFIG.value)
    rows = study.evaluate(_WORKDIR.value, config_files.read_overrides(_OVERRIDE.value))
    if multihost.writes():
        print(study.summary(rows))


if __name__ == "__main__":
    command_line.run(main)
