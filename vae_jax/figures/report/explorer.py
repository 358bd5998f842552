"""The trained models and the images that the page's explorer works on, packed."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.figures import settings
from vae_jax.figures.report import packing
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Role, Setting
from vae_jax.storage import npz_headers, run_directory

IMAGES = 600  # test images in a page at most
IMAGE_BYTES = 400_000  # of all of them together, as base64
MODELS = 40  # in a page at most


def chosen(workdir: pathlib.Path) -> list[int]:
    """The runs whose models a page may show: of the first seed, without those that diverged, spread where there are many."""
    directory = Directory(workdir)
    first = [_first(setting)["run"] for setting in sorted(directory.trained, key=lambda s: _place(directory, s))]
    return [first[at] for at in _spread(len(first), MODELS)]


def _first(setting: Setting) -> settings.Row:
    return min(setting.rows, key=lambda row: settings.sort_key(row.get("seed")))


def _place(directory: Directory, setting: Setting) -> tuple:
    """Where a setting stands on the slider: from the deterministic code over beta to the rate alone."""
    return (setting.role, settings.sort_key(directory.value(setting, "objective.beta")))


def _spread(count: int, most: int, wanted: int | None = None) -> list[int]:
    """At most `most` of `count` places, evenly from the first to the last, `wanted` in the place of the one beside it."""
    found = sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))}) if count else []
    if wanted is None or wanted in found or not found:
        return found
    beside = min(found[1:-1] or found[-1:], key=lambda at: abs(at - wanted))
    return sorted({*found, wanted} - {beside})


def _begun_with(directory: Directory, shown: Sequence[Setting]) -> int | None:
    """The place of the setting that the page opens with: of those with reconstruction and KL the one nearest to beta 1."""
    both = [at for at, setting in enumerate(shown) if setting.role is Role.BOTH]
    betas = {at: directory.value(shown[at], "objective.beta") for at in both}
    betas = {at: beta for at, beta in betas.items() if settings.is_number(beta) and beta > 0}
    return min(betas, key=lambda at: abs(math.log(betas[at]))) if betas else None


def pack(workdir: pathlib.Path, described: Mapping[str, Any], room: float = math.inf) -> dict[str, Any] | None:
    """Models, images and codes for the page; None where there is nothing to explore.

    Args:
      workdir: of the study.
      described: what `page.write` takes.
      room: bytes that they may take; two models may take more.
    """
    directory = Directory(workdir)
    by_run = {model["run"]: model for model in described.get("models", ())}
    pairs = [(setting, by_run[row["run"]]) for setting in directory.trained for row in setting.rows if row["run"] in by_run]
    pairs.sort(key=lambda pair: _place(directory, pair[0]))
    images, which = _images(described)
    if not pairs or images is None:
        return None
    stored = packing.images(images) | {"count": len(images), "shape": list(images.shape[1:])}
    networks = [packing.digest(*_kernels(model)) for _, model in pairs]
    sizes = [packing.count(model) for _, model in pairs]
    wanted = _begun_with(directory, [setting for setting, _ in pairs])
    latents = [model["latents"] for _, model in pairs]
    kept = _fitting(networks, sizes, len(which), latents, room - len(stored["data"]), wanted)
    store = packing.Store(_weights(kept, networks, sizes) <= packing.PRECISE)
    numbers = {id(setting): at for at, setting in enumerate(directory.settings)}
    told = list(dict.fromkeys(networks[at] for at in kept if "log_beta" in pairs[at][1]))
    models = []
    for at in kept:
        setting, model = pairs[at]
        about = {
            "setting": numbers[id(setting)],
            "group": _group(directory, setting),
            "beta": packing.number(directory.value(setting, "objective.beta")),
            **({"network": told.index(networks[at]), "called": _called(setting)} if networks[at] in told else {}),
            **_codes(workdir, model, which),
        }
        models.append(store.tree(model | about))
    groups = list(dict.fromkeys(model["group"] for model in models))
    return {
        "models": [model | {"group": groups.index(model["group"])} for model in models],
        "groups": groups,
        "arrays": store.arrays,
        "precise": store.precise,
        "left_out": len(directory.trained) - len({model["setting"] for model in models}),
        "images": stored,
        **_about_images(described, which),
    }


def _kernels(model: Mapping) -> list[np.ndarray]:
    """What tells one network from another: models with equal ones are one network, told a beta each."""
    return [layer["kernel"] for layer in (*model["encoder"], *model["decoder"])]


def _called(setting: Setting) -> str:
    """The setting's label without its beta."""
    return ", ".join(part for part in setting.label.split(", ") if not part.startswith("beta "))


