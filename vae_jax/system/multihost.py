"""Coordination between the processes of one study (`jax.distributed`); with a single process, every function is trivial.

All processes run the same program on the same host values. Only process 0 writes results. All of them read results and
take part in checkpoints, as Orbax requires, so the run directory must be visible to every process.
"""

import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from vae_jax.core import errors


def writes() -> bool:
    """Whether this process writes results: process 0 does."""
    return jax.process_index() == 0


def least(number: int) -> int:
    """The smallest `number` of any process; with several processes, rounded to 7 digits."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.float32(number)).min())


def agree(text: str, what: str) -> None:
    """Refuse to continue if the processes have different `text`: their programs would wait for each other forever.

    Args:
      text: compared between processes.
      what: what the text is, for the message.

    Raises:
      UserError: it names the first process that differs from process 0.
    """
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(mine)
    for process, theirs in enumerate(digests):
        if (theirs != digests[0]).any():
            raise errors.UserError(f"--process={process} has another {what} than --process=0; start all alike")


def wait(name: str) -> None:
    """Block until every process has called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
