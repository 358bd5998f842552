"""What the mains share: flags, JAX's devices, signals, and a user's mistake told in one line."""

import atexit
import functools
import gc
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

from absl import app, flags, logging

from experiments import config_files
from vae_jax.core import errors
from vae_jax.system import progress, signals


def cores() -> int:
    """Cores that this process may use; where the system does not say which (only Linux does), all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_DEVICES = flags.DEFINE_integer("cpu_devices", cores(), "Devices that a CPU is split into; one per core.")

_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "vae_jax"),
    "Directory that keeps traced and compiled programs for the next time; empty for none.",
)


_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, where a study runs in several processes. Slurm, Open MPI and Kubernetes tell it.",
)
_PROCESSES = flags.DEFINE_integer("processes", 0, "With --coordinator: how many processes there are.")
_PROCESS = flags.DEFINE_integer("process", -1, "With --coordinator: the number of this one, from 0.")
_TIMEOUT = 100  # seconds after which a process that is not heard of counts as lost

# Who says how many tasks a job step has. Not SLURM_NTASKS: an allocation has it too, where one process was started.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def run(main: Callable[[], None]) -> None:
    """Parse the command line, start JAX's devices, call `main`.

    A mistake ends in one line and exit code 2; Ctrl-C and SIGTERM in the command that goes on, and 130 or 143.
    """
    for number in signals.SIGNALS:
        signal.signal(number, signals.stop)
    # Importing and tracing make many objects that stay: by default the garbage collector takes a tenth of the start.
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)  # otherwise it goes through all of them once more when the process ends, which takes a second
    try:
        # Exit codes 0 and 1 of --help pass through.
        app.run(lambda _: _guarded(main), flags_parser=_parse)
    except signals.Stopped as stopped:
        saved = f", {stopped}" if str(stopped) else ""
        print(f"stopped by {signal.Signals(stopped.signal).name}{saved}; to go on: {_going_on()}", file=sys.stderr)
        sys.exit(128 + stopped.signal)


def _going_on() -> str:
    """This command without --restart, which would start over."""
    return shlex.join(word for word in sys.orig_argv if not re.fullmatch(r"--?restart(=.*)?", word))


def _parse(argv: Sequence[str]) -> list[str]:
    """absl's parser, after the `--config.x.y=value` overrides have become values of one flag, where a main has it."""
    if "config" in flags.FLAGS and _asks_for_configs(argv):
        print(config_files.listing())
        sys.exit()
    if "override" in flags.FLAGS:
        argv = [re.sub(r"^--?config\.", "--override=", arg) for arg in argv]
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl has printed the help that was asked for
        if "override" in flags.FLAGS:
            print(config_files.fields_help())
        raise
    except flags.Error as error:
        _fail(" ".join(str(error).split()))
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: flags look like --name=value")
    return rest


def _asks_for_configs(argv: Sequence[str]) -> bool:
    """Whether `--config` stands there without a value."""
    return any(
        word in ("--config", "-config") and following.startswith("-")
        for word, following in zip(argv, [*argv[1:], "--"], strict=True)
    )


# XLA's CPU backend runs a loop as one call per operation and turn; small ones, such as those that make random bits, it
# can compile as a whole, which halves the time of a run of a small network. The same bits.
_XLA_FLAGS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=32768"


def _guarded(main: Callable[[], None]) -> None:
    os.environ["XLA_FLAGS"] = f"{_XLA_FLAGS} {os.environ.get('XLA_FLAGS', '')}"  # the user's last: they win
    import jax

    from vae_jax.system import traced

    logging.set_verbosity(logging.ERROR)  # JAX, Orbax and TFDS report what they looked for and did not find
    try:
        if _DEVICES.value < 1:
            raise errors.UserError(f"--cpu_devices={_DEVICES.value}: should be at least 1")
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
        if _CACHE.value:
            jax.config.update("jax_compilation_cache_dir", _CACHE.value)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            traced.keep(os.path.join(_CACHE.value, "traced"))
            # What cannot be kept, or read again, is compiled anew. That a disk is full is said by what needs the room.
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
        _join()
        main()
    except errors.UserError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        # At once: of a save that failed Orbax has threads that wait for minutes, and then report pages.
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", at_once=True)
    except jax.errors.JaxRuntimeError as error:
        if jax.distributed.is_initialized():
            _fail(f"lost another process, or what it was to send: {' '.join(str(error).split())[:120]}")
        raise


def _join() -> None:
    """Become one of the processes of a study, where the flags or the cluster say that there are several."""
    import jax

    address, count, number = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    given = address or count or number != -1
    if not given and not _announced(os.environ):
        return
    if given and not re.fullmatch(r".+:\d{1,5}", address):
        raise errors.UserError(f"--coordinator={address}: should be HOST:PORT of process 0")
    if given and not 0 <= number < count:
        raise errors.UserError(f"--process={number} --processes={count}: should be a number from 0, and how many there are")
    join = functools.partial(jax.distributed.initialize, initialization_timeout=_TIMEOUT, heartbeat_timeout_seconds=_TIMEOUT)
    try:
        if given:
            # Bound to the address that was given: the default listens on every interface.
            join(address, count, number, cluster_detection_method="deactivate", coordinator_bind_address=address)
        else:
            join()
    except (ValueError, RuntimeError) as error:
        raise errors.UserError(f"could not join the other processes of the study: {error}") from error
    progress.speaks = jax.process_index() == 0


def _announced(environment: Mapping[str, str]) -> bool:
    """Whether a cluster says that this is one of several processes; JAX then finds out the rest from it."""
    if any(int(environment.get(name, 1)) > 1 for name in _TASKS) or "JOB_COMPLETION_INDEX" in environment:
        return True
    return "," in environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))


def _fail(message: str, at_once: bool = False) -> None:
    import jax

    print(f"error: {message}", file=sys.stderr, flush=True)
    if at_once or jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(2)  # without the farewell, in which the others would be waited for: they wait for this one
    sys.exit(2)
