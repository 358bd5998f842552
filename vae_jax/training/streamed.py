"""Training on data that stay on a disk: blocks of batches in a shared order, one trained while the next one is read.

The steps are those of `Program.step`, and the numbers, bit for bit, those of data in memory in the same order.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from vae_jax.core import errors
from vae_jax.data.stored import Pixels, Stored
from vae_jax.storage import checkpoints
from vae_jax.system import memory, multihost, runs
from vae_jax.training.session import Begun, Job, Session, block_steps, fitted, state_like
from vae_jax.training.state import Metrics, Partway, RunSpec, TrainState
from vae_jax.training.step import Program, program_of

SPLIT = PartitionSpec(None, "data")  # of a block [steps, batch, *shape]: each device has its rows of every batch


class StreamedSession(Session):
    """A job whose training data come block by block. A chunk is done when its last block is; see `Session`."""

    held: Partway
    part_at: int  # the step of the last checkpoint, at the end of a chunk or within one

    @property
    def state(self) -> TrainState:
        """Where the runs are."""
        return self.held.state

    def _begun(self, saved: checkpoints.Checkpoint | None) -> Begun | None:
        """From the newest checkpoint, at the end of a chunk or within one."""
        begun = super()._begun(saved)
        self.part_at = begun.steps if begun else 0
        try:
            part = checkpoints.load_latest(self.job.within, _partway_like(self.job))
        except errors.UserError:  # none of them is whole
            if begun is None:
                raise
            part = None
            if multihost.writes():
                checkpoints.clear(self.job.within)
        if part and part.step > self.part_at:
            self.part_at = part.step
            return Begun(part.metadata["epoch"], part.step, part.state, part.metadata["metrics_bytes"])
        return begun and begun._replace(tree=Partway(begun.tree, *_zeros(len(self.job.labels))))

    def _compiled(self, program: Program, most: int, state: TrainState, room: int) -> tuple[runs.Blocks, Callable]:
        job = self.job
        self.reader = Reader(job.spec, job.dataset.splits["train"].pixels, self.mesh)
        self.ahead = self.reader.blocks(self.steps)
        self.next = next(self.ahead, None)
        trees = _partway_like(job), job.hyperparams
        room -= memory.size(self.reader.like) // self.mesh.shape["data"]  # the next block
        shared = self.reader.like, np.int32(1)
        return fitted(program, "advance_on", self.mesh, most, len(job.labels), trees, shared, room, SPLIT)

    def _carried(self, state: TrainState) -> Partway:
        return Partway(state, *self.blocks.hold(_zeros(len(self.job.labels))))

    def advance(self) -> None:
        """Train a block, reading the next one meanwhile; with the last block of a chunk write its lines of metrics."""
        spec = self.job.spec
        length = min(spec.chunk_epochs, spec.train.epochs - self.epoch)
        assert self.next is not None
        block, count = self.next
        with memory.watched(self.together):
            self.held = self.blocks.call(self.program, (self.held, self.hyperparams), block, np.int32(count))
            del block
            self.next = next(self.ahead, None)
            jax.block_until_ready(self.held)
            self.steps += count
            if self.steps == (self.epoch + length) * spec.steps_per_epoch:
                sums = self.blocks.fetch(self.held.chunk)
                self._end_chunk(length, jax.tree.map(lambda value: value / np.float32(length), sums))
                self.held = self._carried(self.held.state)

    @property
    def _is_whole(self) -> bool:
        """Whether a chunk has just ended."""
        return self.steps == self.epoch * self.job.spec.steps_per_epoch

    def due(self) -> bool:
        """Whether a checkpoint is: also after so many steps."""
        every = self.job.spec.train.checkpoint_steps
        return bool(every and self.steps - self.part_at >= every) or (self._is_whole and super().due())

    def save(self) -> None:
        """Write a checkpoint; one at the end of a chunk makes those within it needless."""
        if self._is_whole:
            super().save()
            self.part_at = self.steps
            if multihost.writes():
                checkpoints.clear(self.job.within)
            return
        metadata = {"metrics_bytes": self.size, "epoch": self.epoch}
        checkpoints.save(self.job.within, self.steps, self.blocks.fetch(self.held), metadata)
        self.part_at = self.steps

    @property
    def where(self) -> str:
        """How far the runs are, in words."""
        total = self.job.spec.train.epochs * self.job.spec.steps_per_epoch
        return super().where if self._is_whole else f"step {self.steps:,} of {total:,}"


def _zeros(count: int) -> tuple[Metrics, Metrics]:
    """Sums of the metrics of so many runs before the first step."""
    names = [field.name for field in dataclasses.fields(Metrics)]
    epoch, chunk = (Metrics(**{name: np.zeros(count, np.float32) for name in names}) for _ in range(2))
    return epoch, chunk


def _partway_like(job: Job) -> Partway:
    """The shapes of what is carried."""
    return Partway(state_like(job.spec, job.hyperparams, job.dataset), *_zeros(len(job.labels)))


class Reader:
    """Blocks of batches of stored pixels on the devices, in the order of the epochs.

    Attributes:
      like: the shape of a block, and how it is split over devices.
    """

    def __init__(self, spec: RunSpec, pixels: Pixels, mesh: Mesh):
        self.spec, self.pixels = spec, pixels
        shape = block_steps(spec, pixels.dtype), spec.batch_size, *spec.images.shape
        sharding = NamedSharding(mesh, SPLIT)
        self.like = jax.ShapeDtypeStruct(shape, pixels.dtype, sharding=sharding)
        # The rows of a batch that devices of this process have; only they are read here.
        parts = {_rows(index, shape[1]) for index in sharding.addressable_devices_indices_map(shape).values()}
        self.mine = np.concatenate([np.arange(*part) for part in sorted(parts)])
        self.order = jax.jit(program_of(spec).order)

    def blocks(self, step: int) -> Iterator[tuple[jax.Array, int]]:
        """From a step on to the last epoch: blocks, the last of an epoch filled up, and how many batches each has."""
        first, begun = divmod(step, self.spec.steps_per_epoch)
        for epoch in range(first, self.spec.train.epochs):
            order = np.asarray(self.order(np.int32(0), np.int32(epoch)))[begun if epoch == first else 0 :]
            with contextlib.closing(_read_ahead(self.pixels, order[:, self.mine])) as batches:
                while batch := list(itertools.islice(batches, self.like.shape[0])):
                    yield self._put(batch), len(batch)

    def _put(self, batches: list[np.ndarray]) -> jax.Array:
        """As a block on the devices."""
        shape = self.like.shape
        block = np.zeros((shape[0], len(self.mine), *shape[2:]), self.like.dtype)
        for number, batch in enumerate(batches):
            block[number] = batch

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop = _rows(index, shape[1])
            begin = int(np.searchsorted(self.mine, start))
            return block[:, begin : begin + stop - start]

        return jax.make_array_from_callback(shape, self.like.sharding, part)


def _rows(index: tuple[slice, ...] | None, count: int) -> tuple[int, int]:
    """The rows of a batch of so many that a device has."""
    start, stop, _ = (index[1] if index else slice(None)).indices(count)
    return start, stop


class _Batches:
    """Batches by number, as grain takes a source."""

    def __init__(self, pixels: Pixels, order: Int[np.ndarray, "steps rows"]):
        self.pixels, self.order = pixels, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.pixels[self.order[number]]


def _read_ahead(pixels: Pixels, order: Int[np.ndarray, "steps rows"]) -> Any:
    """The batches in this order, read ahead by threads."""
    try:
        import grain
    except ImportError as error:
        raise errors.UserError(f"data that are read for each batch need the package grain ({error})") from error
    decodes = isinstance(pixels, Stored) and pixels.origin.decodes
    threads = min(max(os.cpu_count() or 1, 2), 16) if decodes else 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * threads, 8))
    return iter(grain.MapDataset.source(_Batches(pixels, order)).to_iter_dataset(options))
