"""Draw the figures of a run directory, from its files alone.

python -m experiments.figures --workdir=runs/ablations
python -m experiments.figures --workdir=runs/grid --only=samples --select=model.latents=8 --format=pdf
"""

import contextlib
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import command_line, config_files

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of an evaluated study.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "Config file of the study, where that adds parts; it is run for those only.")
_ONLY = flags.DEFINE_multi_string("only", [], "NAME of a figure, as its file is called; all others are left as they are.")
_SELECT = flags.DEFINE_multi_string("select", [], "KEY=VALUE: show the settings that have it (any config name, name, seed).")
_FORMAT = flags.DEFINE_string("format", "png", "png, pdf or svg; what moves is always a GIF.")


def main() -> None:
    from vae_jax.core import registry
    from vae_jax.figures import draw, second
    from vae_jax.storage import run_directory

    if _CONFIG.value:
        config_files.run(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value)
    if (workdir / "config.json").exists():
        registry.check(run_directory.read_config(workdir).get("parts"), str(workdir))
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(second.Process()) if command_line.cores() > 1 and not _ONLY.value else None
        for path in draw.draw(workdir, _ONLY.value, _selection(_SELECT.value), _FORMAT.value, process):
            print(path)


def _selection(texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts as a dict."""
    from vae_jax.core import errors

    selection: dict[str, str] = {}
    for text in texts:
        key, given, value = text.partition("=")
        if not given or key in selection:
            problem = "is given twice" if given else "should be --select=KEY=VALUE"
            raise errors.UserError(f"--select={text}: {problem}")
        selection[key] = value
    return selection


if __name__ == "__main__":
    command_line.run(main)
