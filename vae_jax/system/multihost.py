"""What the processes of one study (`jax.distributed`) owe each other; with one process, nothing.

All processes run the same program over the same host values. Process 0 alone writes results; all read them, and all take
part in checkpoints, as Orbax wants it: the directory is one that every process sees.
"""

import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from vae_jax.core import errors


def writes() -> bool:
    """Whether this process is the one that writes results."""
    return jax.process_index() == 0


def least(number: int) -> int:
    """The smallest `number` that any process gave, to 7 digits where there are several."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.float32(number)).min())


def agree(text: str, what: str) -> None:
    """Refuse to go on where the processes were told different things: their programs would wait for each other for ever."""
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(mine)
    for process, theirs in enumerate(digests):
        if (theirs != digests[0]).any():
            raise errors.UserError(f"--process={process} has another {what} than --process=0; start all alike")


def wait(name: str) -> None:
    """Until every process has come to this line."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
