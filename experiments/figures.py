"""Draw the figures of a run directory, from its files alone.

python -m experiments.figures --workdir=runs/ablations
"""

import pathlib

from absl import flags

from experiments import command_line, config_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of an evaluated study.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study, where that adds parts; it is run for those only.")


def main() -> None:
    from vae_jax.core import registry
    from vae_jax.figures import draw as figures
    from vae_jax.storage import run_directory

    if _CONFIG.value:
        config_files.run(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value)
    if (workdir / "config.json").exists():
        registry.check(run_directory.read_config(workdir).get("parts"), str(workdir))
    for path in figures.draw(workdir):
        print(path)


if __name__ == "__main__":
    command_line.run(main)
