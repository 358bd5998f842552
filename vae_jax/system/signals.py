"""SIGTERM and Ctrl-C: held until the work in hand is saved; asked twice, it stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by `signal`; its text says what was saved."""

    def __init__(self, signal: int, text: str = ""):
        super().__init__(text)
        self.signal = signal


def stop(number: int, _) -> None:
    """A handler that stops at once, for a process to install."""
    raise Stopped(number)


@contextlib.contextmanager
def held() -> Iterator[list[int]]:
    """A list that a signal goes into, instead of stopping the process, for the caller to look at now and then.

    Only the main thread hears signals; in others the list stays empty.
    """
    received: list[int] = []

    def hear(number: int, frame) -> None:
        if received:
            stop(number, frame)
        received.append(number)
        # Not by `print`, which may be what was interrupted.
        os.write(2, b"stopping with a checkpoint at the end of this chunk; again: stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
