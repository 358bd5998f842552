"""What a person sees while runs train: a line that renews itself at a terminal, plain lines elsewhere."""

import sys
import time

speaks = True  # of the several processes of one study, one does


class Progress:
    """Counts units of work (`total` of them, named `unit`) and says how fast they go.

    At a terminal, `update` renews one line with the rate and the time left. Elsewhere it is silent, and only `say`
    prints. Everything goes to standard error, so that standard output holds results alone.
    """

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.start, self.done, self.first = time.monotonic(), 0, 0
        self.live = speaks and sys.stderr.isatty()

    def update(self, done: int) -> None:
        """`done` of `total` units are done."""
        self.done = done
        if self.live:
            rate = (done - self.first) / max(time.monotonic() - self.start, 1e-9)
            # Before anything is done nobody knows how long it takes.
            speed = f", {rate:,.0f} {self.unit}/s, {(self.total - done) / rate:.0f} s left" if rate else ""
            line = f"{self.label}: {done:,}/{self.total:,} {self.unit}{speed}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def begin(self, done: int) -> None:
        """Start the clock with `done` units done earlier."""
        self.start, self.first = time.monotonic(), done
        self.update(done)

    def finish(self) -> float:
        """Print what was done and how fast; returns the seconds it took."""
        seconds = time.monotonic() - self.start
        count = self.done - self.first
        say(f"{self.label}: {count:,} {self.unit} in {seconds:.1f} s", clear=self.live)
        return seconds


def say(line: str, clear: bool = False) -> None:
    """One plain line on standard error."""
    if speaks:
        print(("\r\033[K" if clear else "") + line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """A number and its noun, which agree: "1 run", "1,200 runs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
