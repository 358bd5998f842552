"""Progress on standard error: one line that is updated in place on a terminal, plain lines elsewhere."""

import sys
import time

speaks = True  # of several processes of one study, only one prints


class Progress:
    """Counts `total` units of work (named `unit`) and reports their rate.

    On a terminal, `update` rewrites one line with the rate and the time left. Elsewhere it prints nothing, and only
    `finish` prints a line. Everything goes to standard error: standard output is for results.
    """

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.start, self.done, self.first = time.monotonic(), 0, 0
        self.live = speaks and sys.stderr.isatty()

    def update(self, done: int) -> None:
        """Report that `done` of `total` units are done."""
        self.done = done
        if self.live:
            rate = (done - self.first) / max(time.monotonic() - self.start, 1e-9)
            # Without any finished work there is no rate yet.
            speed = f", {rate:,.0f} {self.unit}/s, {(self.total - done) / rate:.0f} s left" if rate else ""
            line = f"{self.label}: {done:,}/{self.total:,} {self.unit}{speed}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def begin(self, done: int) -> None:
        """Start the clock; `done` units were finished before (by an earlier process)."""
        self.start, self.first = time.monotonic(), done
        self.update(done)

    def finish(self) -> float:
        """Print how many units were done in how many seconds; returns the seconds."""
        seconds = time.monotonic() - self.start
        count = self.done - self.first
        say(f"{self.label}: {count:,} {self.unit} in {seconds:.1f} s", clear=self.live)
        return seconds


def say(line: str, clear: bool = False) -> None:
    """Print one line on standard error; `clear` removes the progress line first."""
    if speaks:
        print(("\r\033[K" if clear else "") + line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """A number and its noun, which agree: "1 run", "1,200 runs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
