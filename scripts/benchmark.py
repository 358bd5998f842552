"""Times beside what people would otherwise use, and beside what no program can beat: one table, also as JSON.

    python -m scripts.benchmark [--only=NAME] [--repeat=N] [--peers] [--output=FILE.json]

Nothing else should be running. With TFDS_DATA_DIR set the images are MNIST, else random bytes of that shape. `--peers`
needs scripts/peers/requirements.txt; a peer whose packages are missing is left out.
"""

import dataclasses
import json
import pathlib
import platform

from absl import flags

from experiments import command_line

_ENTRIES = ["mnist", "digits", "conv", "stream", "start", "importance", "growth", "evaluation", "curve"]
_ONLY = flags.DEFINE_enum("only", None, _ENTRIES, "One entry of them.")
_REPEAT = flags.DEFINE_integer("repeat", 5, "How often everything is timed; medians are shown.", lower_bound=1)
_PEERS = flags.DEFINE_bool("peers", False, "Time the peers too.")
_OUTPUT = flags.DEFINE_string("output", "runs/benchmark.json", "File that the table is also written to.")
_TINY = flags.DEFINE_bool("tiny", False, "Smallest sizes, whose times say nothing: to see that everything runs.")

HEADER = ("what", "per", "ours", "compared with", "theirs", "ratio", "goal", "floor")
WIDTHS = (44, 14, 10, 18, 10, 6, 6, 10)


def main() -> None:
    import jax

    from scripts import workloads

    peers = workloads.importable(workloads.PEERS) if _PEERS.value else ()
    settings = workloads.Settings(_REPEAT.value, peers, _TINY.value)
    found: list[workloads.Row] = []
    print(_line(HEADER))
    for name in [_ONLY.value] if _ONLY.value else workloads.ENTRIES:
        for row in workloads.ENTRIES[name](settings):
            found.append(row)
            print(_line(_cells(row)), flush=True)
    described = {
        "machine": {"cpu": _cpu(), "cores": command_line.cores(), "backend": jax.default_backend()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "repeat": _REPEAT.value,
        "rows": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in found],
    }
    output = pathlib.Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(described, indent=1) + "\n")


def _cells(row) -> tuple[str, ...]:
    goal, floor = f"{row.goal:.2f}" if row.goal else "", _time(row.floor) if row.floor else ""
    return row.what, row.unit, _time(row.ours), row.against, _time(row.theirs), f"{row.ratio:.2f}", goal, floor


def _line(cells: tuple[str, ...]) -> str:
    return " ".join(f"{cell:{width}s}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _cpu() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    command_line.run(main)
