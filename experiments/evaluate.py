"""Evaluate the trained runs of a directory anew, from its checkpoints; writes results.csv and arrays/.

python -m experiments.evaluate --workdir=runs/ablations
"""

from absl import flags

from experiments import command_line

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a trained study.", required=True)


def main() -> None:
    from vae_jax.study import study
    from vae_jax.system import multihost

    rows = study.evaluate(_WORKDIR.value)
    if multihost.writes():
        print(study.summary(rows))


if __name__ == "__main__":
    command_line.run(main)
