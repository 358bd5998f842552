"""Traced programs, kept on the disk for the next process: tracing takes an eighth of the time of a short study.

JAX keeps compiled programs too, but its key is the traced program. The key here is all that tracing depends on: the
function and its static arguments, the shapes of the other ones, JAX's settings, versions, and the text of every module
that is loaded and was not installed. What has no such key, such as a function within a function or an array that was
closed over, is traced each time.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
from jax import export
from jax.sharding import Mesh
from jax.stages import Wrapped

from vae_jax.core import registry

VERSIONS = 4  # of the source text: programs of older ones are removed
# Seconds by which source files must be older than the process: one that was saved later may differ from what was imported.
AGE = 60
_BEGUN = time.time()
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_DISTRIBUTIONS = ("jax", "jaxlib", "flax", "optax", "numpy")

_directory: pathlib.Path | None = None
_files: set[str] = set()


def keep(directory: str | os.PathLike) -> None:
    """From now on, keep the programs that this process traces in a directory, and use those that are there."""
    global _directory
    _directory = pathlib.Path(directory)


def depends_on(file: str) -> None:
    """Make the text of a file that is run, and is not a module, a part of the key of all programs."""
    _files.add(file)


def kept(function: Callable, made_of: tuple, mesh: Mesh, args: tuple, settings: dict[str, Any]) -> Wrapped:
    """`jax.jit(function, **settings)` for arguments like these, without tracing where the same was traced before.

    Args:
      function: takes and returns trees of arrays.
      made_of: what it computes depends on: functions of modules, dataclasses, names and numbers.
      mesh: of the devices that it runs on.
      args: arrays or shapes.
      settings: of `jax.jit`: what is donated and how it is compiled.

    Returns:
      A jitted function: of the kept program, or of `function` itself where nothing is kept or it cannot be.
    """
    jitted = jax.jit(function, **settings)
    path = _path(made_of, mesh, args) if _directory else None
    if path is None:
        return jitted
    found = _read(path)
    if found is None:
        try:
            found = _traced(function, args)
        except Exception:  # what JAX does not export; what is wrong with the function is raised when it is called
            return jitted
        _write(path, *found)
    exported, tree = found

    def restored(*args):
        return jax.tree.unflatten(tree, exported.call(*jax.tree.leaves(args)))

    return jax.jit(restored, **settings)


def _traced(function: Callable, args: tuple) -> tuple[export.Exported, Any]:
    """The program, from leaves to leaves, and the tree of its result."""
    leaves, tree = jax.tree.flatten(args)
    trees = []
    inner = jax.jit(function)  # without `settings`: JAX takes compiler options only for the outermost function

    def flat(*leaves):
        result, found = jax.tree.flatten(inner(*jax.tree.unflatten(tree, leaves)))
        trees.append(found)
        return result

    exported = export.export(jax.jit(flat))(*leaves)
    return exported, trees[-1]


# The name of a program.


class UnnamedError(Exception):
    """A part of a function has no name by which another process would know it."""


@runtime_checkable
class HasName(Protocol):
    """An object that gives its own part of a key."""

    @property
    def name_of_content(self) -> tuple | None:
        """Differs where the content does; None where the content is on a disk, and too large to be read for this."""


def _path(made_of: tuple, mesh: Mesh, args: tuple) -> pathlib.Path | None:
    """Where the program is kept; None where it cannot be."""
    assert _directory
    sources = _sources()
    if sources is None or registry.added() or jax.process_count() > 1:
        return None
    try:
        function = _name(made_of)
    except UnnamedError:
        return None
    leaves, tree = jax.tree.flatten(args)
    shapes = [(leaf.shape, str(leaf.dtype), str(_placed(leaf))) for leaf in leaves]
    devices = [str(mesh), *(f"{device.platform} {device.device_kind} {device.id}" for device in mesh.devices.flat)]
    settings = sorted((name, repr(value)) for name, value in jax.config.values.items())
    text = json.dumps([function, str(tree), shapes, devices, settings, _versions()])
    return _directory / sources / hashlib.sha256(text.encode()).hexdigest()


def _placed(leaf: Any) -> Any:
    """How an argument, or a shape, is split over devices, which the traced program says too."""
    sharding = getattr(leaf, "sharding", None)
    return getattr(sharding, "spec", None)


def _name(part: Any) -> list | str:
    """A description of a function or value, that differs where it does.

    Raises:
      UnnamedError: there is none.
    """
    if part is None or type(part) in (bool, int, float, str):
        return repr(part)
    if type(part) in (tuple, list):
        return [type(part).__name__, *map(_name, part)]
    if type(part) is dict:
        return ["dict", *(_name(item) for item in part.items())]
    if isinstance(part, functools.partial):
        return ["partial", _name(part.func), _name(part.args), _name(part.keywords)]
    if inspect.ismethod(part):
        return ["method", _name(part.__self__), part.__name__]
    if isinstance(part, HasName):
        if (name := part.name_of_content) is None:
            raise UnnamedError(type(part).__name__)
        return [_qualified(type(part)), _name(name)]
    # Only dataclasses that are compared by their fields: equal fields of others, such as a path, may mean other content.
    if dataclasses.is_dataclass(part) and not isinstance(part, type) and type(part).__eq__ is not object.__eq__:
        fields = [field.name for field in dataclasses.fields(part) if field.compare]
        return [_qualified(type(part)), *(_name(getattr(part, name)) for name in fields)]
    return _qualified(part)


def _qualified(part: Any) -> str:
    """The name of a class or function of a module, by which it can be found there."""
    name = f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', '')}"
    if _find(name) is not part:
        raise UnnamedError(name)
    return name


def _find(name: str) -> Any:
    """The class or function of that qualified name, in a module that is loaded; None if there is none."""
    module, _, path = name.partition(":")
    return functools.reduce(lambda found, part: getattr(found, part, None), path.split("."), sys.modules.get(module))


@functools.cache
def _versions() -> list[str]:
    return [sys.version, *(f"{name} {importlib.metadata.version(name)}" for name in _DISTRIBUTIONS)]


def _sources() -> str | None:
    """A digest of the source text that was not installed; None where a file may have changed since it was imported."""
    modules = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    loaded = {file for file in modules if file and not file.startswith(_INSTALLED)}
    # All of this package, which may be installed, and imports some parts where they are used.
    files = sorted(loaded | _files | _package())
    try:
        # ctime as well: a copied file may keep an old mtime.
        changed = tuple(max(found.st_mtime_ns, found.st_ctime_ns) for found in map(os.stat, files))
        if max(changed) / 1e9 > _BEGUN - AGE:
            return None
        return _digest(tuple(files), changed)
    except OSError:
        return None


@functools.cache
def _package() -> frozenset[str]:
    return frozenset(str(file) for file in registry.PACKAGE.rglob("*.py"))


@functools.lru_cache(maxsize=4)
def _digest(files: tuple[str, ...], changed: tuple[int, ...]) -> str:
    """SHA-256 of the names and texts of files; the times of their last changes are there for the cache."""
    sha = hashlib.sha256()
    for file in files:
        text = pathlib.Path(file).read_bytes()
        sha.update(f"{file} {len(text)} ".encode() + text)
    return sha.hexdigest()


# The file of a program: a digest, the tree of the result, the program itself.


def _read(path: pathlib.Path) -> tuple[export.Exported, Any] | None:
    """What is kept there; None if it is missing or damaged."""
    try:
        content = path.read_bytes()
        os.utime(path.parent)  # in use
    except OSError:
        return None
    digest, _, content = content.partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        return None
    described, _, program = content.partition(b"\n")
    try:
        tree = jax.tree.structure(_unfolded(json.loads(described)))
        return export.deserialize(bytearray(program)), tree
    except Exception:  # of a version of JAX that does not read it
        return None


def _write(path: pathlib.Path, exported: export.Exported, tree: Any) -> None:
    """Keep it, where that is possible."""
    try:
        content = json.dumps(_folded(tree)).encode() + b"\n" + exported.serialize()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole; where the disk is full, the temporary folder takes the rest of it away.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = pathlib.Path(folder) / "program"
            written.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            os.replace(written, path)
        _forget(path.parents[1])
    except Exception:  # a full disk, or what cannot be written as JSON or by JAX: it is traced the next time, too
        return


def _forget(directory: pathlib.Path) -> None:
    """Remove the programs of versions that were not used lately."""
    with contextlib.suppress(OSError):
        folders = sorted(directory.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-VERSIONS]:
            shutil.rmtree(folder, ignore_errors=True)


def _folded(tree: Any) -> list | None:
    """The structure of a tree in lists and names; its leaves are None."""
    data = tree.node_data()
    if data is None:
        return None
    kind, static = data
    children = list(map(_folded, tree.children()))
    if kind is dict:
        return ["dict", static, children]
    if kind in (tuple, list, type(None)):
        return [kind.__name__, None, children]
    if static not in ((), None) and not hasattr(kind, "_fields"):
        raise UnnamedError(str(kind))
    return [_qualified(kind), None, children]


def _unfolded(described: list | None) -> Any:
    """A tree of that structure."""
    if described is None:
        return 0
    kind, keys, children = described
    made = list(map(_unfolded, children))
    if kind == "dict":
        return dict(zip(keys, made, strict=True))
    if kind in ("tuple", "list"):
        return made if kind == "list" else tuple(made)
    return None if kind == "NoneType" else _find(kind)(*made)
