"""Figures that two processes draw: the same files, whatever becomes of the second one."""

import pathlib
import subprocess
import sys

import pytest
from support import ROOT, wait_for

from vae_jax.core import errors, registry
from vae_jax.figures import draw, fonts
from vae_jax.figures.second import Answer, Asked, Process

FEW = ("samples", "reconstructions", "rates", "traversals")
TWO = ("samples", "reconstructions")  # the quickest


@pytest.fixture(scope="module")
def process():
    with Process() as process:
        yield process


@pytest.fixture
def workdir(tmp_path, studies) -> pathlib.Path:
    return studies.write_study(tmp_path, seeds=1)


class Counting(Process):
    """Remembers which files it was asked for, and answers by a function."""

    def __init__(self, answer):
        self.files, self.answer = [], answer

    def draw(self, asked: Asked) -> Answer | None:
        self.files.append(asked.file)
        return self.answer(asked)


def contents(workdir: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workdir / "figures").iterdir()}


def test_the_same_files_as_of_one_process(workdir, process):
    counting = Counting(process.draw)
    paths = draw.draw(workdir, FEW, second=counting)
    assert counting.files[:1] == ["traversals.gif"] and len(counting.files) < len(paths) == 5
    together = contents(workdir)
    for path in (workdir / "figures").iterdir():
        path.unlink()
    assert draw.draw(workdir, FEW) == paths
    assert contents(workdir) == together
    assert draw.draw(workdir, FEW, second=Counting(None)) == paths  # nothing is drawn again


def test_what_there_is_nothing_to_show_for(workdir, process):
    assert process.draw(Asked("water_filling.png", str(workdir), {})) == Answer(None, "")
    answer = process.draw(Asked("rates.pdf", str(workdir), {"name": "vae"}))
    assert answer.content == draw.content(Asked("rates.pdf", str(workdir), {"name": "vae"}))


def test_what_cannot_be_drawn_there_is_drawn_here(workdir):
    with Process() as killed:
        killed._process.kill()
        paths = draw.draw(workdir, TWO, second=killed)
    assert len(paths) == 2 and all(path.stat().st_size for path in paths)


def test_without_a_second_process_all_is_drawn_here(workdir, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with Process() as none:
        assert len(draw.draw(workdir, TWO, second=none)) == 2


def test_it_ends_with_the_process_that_started_it():
    """Also where that is killed: there is none left that waits."""
    program = "import os; from vae_jax.figures.second import Process; print(Process()._process.pid, flush=True)"
    program += "; os.kill(os.getpid(), 9)"
    pid = int(subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout)
    status = pathlib.Path(f"/proc/{pid}/status")
    if not status.parent.parent.is_dir():
        pytest.skip("no /proc")
    wait_for(lambda: not status.exists() or "zombie" in status.read_text())


def test_an_error_here_ends_what_is_drawn_there(workdir, process, monkeypatch):
    def broken(*_):
        raise errors.UserError("broken")

    counting = Counting(process.draw)
    monkeypatch.setattr(draw, "content", broken)
    with pytest.raises(errors.UserError, match="broken"):
        draw.draw(workdir, second=counting)
    assert len(counting.files) < 5


def test_a_damaged_directory_is_told_by_the_first_process(workdir, process):
    assert process.draw(Asked("rates.png", str(workdir / "nowhere"), {})) is None
    assert process.draw(Asked("rates.png", str(workdir), {})) is not None  # it goes on


def test_parts_from_outside_are_drawn_where_they_are_known(workdir, process, monkeypatch):
    monkeypatch.setattr(registry, "added", lambda: {"figure": {"mine": "mine.py"}})
    assert process.draw(Asked("rates.png", str(workdir), {})) is None
    with Process() as none:
        assert none._process is None


def test_characters_that_no_font_has_are_said_here(tmp_path, studies, monkeypatch, capsys, process):
    unknown = "\U0001f9ff"  # a nazar amulet, which no font of texts has
    workdir = studies.write_study(tmp_path, seeds=1, names={"vae": f"a {unknown}"})
    answer = process.draw(Asked("rates.png", str(workdir), {}))
    assert answer.content and answer.missing == unknown
    monkeypatch.setattr(fonts, "said", [])
    draw.draw(workdir, ("rates",), second=Counting(lambda asked: answer))
    assert capsys.readouterr().err.count("no installed font has") == 1
