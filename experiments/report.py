"""Write report.html: studies on one page that needs no network, with their trained models to play with.

    python -m experiments.report --workdir=runs/ablations
    python -m experiments.report --workdir=runs/ablations --workdir=runs/latents

Several directories give one page, in the first of them.
"""

from absl import flags

from experiments import command_line, config_files

_WORKDIRS = flags.DEFINE_multi_string("workdir", None, "Directory of an evaluated study; may be given again.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study, where that adds parts; it is run for those only.")


def main() -> None:
    from vae_jax.api import pages

    if _CONFIG.value:
        config_files.run(_CONFIG.value)
    print(pages.report(*_WORKDIRS.value))


if __name__ == "__main__":
    command_line.run(main)
