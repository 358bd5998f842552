"""On what a study was run: versions, device, commit, data."""

import functools
import importlib.metadata
import itertools
import pathlib
import platform
import subprocess
from collections.abc import Mapping

import jax

import vae_jax
from vae_jax.core import errors, schema
from vae_jax.data.dataset import Dataset
from vae_jax.study.config import ABSENT, FIELDS, Flat

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def versions_and_device() -> dict:
    """What numbers may depend on, beside the config: {"versions": {package: version}, "device": text}."""
    versions = {"vae_jax": vae_jax.__version__, "python": platform.python_version()}
    versions |= _installed()
    return {"versions": versions, "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})"}


@functools.cache
def _installed() -> dict[str, str]:
    """The versions of the packages; reading them takes a twentieth of a second."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


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


def data(sources: Mapping[tuple, Dataset]) -> list[dict]:
    """What `config.json` says of data sets: settings, digest, what was found where they were looked for.

    And where all runs see the images in one order, that they do.
    """
    return [
        {"settings": dict(source), "digest": dataset.digest, "source": dataset.source}
        | ({"order": "shared"} if dataset.has_one_order else {})
        for source, dataset in sources.items()
    ]


def check_data(sources: Mapping[tuple, Dataset], recorded: object, where: str) -> None:
    """Refuse data that are not those that a study began with.

    Args:
      sources: data sets by their settings, as `planning.source_of` gives them.
      recorded: what `data` gave then; nothing where a version wrote none.
      where: heads the line, such as the directory of the study.

    Raises:
      UserError: other pixels, labels, factors or splits under the same settings, or their images in another order.
    """
    absent = schema.group(ABSENT, "data")
    entries = [each for each in recorded if isinstance(each, Mapping)] if isinstance(recorded, list) else []
    for source, dataset in sources.items():
        settings = [absent | _typed(entry.get("settings")) for entry in entries]
        same = [each == dict(source) for each in settings]
        if not any(same):
            same = [_without_how(each) == _without_how(dict(source)) for each in settings]
        for entry in itertools.compress(entries, same):
            _check_order(dataset, entry.get("order", "run"), where)
            before = entry.get("digest")
            if before != dataset.digest_like(str(before)):
                told = ", ".join(f"data.{key}={value}" for key, value in source if key in ("name", "path", "dir") and value)
                raise errors.UserError(
                    f"{where}: the data of {told} are not those that the study began with (digest {str(before)[:12]} "
                    f"there and {dataset.digest[:12]} here); choose another directory, or start over by --restart"
                )


def _without_how(settings: Flat) -> Flat:
    """Data settings without those that say how the pixels are held, on which their values do not depend."""
    return {key: value for key, value in settings.items() if key not in ("resident", "order")}


def _check_order(dataset: Dataset, before: object, where: str) -> None:
    """Refuse to go on with images in another order."""
    if before == "shared" and not dataset.has_one_order:
        raise errors.UserError(f"{where}: all its runs see the images in one order; to go on, give data.order=shared")
    if before == "run" and dataset.has_one_order:
        raise errors.UserError(
            f"{where}: each of its runs has an order of the images of its own; to go on, give data.resident=true"
        )


def _typed(settings: object) -> Flat:
    """Recorded data settings as the types of their fields."""
    known = settings if isinstance(settings, Mapping) else {}
    return {key: FIELDS[f"data.{key}"].typed(value) for key, value in known.items() if f"data.{key}" in FIELDS}
