"""A second process that draws: the figures of a directory take two cores, and matplotlib is imported while a study trains.

    with second.Process() as process:
        draw.draw("runs/ablations", second=process)

It reads the directory and answers with the content of a file; it writes nothing. What it cannot draw, the first one does.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

import vae_jax
from vae_jax.core import registry

_SERVE = "from vae_jax.figures import second; second.serve()"


class Asked(NamedTuple):
    """The file of a figure: its name, and what it is drawn from; `source` is a digest of all that."""

    file: str
    workdir: str
    select: Mapping[str, str]
    source: str = ""


class Answer(NamedTuple):
    """`content` is None where the directory has not what the figure shows; `missing`: characters that no font has."""

    content: bytes | None
    missing: str


class Process:
    """Draws one file at a time. Ends with the process that started it, whatever ends that."""

    def __init__(self):
        path = os.pathsep.join([str(pathlib.Path(vae_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process: subprocess.Popen | None = None
        if registry.added():  # what a user's file has added is not known there
            return
        with contextlib.suppress(OSError):  # no more processes allowed
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path.strip(os.pathsep)},
                start_new_session=True,  # what stops the first one at the keyboard is the first one's to handle
            )  # fmt: skip

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        if self._process:
            self._process.kill()  # it has nothing to lose
            self._process.communicate()

    def draw(self, asked: Asked) -> Answer | None:
        """The file's content; None where it cannot be drawn there, whatever the reason."""
        if not self._process or not self._process.stdin or not self._process.stdout or registry.added():
            return None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
            size, missing = json.loads(self._process.stdout.readline())
            content = self._process.stdout.read(size or 0)
        except (OSError, ValueError):  # it has ended
            return None
        return Answer(content or None, missing) if len(content) == size else None


def serve() -> None:
    """Answer each line on standard input, an `Asked`, by a line [bytes, missing] and so many bytes; null where it fails."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    from vae_jax.figures import draw, fonts
    from vae_jax.figures.run_directory import Directory

    answers, read, directory = os.fdopen(os.dup(1), "wb"), None, None
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin.buffer:
        asked = Asked(*json.loads(line))
        fonts.said[:] = [""]  # not here: by who asks
        content, size = b"", None
        with contextlib.suppress(Exception):  # the first process comes upon it too
            if asked[1:] != read:  # what one figure has read, the next ones of the same data use
                directory, read = Directory(asked.workdir, asked.select), asked[1:]
            content = draw.content(asked, directory) or b""
            size = len(content)
        answers.write(json.dumps([size, "".join(fonts.said)]).encode() + b"\n" + content)
        answers.flush()
