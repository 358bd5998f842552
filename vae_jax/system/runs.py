"""Maps a function of one run over many runs: padded, sharded over devices, looped over inside each device.

Nothing here is specific to training. Above this module all values have a leading `runs` axis, below it none has. Runs are
independent: the compiled program has no collective, except where `function` itself communicates along the `data` axis,
between the devices that share a run.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vae_jax.system import traced

Tree = TypeVar("Tree")


def mesh(count: int, data: int = 1) -> Mesh:
    """A mesh with axes "runs" and "data": `data` devices for each run, and at most `count` runs at a time.

    With several processes every device takes part, because a process without a device in the mesh could not call the
    program.
    """
    fit = jax.device_count() // data
    size = fit if jax.process_count() > 1 else min(count, fit)
    devices = np.array(jax.devices()[: size * data]).reshape(size, data)
    # Auto, because Explicit (the default of make_mesh) rejects inputs that are not sharded yet.
    return Mesh(devices, ("runs", "data"), axis_types=(AxisType.Auto,) * 2)


def over_runs(
    function: Callable,
    mesh: Mesh,
    *,
    mapped: int = 1,
    donate: bool = False,
    together: int | None = None,
    first: PartitionSpec | None = None,
    briefly: bool = False,
) -> "OverRuns":
    """The jitted function of many runs that applies `function` to each of them.

    Args:
      function: takes trees of one run, then what all runs share; returns a tree of one run.
      mesh: from `mesh`; the number of runs must be a multiple of its size along "runs" (see `pad`).
      mapped: how many of the first arguments have a leading runs axis; the others are shared.
      donate: whether the result may reuse the memory of the first argument.
      together: how many runs of a device are vectorised together (for a GPU); None: one run after another.
      first: how the first shared argument is split over devices; None: each has all of it.
      briefly: compile in less time, for what is called a few times only.

    Returns:
      A function of trees with a leading runs axis, and of what they share.
    """

    def local(*args):
        # Plain lax.map: on a CPU, one run after another uses the cache best, and a run has the same bits in any grid.
        return jax.lax.map(lambda run: function(*run, *args[mapped:]), args[:mapped], batch_size=together)

    def sharded(*args):
        specs = (PartitionSpec("runs"),) * mapped + (PartitionSpec(),) * (len(args) - mapped)
        if first is not None:
            specs = (*specs[:mapped], first, *specs[mapped + 1 :])
        # With check_vma (the default), gradients of parameters made inside would get a psum over runs, mixing them.
        over_devices = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("runs"), check_vma=False)
        return over_devices(*args)

    settings: dict[str, Any] = {
        "donate_argnums": (0,) if donate else (),
        "compiler_options": _options(mesh) if briefly else None,
    }
    made_of = function, mapped, together, None if first is None else tuple(first)
    return OverRuns(lambda args: traced.kept(sharded, made_of, mesh, args, settings))


_BRIEFLY = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def _options(mesh: Mesh) -> dict[str, int] | None:
    """Compiler options for a program that is called a few times, on a CPU.

    LLVM's optimization level 1 in place of 3; XLA's older emitters, which need no MLIR; one LLVM module, where small
    programs would be split into dozens. Options that this version of XLA does not know are left out.

    None where JAX is told to optimise less than that.
    """
    if mesh.devices.flat[0].platform != "cpu" or jax.config.values["jax_disable_most_optimizations"]:
        return None
    return {name: value for name, value in _BRIEFLY.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Whether XLA's CPU backend takes an option: they come and go with its versions."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


class OverRuns:
    """A jitted function of many runs, which threads may trace and compile before it is called."""

    def __init__(self, kept: Callable[[tuple], jax.stages.Wrapped]):
        self._kept = kept  # gives the jitted function for arguments, or shapes, like these
        self._known: dict[tuple, jax.stages.Wrapped] = {}
        self._pending: dict[tuple, Future] = {}

    def compile_ahead(self, threads: Executor, *shapes: Any) -> None:
        """Have it compiled for arguments of these shapes, with the shardings that they will have."""
        key = _shapes(shapes)
        if key not in self._pending:
            self._pending[key] = threads.submit(lambda: self._of(shapes).lower(*shapes).compile())

    def __call__(self, *args: Any) -> Any:
        self._wait()
        return self._of(args)(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """As of what `jax.jit` returns."""
        self._wait()
        return self._of(args).lower(*args)

    def shapes(self, *args: Any) -> Any:
        """The shapes of the result for these arguments, which are arrays or shapes."""
        return jax.eval_shape(self._of(args), *args)

    def _of(self, args: tuple) -> jax.stages.Wrapped:
        """The jitted function for arguments of these shapes."""
        key = _shapes(args)
        if key not in self._known:
            self._known[key] = self._kept(args)
        return self._known[key]

    def _wait(self) -> None:
        """Until nothing is compiled; raises what went wrong. JAX finds what is there by the same shapes."""
        while self._pending:
            with contextlib.suppress(CancelledError):
                self._pending.popitem()[1].result()


def _shapes(args: tuple) -> tuple:
    """The tree, shapes and types of arguments: where they are equal, the traced program is the same."""
    leaves, tree = jax.tree.flatten(args)
    return tree, *((leaf.shape, leaf.dtype) for leaf in leaves)


def shaped(tree: Any, mesh: Mesh, count: int | None = None) -> Any:
    """The shapes of what `put` makes of a tree of arrays or shapes: of `count` runs, or of what they share (None)."""
    sharding = NamedSharding(mesh, PartitionSpec() if count is None else PartitionSpec("runs"))

    def of(leaf):
        shape = leaf.shape if count is None else (count, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(of, tree)


def put(tree: Tree, mesh: Mesh, *, shared: bool = False) -> Tree:
    """`tree` on the devices of `mesh`, as `over_runs` takes it: split along its runs axis, or (`shared`) a copy on each.

    With several processes, each passes the whole tree and keeps the part of its own devices.
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
    """Calls functions from `over_runs` on `count` runs, `size` of them on the devices at a time.

    If all runs fit, their trees stay on the devices between calls. Else they stay on the host, and each block is on the
    devices only while it is computed. The results are the same bits either way.

    Attributes:
      mesh: from `mesh`.
      count: the number of runs.
      size: the number of runs at a time, a multiple of the mesh's.
    """

    mesh: Mesh
    count: int
    size: int

    @property
    def whole(self) -> bool:
        """Whether all runs are on the devices at a time."""
        return self.size >= self.count

    def hold(self, tree: Tree) -> Tree:
        """A host tree of all runs in the form that `call` takes."""
        return put(pad(tree, self.size), self.mesh) if self.whole else tree

    def hold_number(self, number: int) -> Any:
        """A number for each run (int32) in the form that `call` takes; 0 for what only fills up the devices."""
        if not self.whole:
            return np.full(self.count, number, np.int32)
        return put(np.where(np.arange(self.size) < self.count, np.int32(number), 0), self.mesh)

    def call(self, function: Callable, held: tuple, *shared):
        """function(*held, *shared): `held` are trees of all runs (see `hold`), `shared` what they share (see `put`)."""
        if self.whole:
            return function(*held, *shared)
        blocks = []
        for start in range(0, self.count, self.size):
            block = pad(take(held, slice(start, start + self.size)), self.size)
            result = fetch(function(*put(block, self.mesh), *shared))
            blocks.append(take(result, slice(self.count - start)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)

    def fetch(self, tree: Tree) -> Tree:
        """A result of `call` on the host, without the padding."""
        return take(fetch(tree), slice(self.count)) if self.whole else tree


def stack(trees: list[Tree]) -> Tree:
    """One tree with a leading runs axis from a list of trees, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def pad(tree: Tree, multiple: int) -> Tree:
    """`tree` with its last run repeated until the number of runs is a multiple of `multiple`; NumPy."""

    def padded(leaf):
        return np.concatenate([leaf, np.repeat(leaf[-1:], -len(leaf) % multiple, axis=0)])

    return jax.tree.map(padded, tree)


def take(tree: Tree, index: int | slice | np.ndarray) -> Tree:
    """Run number `index` of `tree` (without its runs axis), or a slice of runs, or those at the places in an array."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
