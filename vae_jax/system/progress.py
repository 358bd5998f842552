"""Progress on standard error: one line that is updated in place on a terminal, plain lines elsewhere."""

import shutil
import sys
import time

QUIET = 10.0  # seconds of work before lines are printed where there is no terminal
speaks = True  # of several processes of one study, only one prints


class Progress:
    """Counts `total` units of work (one of them is a `unit`) and reports their rate.

    On a terminal, `update` rewrites one line with the rate and the time left. Elsewhere it prints a line about every tenth
    of the work, where that is long. Everything goes to standard error: standard output is for results.
    """

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.start, self.done, self.first = time.monotonic(), 0.0, 0.0
        self.live, self.tenth = speaks and sys.stderr.isatty(), 0

    def update(self, done: float | int, detail: str = "") -> None:
        """Report that `done` of `total` units are done (the last perhaps in part), with a `detail` such as the loss."""
        self.done = done = max(done, self.done)  # what comes after a part may be reported anew from its beginning
        rate = (done - self.first) / max(time.monotonic() - self.start, 1e-9)
        # Without any finished work there is no rate yet.
        speed = f", {counted(round(rate), self.unit)}/s" if rate >= 1 else ""
        speed += f", {(self.total - done) / rate:.0f} s left" if rate else ""
        is_whole, of = done == int(done), counted(self.total, self.unit)
        share = f"{int(done):,}/{of}" if is_whole else f"{done / self.total:.0%} of {of}"
        line = f"{self.label}: {share}{speed}" + (f", {detail}" if detail else "")
        if self.live:
            # Cut to the width of the terminal: a line that wraps cannot be renewed.
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
            return
        before, self.tenth = self.tenth, int(10 * done // max(self.total, 1))
        if before < self.tenth < 10 and time.monotonic() - self.start > QUIET:
            say(line)

    def begin(self, done: float | int) -> None:
        """Start the clock; `done` units were finished before (by an earlier process)."""
        self.start, self.first = time.monotonic(), done
        self.update(done)

    def finish(self) -> float:
        """Print how many units were done in how many seconds; returns the seconds."""
        seconds = time.monotonic() - self.start
        say(f"{self.label}: {counted(round(self.done - self.first), self.unit)} in {seconds:.1f} s", clear=self.live)
        return seconds


def say(line: str, clear: bool = False) -> None:
    """Print one line on standard error; `clear` removes the progress line first."""
    if speaks:
        print(("\r\033[K" if clear else "") + line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """A number and its noun, which agree: "1 run", "1,200 runs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
