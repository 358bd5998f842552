"""The strict modes that every test runs in, and the fixtures that several files share."""

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile

import jax
import numpy as np
import pytest
from support import Forks, compiled, with_settings

from vae_jax.evaluation import evaluate
from vae_jax.study import ahead
from vae_jax.system import memory
from vae_jax.training import step

# Before any computation: eight devices, of which tests take slices.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# As the mains do: with Python's own threshold the garbage collector takes a twentieth of the time of tests that trace a lot.
gc.set_threshold(100_000, 50, 100)

# For the workers, and what they start: threads that wait for the next product in a loop would take time from other work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What keeps a browser from looking for anything by itself.
QUIET = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "force-prefers-reduced-motion",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--stress", action="store_true", help="run the long counts too: kills, fuzz, sweeps of devices")


# Files that take longest, up to two minutes: they are begun first, so that no worker waits for another that has one left.
LONG = ("reliability", "distributed", "report", "draw", "notebook", "step", "evaluate", "study", "streamed", "clusters",
        "growth", "loop", "conditioned", "mnist", "estimators", "scripts", "trained")  # fmt: skip


def pytest_collection_modifyitems(config, items):
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    if not config.getoption("--stress"):
        skip = pytest.mark.skip(reason="long; ./scripts/test --stress runs it")
        for item in items:
            if "stress" in item.keywords:
                item.add_marker(skip)


def pytest_collection_finish():
    gc.freeze()  # what was imported


@pytest.fixture(scope="session", autouse=True)
def compiled_once(request):
    """Compiling is what the tests cost: what one of them compiled, the next ones read, also in the next session.

    The workers of pytest-xdist share it. One may read what another has not finished writing: that is a warning, which
    pyproject.toml ignores, and the program is compiled again.
    """
    directory = str(request.config.cache.mkdir("compiled"))
    os.environ["XDG_CACHE_HOME"] = directory  # of the processes that tests start
    yield from with_settings(jax_compilation_cache_dir=directory, jax_persistent_cache_min_compile_time_secs=0.0)


@pytest.fixture(scope="session")
def forks(tmp_path_factory, compiled_once):
    """Runs the mains, without importing the library for each."""
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="module", autouse=True)
def memory_returned():
    """Free the programs and buffers of a file: over the suite they add up to gigabytes, and malloc keeps what is freed."""
    yield
    step._program.cache_clear()
    evaluate._over_runs.cache_clear()
    jax.clear_caches()
    gc.collect()
    gc.freeze()  # what was imported stays, and need not be looked through after each file
    with contextlib.suppress(AttributeError):  # of glibc
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def compiled_so(request):
    """Compile the programs of a file quickly, unless it is marked: `pytestmark = pytest.mark.compiled_fully`."""
    yield from compiled(fully=request.node.get_closest_marker("compiled_fully") is not None)


@pytest.fixture
def compiled_quickly():
    """For tests to which it does not matter, in a file that is marked because of others."""
    yield from compiled(fully=False)


@pytest.fixture(scope="module")
def one_run_at_a_time():
    """Runs take turns, as where memory is short: studies of all sizes share the programs of one run. The same numbers.

    Nothing is compiled ahead, which would be for all runs at a time.
    """
    with pytest.MonkeyPatch.context() as patch:
        for turn in ("train", "plan"):
            patch.setattr(ahead.Ahead, turn, lambda *_: None)
        halving = memory.halving
        patch.setattr(memory, "halving", lambda attempt, runs, *rest, **named: halving(attempt, 1, *rest, **named))
        yield


@pytest.fixture
def npz(tmp_path):
    """Writes arrays to a file; returns its path."""

    def write(**arrays) -> str:
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window and without a network, driven by selenium; skips where either is not installed.

    Of one file: as long as it is open, it takes a tenth of a core to show pictures that move.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("no chromium and chromedriver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for argument in (*QUIET, f"user-data-dir={profile}", "window-size=1400,1000"):
            options.add_argument(f"--{argument}")
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        yield started
        started.quit()
