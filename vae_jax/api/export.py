"""A trained model as one file that needs JAX alone: encoder and decoder as portable StableHLO, beside a card.

The file is a zip archive of `encoder.bin`, `decoder.bin` and `card.json`. Read it without this project:

    import json, zipfile
    import jax
    with zipfile.ZipFile("model.zip") as archive:
        card = json.loads(archive.read("card.json"))
        encode = jax.export.deserialize(bytearray(archive.read("encoder.bin"))).call
        decode = jax.export.deserialize(bytearray(archive.read("decoder.bin"))).call
    mean, std = encode(images)      # float32 [n, *card["image_shape"]] in units of 1
    images = decode(mean)           # float32 [n, card["latents"]]
"""

import json
import pathlib
import zipfile
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import export

from vae_jax import __version__
from vae_jax.storage import run_directory

if TYPE_CHECKING:
    from vae_jax.api.trained import TrainedVAE

PLATFORMS = ("cpu", "cuda", "tpu")


def write(model: "TrainedVAE", path: pathlib.Path) -> None:
    """Write `model` to `path`: the whole file, or none."""
    programs = model._programs

    def encode(x):
        posterior = programs.posterior(x)
        return posterior.mean, posterior.std

    def decode(z):
        return programs.vae.decode(z, programs.sigma).mean

    parts = {
        "encoder.bin": _lowered(encode, model.image_shape),
        "decoder.bin": _lowered(decode, (model.spec.latents,)),
        "card.json": json.dumps(run_directory.jsonable(card(model)), indent=2, allow_nan=False).encode(),
    }
    with run_directory.atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _lowered(function, shape: tuple[int, ...]) -> bytes:
    """`function` of float32 [n, *shape] for any n, for each of `PLATFORMS`."""
    symbolic = export.symbolic_shape(", ".join(["n", *map(str, shape)]))
    argument = jax.ShapeDtypeStruct(symbolic, jnp.float32)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(argument).serialize())


def card(model: "TrainedVAE") -> dict:
    """What one has to know to use the file: shapes, scaling, settings, results, versions."""
    return {
        "image_shape": model.image_shape,
        "latents": model.spec.latents,
        "levels": model.images.levels,
        "scaling": f"the encoder takes stored pixels divided by {model.images.levels}; the decoder returns that scale",
        "outputs": {"encoder": ["mean [n, latents]", "std [n, latents]"], "decoder": ["mean image [n, *image_shape]"]},
        "binarize": model.card["binarize"],
        "row": model.row,
        "config": model.config,
        "versions": {"vae_jax": __version__, "jax": jax.__version__},
        "platforms": PLATFORMS,
    }
