"""On what a study was run: versions, device, commit."""

import functools
import importlib.metadata
import pathlib
import platform
import subprocess

import jax

import vae_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def versions_and_device() -> dict:
    """What numbers may depend on, beside the config: {"versions": {package: version}, "device": text}."""
    versions = {"vae_jax": vae_jax.__version__, "python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"versions": versions, "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})"}


@functools.cache
def commit() -> str | None:
    """The git commit of the project, where it is a checkout and git is there."""
    home = pathlib.Path(__file__).parents[2]
    if not (home / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(home), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def described() -> dict:
    """What `config.json` says about it."""
    known = commit()
    return versions_and_device() | ({"commit": known} if known else {})
