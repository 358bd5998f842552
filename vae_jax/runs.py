"""A function over one run, made a function over many: padded, sharded over devices, mapped inside each.

Knows no training. Above this room everything has a leading `runs` axis, below it nothing does. No run talks to another,
so the compiled program holds no collective.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def mesh(count: int) -> Mesh:
    """The first min(count, devices) devices as one axis named "runs"."""
    devices = jax.devices()[:count]
    # Auto, because Explicit (the default of make_mesh) rejects inputs that are not sharded yet.
    return jax.make_mesh((len(devices),), ("runs",), axis_types=(AxisType.Auto,), devices=devices)


def over_runs(function: Callable, mesh: Mesh, *, mapped: int = 1, donate: bool = False) -> Callable:
    """`function` of one run as a jitted function of many, which have a leading runs axis (see `pad`).

    Args:
      function: from trees of one run, and then what all runs share, to a tree of one run.
      mesh: from `mesh`; the leading axis must be a multiple of its size.
      mapped: how many arguments are of one run; the others are shared.
      donate: let the result take the memory of the first argument.
    """

    def local(*args):
        # Plain lax.map: on a CPU one run after another fills the cache best, and gives a run the same bits in any grid.
        return jax.lax.map(lambda run: function(*run, *args[mapped:]), args[:mapped])

    def sharded(*args):
        specs = (PartitionSpec("runs"),) * mapped + (PartitionSpec(),) * (len(args) - mapped)
        # With check_vma (the default) gradients of parameters made inside get a psum over runs, which mixes them.
        over_devices = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("runs"), check_vma=False)
        return over_devices(*args)

    return jax.jit(sharded, donate_argnums=(0,) if donate else ())


def stack(trees: list[Tree]) -> Tree:
    """One tree with a leading runs axis from a list of trees, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def pad(tree: Tree, multiple: int) -> Tree:
    """`tree` with its last run repeated until the number of runs is a multiple of `multiple`."""

    def padded(leaf):
        return np.concatenate([leaf, np.repeat(leaf[-1:], -len(leaf) % multiple, axis=0)])

    return jax.tree.map(padded, tree)


def put(tree: Tree, mesh: Mesh) -> Tree:
    """Padded host arrays on the devices of `mesh`, as a program of `over_runs` gives them back."""
    return jax.device_put(pad(tree, mesh.size), NamedSharding(mesh, PartitionSpec("runs")))


def take(tree: Tree, index: int | slice) -> Tree:
    """Run number `index` of `tree`, or a slice of runs."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
