r"""Train a study, evaluate it, draw its figures, print its summary.

    python -m experiments.train --config=configs/vae.py
    python -m experiments.train --config=configs/beta_vae.py --workdir=runs/b4 --config.objective.beta=4
    python -m experiments.train --config=configs/vae.py --workdir=runs/grid \
        --sweep=objective.beta=0.25,1,4 --sweep=seed=0,1,2

Any config field can be set (--config.x.y=VALUE) or swept (--sweep=x.y=V1,V2,...; several multiply, also with the
config's own sweep); --help lists them, and --config without a value lists the config files. The same command again goes
on where it stopped, or only draws again. --eval=quick, while a sweep is being designed, evaluates the bounds and used
latents of the test split, from few draws; --eval=none nothing. The same command without it fills the table, and trains
nothing again. A run that turned non-finite is left where it was finite last, and the exit code is 3 when everything else
is done. On several machines, with --workdir on a disk that all see, each process is started with the same flags and

    --coordinator=HOST:PORT --processes=N --process=I

which Slurm (srun), Open MPI and Kubernetes (an indexed job) make unnecessary.
"""

import contextlib
import importlib
import pathlib
import sys
import threading

from absl import flags

from experiments import command_line, config_files

_CONFIG = flags.DEFINE_string("config", None, "Config file, configs/NAME.py; --config alone lists them.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory that will hold everything (default: runs/NAME).")
_SWEEP = flags.DEFINE_multi_string("sweep", [], "KEY=V1,V2,...: one run per value; commas inside brackets do not split.")
_OVERRIDE = flags.DEFINE_multi_string("override", [], "What --config.KEY=VALUE stands for: KEY=VALUE.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write event files for TensorBoard too, below tensorboard/.")
_RESTART = flags.DEFINE_bool("restart", False, "Remove what a study left in the workdir, and start over.")
_EVAL = flags.DEFINE_enum("eval", "full", ["none", "quick", "full"], "How much is evaluated; full: what the config says.")
_ALLOW_DIVERGED = flags.DEFINE_bool("allow_diverged", False, "Exit with 0, and not with 3, where runs diverged.")

AHEAD = ("orbax.checkpoint", "scipy.spatial", "matplotlib.figure")  # what the end of a study needs


def _import_ahead() -> None:
    """While the first runs are trained; before, it would take time from what they wait for."""
    for name in AHEAD:
        with contextlib.suppress(ImportError):  # told where it is used
            importlib.import_module(name)


def main() -> None:
    from vae_jax.api import pages
    from vae_jax.figures import draw as figures
    from vae_jax.figures import second, tensorboard
    from vae_jax.study import study
    from vae_jax.system import multihost

    if _TENSORBOARD.value:
        tensorboard.require()
    config, sweep = config_files.load(_CONFIG.value, _OVERRIDE.value, _EVAL.value)
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{pathlib.Path(_CONFIG.value).stem}")
    planned = study.plan(config, sweep, [config_files.parse_sweep(text) for text in _SWEEP.value])
    with contextlib.ExitStack() as stack:
        process, imports = None, threading.Thread(target=_import_ahead)
        if not (workdir / "results.csv").exists() and command_line.cores() > 1 and multihost.writes():
            process = stack.enter_context(second.Process())

        def on_chunk(_: object) -> None:
            if imports.ident is None:
                imports.start()

        rows = study.execute(planned, workdir, _RESTART.value, on_chunk)
        if not multihost.writes():
            return
        drawn = figures.draw(workdir, second=process)
    pages.report(workdir, load=planned.load)
    if _TENSORBOARD.value:
        tensorboard.write(workdir)
    print(study.summary(rows))
    print(study.best(rows), end="\n" if study.best(rows) else "")
    print(f"{workdir}: results.csv, {len(drawn)} figures in figures/, and all of it in report.html")
    if (diverged := study.diverged(rows)) and not _ALLOW_DIVERGED.value:
        print(f"error: {diverged}; --allow_diverged takes that for success", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    command_line.run(main)
