"""Evaluate the trained runs of a directory anew, from its checkpoints; writes results.csv and arrays/.

    python -m experiments.evaluate --workdir=runs/ablations
    python -m experiments.evaluate --workdir=runs/ablations --config.eval.importance_samples=1000

Any `eval` field can become other than it was (--config.eval.x=VALUE); `config.json` says which the table is of.
--eval=quick|none evaluates less; --eval=full takes back what these had left out, to the defaults or, with --config=FILE, to
what that file says.
"""

from absl import flags

from experiments import command_line, config_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a trained study.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study: the parts that it adds, and what --eval=full is.")
_OVERRIDE = flags.DEFINE_multi_string("override", [], "What --config.KEY=VALUE stands for: KEY=VALUE.")
_EVAL = flags.DEFINE_enum("eval", None, ["none", "quick", "full"], "How much is evaluated; without it, as much as before.")


def main() -> None:
    from vae_jax.study import grid, study
    from vae_jax.system import multihost

    full = None
    if _CONFIG.value and _EVAL.value == "full":
        full = grid.flatten(config_files.load(_CONFIG.value, [])[0])
    elif _CONFIG.value:
        config_files.run(_CONFIG.value)
    rows = study.evaluate(_WORKDIR.value, config_files.read_overrides(_OVERRIDE.value), _EVAL.value, full)
    if multihost.writes():
        print(study.summary(rows))


if __name__ == "__main__":
    command_line.run(main)
