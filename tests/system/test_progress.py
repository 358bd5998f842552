"""What a person sees: one line that renews itself at a terminal, plain lines elsewhere, standard output left alone."""

import io
import sys

import pytest

from vae_jax.system import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def terminal(monkeypatch) -> Terminal:
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_silent_but_for_the_last_line_where_there_is_no_terminal(capsys, clock):
    meter = progress.Progress("vae (2 runs)", 4000, "step")
    meter.begin(0)
    for done in (1000, 2000, 4000):
        clock[0] += 0.5
        meter.update(done)
    assert capsys.readouterr() == ("", "")
    assert meter.finish() == 1.5
    assert capsys.readouterr() == ("", "vae (2 runs): 4,000 steps in 1.5 s\n")


def test_a_line_about_every_tenth_of_long_work_where_there_is_no_terminal(capsys, clock):
    meter = progress.Progress("vae", 100, "step")
    meter.begin(0)
    for done in range(4, 101, 4):
        clock[0] += 4
        meter.update(done, f"loss {done}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("/")[0] for line in lines] == [f"vae: {done}" for done in (12, 20, 32, 40, 52, 60, 72, 80, 92)]
    assert lines[0] == "vae: 12/100 steps, 1 step/s, 88 s left, loss 12"


def test_a_terminal_shows_rate_and_time_left_on_one_line(monkeypatch, capsys, clock):
    screen = terminal(monkeypatch)
    meter = progress.Progress("vae", 4000, "step")
    meter.begin(0)
    clock[0] += 2.0
    meter.update(1000)
    assert screen.getvalue().endswith("\r\033[Kvae: 1,000/4,000 steps, 500 steps/s, 6 s left")
    clock[0] += 2.0
    meter.update(4000)
    meter.finish()
    assert "\n" not in screen.getvalue()[:-1]
    assert screen.getvalue().endswith("\r\033[Kvae: 4,000 steps in 4.0 s\n")
    assert capsys.readouterr().out == ""


def test_a_resumed_run_counts_what_it_does_itself(monkeypatch, clock):
    screen = terminal(monkeypatch)
    meter = progress.Progress("vae", 4000, "step")
    meter.begin(3000)
    assert "3,000/4,000" in screen.getvalue()
    clock[0] += 1.0
    meter.update(3500)
    assert screen.getvalue().endswith("3,500/4,000 steps, 500 steps/s, 1 s left")
    clock[0] += 1.0
    meter.update(4000)
    meter.finish()
    assert screen.getvalue().endswith("vae: 1,000 steps in 2.0 s\n")


def test_no_rate_before_anything_is_done(monkeypatch, clock):
    screen = terminal(monkeypatch)
    progress.Progress("vae", 10, "step").begin(0)
    assert screen.getvalue().endswith("vae: 0/10 steps")


def test_counts_agree_and_are_whole(monkeypatch, capsys, clock):
    screen = terminal(monkeypatch)
    meter = progress.Progress("evaluation", 1, "run")
    clock[0] += 2.0
    meter.update(0.25)
    assert screen.getvalue().endswith("evaluation: 25% of 1 run, 6 s left")
    meter.update(1)
    meter.finish()
    assert screen.getvalue().endswith("evaluation: 1 run in 2.0 s\n")


def test_say_is_one_line_on_standard_error(capsys):
    progress.say("runs/vae: all 3 runs are done")
    assert capsys.readouterr() == ("", "runs/vae: all 3 runs are done\n")


def test_numbers_agree_with_their_nouns():
    assert [progress.counted(number, "run") for number in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
