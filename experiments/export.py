"""Write a trained model as one file that needs JAX alone (StableHLO), with a card of what it is.

python -m experiments.export --workdir=runs/ablations --run=3 --output=model.zip
"""

from absl import flags

from experiments import command_line

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of an evaluated study.", required=True)
_RUN = flags.DEFINE_integer("run", None, "The run's number in results.csv.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)


def main() -> None:
    from vae_jax.api import trained

    trained.load(_WORKDIR.value, run=_RUN.value).export(_OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    command_line.run(main)
