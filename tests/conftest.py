"""The strict modes that every test runs in, and the fixtures that several files share."""

import jax
import pytest

# Before any computation: eight devices, of which tests take slices.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption("--stress", action="store_true", help="run the long counts too: kills, fuzz, sweeps of devices")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--stress"):
        skip = pytest.mark.skip(reason="long; ./scripts/test --stress runs it")
        for item in items:
            if "stress" in item.keywords:
                item.add_marker(skip)
