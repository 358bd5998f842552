"""What a person sees while runs train: a line that renews itself at a terminal, plain lines elsewhere."""

import sys
import time


class Progress:
    """Counts units of work (`total` of them, named `unit`) and says how fast they go.

    At a terminal, `update` renews one line with the rate and the time left. Elsewhere it is silent, and only `say`
    prints. Everything goes to standard error, so that standard output holds results alone.
    """

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.start, self.done, self.first = time.monotonic(), 0, 0
        self.live = sys.stderr.isatty()

    def update(self, done: int) -> None:
        """`done` of `total` units are done. The first call sets where this session started from (a resumed run)."""
        self.done = done
        if self.live:
            seconds = max(time.monotonic() - self.start, 1e-9)
            rate = (done - self.first) / seconds
            left = (self.total - done) / rate if rate else 0.0
            line = f"{self.label}: {done:,}/{self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, {left:.0f} s left"
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
    print(("\r\033[K" if clear else "") + line, file=sys.stderr, flush=True)
