"""What the mains share: a config file with `--config.x.y=value` and `--sweep`, and a user's mistake told in one line."""

import os
import pathlib
import runpy
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from vae_jax import errors, grid, interrupts

_DEVICES = flags.DEFINE_integer(
    "cpu_devices", len(os.sched_getaffinity(0)), "Devices that a CPU is split into; one per core."
)

_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "vae_jax"),
    "Directory that keeps compiled programs for the next time; empty for none.",
)


def run(main: Callable[[], None]) -> None:
    """Parse the command line, start JAX's devices, call `main`.

    A mistake ends in one line and exit code 2; Ctrl-C and SIGTERM in the command that goes on, and 130 or 143.
    """
    for number in interrupts.SIGNALS:
        signal.signal(number, interrupts.stop)
    try:
        # Exit codes 0 and 1 of --help pass through.
        app.run(lambda _: _guarded(main), flags_parser=_parse)
    except interrupts.Stopped as stopped:
        # Without --restart, which would not go on.
        command = shlex.join(word for word in sys.orig_argv if word not in ("--restart", "--restart=true"))
        saved = f", {stopped}" if str(stopped) else ""
        print(f"stopped by {signal.Signals(stopped.signal).name}{saved}; to go on: {command}", file=sys.stderr)
        sys.exit(128 + stopped.signal)


def _parse(argv: Sequence[str]) -> list[str]:
    """absl's parser, after the `--config.x.y=value` overrides have become values of one flag."""
    rewritten = ["--override=" + arg[len("--config.") :] if arg.startswith("--config.") else arg for arg in argv]
    try:
        rest = flags.FLAGS(rewritten)
    except flags.Error as error:
        _fail(" ".join(str(error).split()))
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: flags look like --name=value")
    return rest


def _guarded(main: Callable[[], None]) -> None:
    import jax

    logging.set_verbosity(logging.WARNING)  # JAX and Orbax report what they looked for and did not find
    try:
        if _DEVICES.value < 1:
            raise errors.UserError(f"--cpu_devices={_DEVICES.value}: should be at least 1")
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
        if _CACHE.value:
            jax.config.update("jax_compilation_cache_dir", _CACHE.value)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        main()
    except errors.UserError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def load_config(path: str, overrides: Sequence[str]) -> tuple[dict, Callable | None]:
    """The nested config of a config file with `x.y=value` overrides applied, and its `sweep`, if it has one."""
    module = _load_module(path)
    config = _told(path, lambda: module["get_config"]().to_dict())
    flat = grid.flatten(config)
    seen = set()
    for override in overrides:
        key, given, text = override.partition("=")
        if not given:
            raise errors.UserError(f"--config.{override}: should be --config.{override}=VALUE")
        if key not in flat:
            raise errors.unknown("config name", key, flat)
        if key in seen:
            raise errors.UserError(f"--config.{key} is given twice")
        seen.add(key)
        group, _, field = key.rpartition(".")
        (config[group] if group else config)[field] = grid.typed(key, text)
    sweep = module.get("sweep")
    _refuse_hidden(seen, sweep, path)
    return config, sweep


def _refuse_hidden(keys: set[str], sweep: Callable | None, path: str) -> None:
    """An override of a name that the sweep sets anyway would do nothing."""
    rows: list[dict] = []
    if sweep:
        _told(path, lambda: sweep(rows.append))
    for row in rows:
        for key in keys & set(row if isinstance(row, dict) else ()):
            raise errors.UserError(f"--config.{key} has no effect: the sweep of {path} sets {key}")


def _load_module(path: str) -> dict:
    file = pathlib.Path(path)
    if not file.is_file() or file.suffix != ".py":
        names = [f"configs/{p.name}" for p in sorted(pathlib.Path("configs").glob("*.py")) if p.stem != "__init__"]
        raise errors.unknown("config", path, names) if names else errors.UserError(f"--config={path}: no such file")
    module = _told(path, lambda: runpy.run_path(path))
    if "get_config" not in module:
        raise errors.UserError(f"--config={path}: has no get_config(); see configs/base.py")
    return module


def _told(path: str, function: Callable):
    """`function()`, which runs code of the config file: what that raises is told with its line."""
    try:
        return function()
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f", line {lines[-1]}" if lines else ""
        raise errors.UserError(f"--config={path}{where}: {type(error).__name__}: {error}") from error


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """KEY=V1,V2,... as its name and its values, split at commas outside brackets."""
    key, given, values = text.partition("=")
    if not given:
        raise errors.UserError(f"--sweep={text}: should be --sweep=KEY=V1,V2,...")
    return key, grid.split_values(values)
