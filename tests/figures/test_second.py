"""Figures that two processes draw: the same files, whatever becomes of the second one."""

import pathlib

import pytest

from vae_jax.core import registry
from vae_jax.figures import draw, fonts
from vae_jax.figures.second import Answer, Asked, Process

FEW = ("samples", "reconstructions", "rates", "learning_curves", "traversals")


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
    assert counting.files[:1] == ["traversals.gif"] and len(counting.files) < len(paths) == 6
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
        paths = draw.draw(workdir, FEW, second=killed)
    assert len(paths) == 6 and all(path.stat().st_size for path in paths)


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
