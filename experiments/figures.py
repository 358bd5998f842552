"""Draw the figures of a run directory, from its files alone.

python -m experiments.figures --workdir=runs/ablations
"""

from absl import flags

from experiments import command_line

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of an evaluated study.", required=True)


def main() -> None:
    from vae_jax.figures import draw as figures

    for path in figures.draw(_WORKDIR.value):
        print(path)


if __name__ == "__main__":
    command_line.run(main)
