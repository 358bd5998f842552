"""SIGTERM and Ctrl-C: deferred until the current work is saved; the second signal stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by the signal number `signal`; the text says what was saved."""

    def __init__(self, signal: int, text: str = ""):
        super().__init__(text)
        self.signal = signal


def stop(number: int, _) -> None:
    """A signal handler that raises Stopped at once."""
    raise Stopped(number)


@contextlib.contextmanager
def held() -> Iterator[list[int]]:
    """Defer signals: yields the list of those received, which the caller checks between units of work.

    The second signal raises Stopped at once. Only the main thread receives signals; in another the list stays empty.
    """
    received: list[int] = []

    def defer(number: int, frame) -> None:
        if received:
            stop(number, frame)
        received.append(number)
        # Not `print`: the signal may have interrupted one.
        os.write(2, b"stopping with a checkpoint at the end of this chunk; again: stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, defer) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