def _weights(kept: Sequence[int], networks: Sequence[str], sizes: Sequence[int]) -> int:
    """Numbers of the models at these places, each network once."""
    return sum({networks[at]: sizes[at] for at in kept}.values())


def _fitting(
    networks: Sequence[str],
    sizes: Sequence[int],
    images: int,
    latents: Sequence[int],
    room: float,
    wanted: int | None = None,
) -> list[int]:
    """The models that fit into so many bytes, spread evenly, the one that the page opens with among them; at least two."""
    for count in range(min(len(sizes), MODELS), 2, -1):
        kept = _spread(len(sizes), count, wanted)
        weights = _weights(kept, networks, sizes)
        codes = sum(2 * latents[at] * images for at in kept)
        if packing.TEXT * (weights + codes) * (4 if weights <= packing.PRECISE else 2) <= room:
            return kept
    return _spread(len(sizes), min(len(sizes), 2), wanted)


def _group(directory: Directory, setting: Setting) -> str:
    """What a setting has beside the weights of its objective, in words: the settings of one group share a slider."""
    varying = [key for key in directory.trained[0].values if key not in settings.WEIGHTS]
    return ", ".join(settings.told(key, setting.values[key], varying) for key in varying if setting.values[key] is not None)


def _images(described: Mapping) -> tuple[np.ndarray | None, np.ndarray]:
    """Test images for the page, and their places in the test split."""
    images = described.get("images")
    if images is None or not len(images):
        return None, np.array([], int)
    size = images[0].size * (1 if packing.levels(images[:: -(-len(images) // IMAGES)]) else 4)
    room = max(int(IMAGE_BYTES / packing.TEXT / max(size, 1)), 16)
    which = np.array(_spread(len(images), min(IMAGES, room)))
    return np.asarray(images[which], np.float32), which


def _about_images(described: Mapping, which: np.ndarray) -> dict[str, Any]:
    """Classes and factors of the images, where there are any."""
    found: dict[str, Any] = {"labels": None, "classes": [], "factors": None, "factor_names": []}
    labels = described.get("labels")
    if labels is not None:
        classes, places = np.unique(np.asarray(labels), return_inverse=True)
        if len(classes) <= 40:
            found |= {"labels": places[which].tolist(), "classes": [str(name) for name in classes]}
    factors = described.get("factors")
    if factors is not None:
        names = described.get("factor_names") or [f"factor {i + 1}" for i in range(factors.shape[1])]
        values = np.asarray(factors, float)[which]
        found |= {"factors": np.round(values, 4).tolist(), "factor_names": list(map(str, names))}
    return found


def _codes(workdir: pathlib.Path, model: Mapping, which: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, std and mean rate per latent of the images as evaluation found them, where it wrote them."""
    path = run_directory.arrays_path(workdir, model["run"])
    wanted = ("codes_mean", "codes_std", "rate_per_latent")
    arrays = npz_headers.read(path, str(path), set(wanted)) if path.exists() else {}
    if not all(name in arrays for name in wanted) or which.max(initial=0) >= len(arrays["codes_mean"]):
        return {}
    found = {"codes": arrays["codes_mean"][which], "stds": arrays["codes_std"][which]}
    rates = arrays["rate_per_latent"]
    importance = rates if len(rates) == model["latents"] and np.isfinite(rates).all() else arrays["codes_mean"].var(axis=0)
    return found | {"importance": np.asarray(importance, np.float32)}
