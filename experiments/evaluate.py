"""Evaluate the trained runs of a directory anew, from its checkpoints; writes results.csv and arrays/.

python -m experiments.evaluate --workdir=runs/ablations
"""

from absl import flags

from experiments import command_line, config_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a trained study.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study, where that adds parts; it is run for those only.")


def main() -> None:
    from vae_jax.study import study
    from vae_jax.system import multihost

    if _CONFIG.value:
        config_files.run(_CONFIG.value)
    rows = study.evaluate(_WORKDIR.value)
    if multihost.writes():
        print(study.summary(rows))


if __name__ == "__main__":
    command_line.run(main)
