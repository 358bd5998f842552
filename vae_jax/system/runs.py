"""A function over one run, made a function over many: padded, sharded over devices, mapped inside each.

Knows no training. Above this room everything has a leading `runs` axis, below it nothing does. No run talks to another:
the compiled program holds no collective, except where `function` itself speaks along the `data` axis, to the devices that
share its run.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def mesh(count: int, data: int = 1) -> Mesh:
    """Devices as axes "runs" and "data": `data` devices for each run, and as many runs at a time as there are, or fit.

    With several processes every device takes part, because a process without one could not call the program.
    """
    fit = jax.device_count() // data
    size = fit if jax.process_count() > 1 else min(count, fit)
    devices = np.array(jax.devices()[: size * data]).reshape(size, data)
    # Auto, because Explicit (the default of make_mesh) rejects inputs that are not sharded yet.
    return Mesh(devices, ("runs", "data"), axis_types=(AxisType.Auto,) * 2)


def over_runs(
    function: Callable, mesh: Mesh, *, mapped: int = 1, donate: bool = False, together: int | None = None
) -> jax.stages.Wrapped:
    """`function` of one run as a jitted function of many, which have a leading runs axis (see `pad`).

    Args:
      function: from trees of one run, and then what all runs share, to a tree of one run.
      mesh: from `mesh`; the leading axis must be a multiple of its number of runs.
      mapped: how many arguments are of one run; the others are shared.
      donate: let the result take the memory of the first argument.
      together: how many runs of a device are one vectorised program (for a GPU); None: one run after another.
    """

    def local(*args):
        # Plain lax.map: on a CPU one run after another fills the cache best, and gives a run the same bits in any grid.
        return jax.lax.map(lambda run: function(*run, *args[mapped:]), args[:mapped], batch_size=together)

    def sharded(*args):
        specs = (PartitionSpec("runs"),) * mapped + (PartitionSpec(),) * (len(args) - mapped)
        # With check_vma (the default) gradients of parameters made inside get a psum over runs, which mixes them.
        over_devices = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("runs"), check_vma=False)
        return over_devices(*args)

    return jax.jit(sharded, donate_argnums=(0,) if donate else ())


def put(tree: Tree, mesh: Mesh, *, shared: bool = False) -> Tree:
    """`tree` on the devices of `mesh`, where `over_runs` wants it: cut along its runs axis, or (`shared`) whole on each.

    With several processes each gives the whole tree, and keeps the part of its own devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec() if shared else PartitionSpec("runs"))
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), tree)


def fetch(tree: Tree) -> Tree:
    """`tree` as NumPy arrays, on every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`count` runs through functions from `over_runs`, `size` of them on the devices at a time (a multiple of the mesh's).

    Where all fit, their trees stay on the devices between calls. Else they wait on the host, and each block is on the
    devices while it is called. A run does not notice: the bits are the same.
    """

    mesh: Mesh
    count: int
    size: int

    @property
    def whole(self) -> bool:
        return self.size >= self.count

    def hold(self, tree: Tree) -> Tree:
        """A host tree of all runs, as `call` takes it."""
        return put(pad(tree, self.size), self.mesh) if self.whole else tree

    def call(self, function: Callable, held: tuple, *shared):
        """function(*held, *shared): trees of all runs, and what they share (see `put`), to a tree of all runs."""
        if self.whole:
            return function(*held, *shared)
        found = []
        for start in range(0, self.count, self.size):
            block = pad(take(held, slice(start, start + self.size)), self.size)
            result = fetch(function(*put(block, self.mesh), *shared))
            found.append(take(result, slice(self.count - start)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)

    def fetch(self, tree: Tree) -> Tree:
        """What `call` gave, without the padding, on the host."""
        return take(fetch(tree), slice(self.count)) if self.whole else tree


def stack(trees: list[Tree]) -> Tree:
    """One tree with a leading runs axis from a list of trees, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def pad(tree: Tree, multiple: int) -> Tree:
    """`tree` with its last run repeated until the number of runs is a multiple of `multiple`."""

    def padded(leaf):
        return np.concatenate([leaf, np.repeat(leaf[-1:], -len(leaf) % multiple, axis=0)])

    return jax.tree.map(padded, tree)


def take(tree: Tree, index: int | slice) -> Tree:
    """Run number `index` of `tree`, or a slice of runs."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
