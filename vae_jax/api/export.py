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

Where the network is told beta (`model.conditioning=beta`), both take it as a second argument, a float32 number in the range
`card["betas"]`: encode(images, beta), decode(mean, beta).
"""

import json
import pathlib
import zipfile
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import export

from vae_jax import __version__
from vae_jax.models import conditioning
from vae_jax.models.vae import VAE
from vae_jax.storage import run_directory

if TYPE_CHECKING:
    from vae_jax.api.trained import TrainedVAE

PLATFORMS = ("cpu", "cuda", "tpu")


def write(model: "TrainedVAE", path: pathlib.Path) -> None:
    """Write `model` to `path`: the whole file, or none."""
    programs, variables = model._programs, jax.tree.map(jnp.asarray, model.variables)

    def told(beta: tuple) -> VAE:
        return VAE(model.spec).bind(conditioning.at(variables, jnp.log(beta[0]))) if beta else programs.vae

    def encode(x, *beta):
        posterior = told(beta).encode(x).scaled(programs.noise_scale)
        return posterior.mean, posterior.std

    def decode(z, *beta):
        return told(beta).decode(z, programs.sigma).mean

    numbers = (jax.ShapeDtypeStruct((), jnp.float32),) if model.spec.conditioning == "beta" else ()
    parts = {
        "encoder.bin": _lowered(encode, model.image_shape, numbers),
        "decoder.bin": _lowered(decode, (model.spec.latents,), numbers),
        "card.json": json.dumps(run_directory.jsonable(card(model)), indent=2, allow_nan=False).encode(),
    }
    with run_directory.atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _lowered(function, shape: tuple[int, ...], numbers: tuple) -> bytes:
    """`function` of float32 [n, *shape] for any n, and of `numbers`, for each of `PLATFORMS`."""
    symbolic = export.symbolic_shape(", ".join(["n", *map(str, shape)]))
    argument = jax.ShapeDtypeStruct(symbolic, jnp.float32)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(argument, *numbers).serialize())


def card(model: "TrainedVAE") -> dict:
    """What one has to know to use the file: shapes, scaling, settings, results, versions."""
    ends = [model.config[f"objective.beta_{end}"] for end in ("low", "high")]
    betas = {"betas": ends} if model.spec.conditioning == "beta" else {}
    return {
        "image_shape": model.image_shape,
        "latents": model.spec.latents,
        "levels": model.images.levels,
        "scaling": f"the encoder takes stored pixels divided by {model.images.levels}; the decoder returns that scale",
        "outputs": {"encoder": ["mean [n, latents]", "std [n, latents]"], "decoder": ["mean image [n, *image_shape]"]},
        "binarize": model.card["binarize"],
        **betas,
        "row": model.row,
        "config": model.config,
        "versions": {"vae_jax": __version__, "jax": jax.__version__},
        "platforms": PLATFORMS,
    }
