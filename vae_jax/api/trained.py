"""A trained model as an object: NumPy in and out, for notebooks and other programs.

model = vae_jax.load("runs/ablations", name="vae", seed=0)
posterior = model.encode(images)
model.decode(posterior.mean)
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float

from vae_jax.core import errors, keys
from vae_jax.data.dataset import ImageSpec, to_unit
from vae_jax.evaluation import estimators
from vae_jax.models import conditioning
from vae_jax.models.vae import VAE, ModelSpec, Posterior
from vae_jax.storage import tables, trained_models
from vae_jax.system import runs

BATCH = 512  # images or latents at a time, so that memory does not grow with their number
BITS = 7  # counter below a seed's key: the bits of grey images where the model was trained on bits

Images = Float[np.ndarray, "n *shape"]
Latents = Float[np.ndarray, "n latents"]
PerImage = Float[np.ndarray, " n"]


class Codes(NamedTuple):
    """q(z | x) of each image: independent normal latents, mean and std [n, latents]."""

    mean: Any
    std: Any


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedVAE:
    """One trained run.

    Images are what the data set holds: whole numbers in its levels (0 to 255 for bytes), or floats in units of 1; one
    image of shape `image_shape`, or many. A model of bits (`data.binarize`) takes grey images too, and draws their bits.
    Methods return float32 arrays with a leading axis, in units of 1.

    Attributes:
      row: of `results.csv`.
      config: every field by its dotted name.
      variables: {"params": ..., "statistics": ...}, nested dicts of arrays.
      spec: what shapes the network.
      images: how stored pixels become images.
      card: what else the file of the model says: noise_scale, sigma, binarize, ...
    """

    row: dict[str, Any]
    config: dict[str, Any]
    variables: dict = dataclasses.field(repr=False)
    spec: ModelSpec
    images: ImageSpec
    card: dict[str, Any] = dataclasses.field(repr=False)

    @property
    def params(self) -> dict:
        """The parameters, a nested dict of arrays."""
        return self.variables["params"]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self.spec.shape

    def at(self, beta: float) -> "TrainedVAE":
        """The same network told another beta (`model.conditioning=beta`): a model like any other, without results.

        Where the decoder's sigma is the one that is best for a split (`optimal`), it stays that of this model's beta.

        Raises:
          UserError: a network that is not told beta, or a beta outside of those it was trained for.
        """
        if self.spec.conditioning != "beta":
            raise errors.UserError(f"run {self.row['run']} was trained for one beta; at() needs model.conditioning=beta")
        low, high = (self.config[f"objective.beta_{end}"] for end in ("low", "high"))
        if not low <= beta <= high:
            raise errors.UserError(f"beta={beta:g}: should be from {low:g} to {high:g}, for which the network was trained")
        told = {"objective.beta": float(beta)}
        row = {key: value for key, value in self.row.items() if key in ("run", "name", "seed") or "." in key} | told
        log_beta = np.asarray(np.log(np.float32(beta)))
        variables = conditioning.at(self.variables, log_beta)
        return dataclasses.replace(self, row=row, config=self.config | told, variables=variables)

    def encode(self, images, seed: int = 0) -> Codes:
        """q(z | x) of each image; an AE's std is 0. `seed` is of the bits that are drawn where the model needs some.

        Raises:
          UserError: wrong shape, type or range.
        """
        return self._of_images(self._programs.encode, images, seed)

    def decode(self, z) -> Images:
        """The mean image of each row of latents.

        Raises:
          UserError: not [n, latents] or [latents] finite numbers.
        """
        rows = self._checked_latents(z)
        return _over_batches(lambda batch, _: self._programs.decode(batch), rows)

    def reconstruct(self, images, seed: int = 0) -> Images:
        """The mean image at the mean code of each image."""
        return self.decode(self.encode(images, seed).mean)

    def sample(self, count: int, seed: int = 0) -> Images:
        """The mean images of `count` draws from the prior."""
        if count < 1:
            raise errors.UserError(f"count={count}: should be at least 1")
        return self.decode(self._programs.prior(random.key(seed), count))

    def interpolate(self, a, b, steps: int = 9) -> Images:
        """The mean images of `steps` points on the straight line between the mean codes of two images, ends included."""
        first, last = (self.encode(image).mean for image in (a, b))
        if len(first) != 1 or len(last) != 1:
            raise errors.UserError(f"interpolate takes two single images of shape {self.image_shape}")
        if steps < 2:
            raise errors.UserError(f"steps={steps}: should be at least 2")
        return self.decode(first + np.linspace(0, 1, steps)[:, None] * (last - first))

    def elbo(self, images, samples: int = 128, seed: int = 0) -> PerImage:
        """-(distortion + rate) of each image in nats, the distortion a mean over `samples` draws; -inf for an AE."""
        return self._of_images(functools.partial(self._programs.elbo, _at_least_one(samples)), images, seed)

    def importance_bound(self, images, samples: int = 1000, seed: int = 0) -> PerImage:
        """log mean exp of `samples` importance weights of each image, in nats (Burda et al. 2016).

        A lower bound of log p(x) in expectation.

        Raises:
          UserError: an AE, whose code has no density.
        """
        if not self.card["noise_scale"]:
            raise errors.UserError(
                f"run {self.row['run']} is deterministic (objective.noise_scale=0): its code has no density"
            )
        return self._of_images(functools.partial(self._programs.importance_bound, _at_least_one(samples)), images, seed)

    def export(self, path: str | os.PathLike) -> None:
        """Write encoder and decoder as portable StableHLO, in one file; see `vae_jax.api.export`.

        Those of a network that is told beta have beta as a second argument.
        """
        from vae_jax.api import export

        export.write(self, pathlib.Path(path))

    @functools.cached_property
    def _programs(self) -> "Programs":
        return Programs(self.spec, self.variables, float(self.card["sigma"]), float(self.card["noise_scale"]))

    def _of_images(self, program: Callable, images, seed: int):
        """`program(batch in units of 1, key)` over batches of images."""
        rows, key = self._checked_images(images), random.key(seed)

        def of_batch(batch, number):
            own = keys.at(key, number)
            return program(self._prepared(batch, keys.at(own, BITS)), own)

        return _over_batches(of_batch, rows)

    def _prepared(self, batch: np.ndarray, key) -> np.ndarray:
        """One batch in units of 1, as bits where the model was trained on bits."""
        levels = self.images.levels if batch.dtype.kind in "bui" else 1
        x = to_unit(batch, levels)
        how = self.card["binarize"]
        if how == "none" or np.isin(x, (0, 1)).all():
            return x
        if how == "threshold":
            return (x >= 0.5).astype(np.float32)
        return np.asarray(random.bernoulli(key, x)).astype(np.float32)

    def _checked_images(self, images) -> np.ndarray:
        """[n, *shape], whole numbers or floats."""
        x, shape = np.asarray(images), self.image_shape
        if x.dtype.kind not in "buif":
            raise errors.UserError(f"images have dtype {x.dtype}; should be uint8 or float")
        if len(shape) == 3 and shape[-1] == 1 and x.shape[-2:] == shape[:2] and x.shape[-3:] != shape:
            x = x[..., None]  # grey images without an axis for their one channel
        x = x[None] if x.shape == shape else x
        if x.shape[1:] != shape or len(x) == 0:
            axes = ", ".join(map(str, shape))
            raise errors.UserError(f"images have shape {np.shape(images)}; should be [{axes}] or [n, {axes}]")
        low, high = x.min(), x.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise errors.UserError("images have values that are not finite")
        most = self.images.levels if x.dtype.kind in "bui" else 1
        if self.card["is_unit"] and (low < 0 or high > most):
            kind = f"whole numbers from 0 to {most}" if x.dtype.kind in "bui" else "floats from 0 to 1"
            also = ", or whole numbers as they are stored" if x.dtype.kind == "f" else ", or floats from 0 to 1"
            raise errors.UserError(f"images have values from {low:g} to {high:g}; should be {kind}{also}")
        return x

    def _checked_latents(self, z) -> np.ndarray:
        rows = np.asarray(z, np.float32)
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != self.spec.latents or len(rows) == 0:
            raise errors.UserError(f"latents have shape {np.shape(z)}; should be [n, {self.spec.latents}]")
        if not np.isfinite(rows).all():
            raise errors.UserError("latents have values that are not finite")
        return rows


class Programs:
    """The jitted functions of one trained model: each is compiled once for a shape of its batch."""

    def __init__(self, spec: ModelSpec, variables: Mapping, sigma: float, noise_scale: float):
        self.vae = VAE(spec).bind(jax.tree.map(jnp.asarray, dict(variables)))
        self.sigma, self.noise_scale = jnp.float32(sigma), jnp.float32(noise_scale)
        self.encode = jax.jit(self._encode)
        self.decode = jax.jit(lambda z: self.vae.decode(z, self.sigma).mean)
        self.prior = jax.jit(lambda key, count: self.vae.prior().sample(key, count), static_argnums=1)
        self.elbo = jax.jit(self._elbo, static_argnums=0)
        self.importance_bound = jax.jit(self._importance_bound, static_argnums=0)

    def posterior(self, x: Float[Array, "batch *shape"]) -> Posterior:
        """The distribution that z is drawn from."""
        return self.vae.encode(x).scaled(self.noise_scale)

    def _encode(self, x, key) -> Codes:
        posterior = self.posterior(x)
        return Codes(posterior.mean, posterior.std)

    def _elbo(self, samples: int, x, key) -> Float[Array, " batch"]:
        posterior = self.posterior(x)
        mean, _ = estimators.costs(self.vae, x, posterior, key, self.sigma, samples)
        if "rate_per_latent" not in mean:
            mean["rate_per_latent"] = posterior.rate_per_latent(self.vae.prior(), posterior.mean)
        rate = jnp.where(self.noise_scale > 0, jnp.sum(mean["rate_per_latent"], axis=-1), jnp.inf)
        return -(mean["distortion"] + rate)

    def _importance_bound(self, samples: int, x, key) -> Float[Array, " batch"]:
        return estimators.importance_bound(self.vae, x, self.posterior(x), key, self.sigma, samples)[0]


def load(workdir: str | os.PathLike, run: int | None = None, **settings) -> TrainedVAE:
    """The trained model of one run of a study.

    Args:
      workdir: of an evaluated study.
      run: its number in `results.csv`, or None.
      **settings: what picks the run instead: `name`, `seed`, and any column of the grid by the last part of its name
        (`beta=4.0` for `objective.beta`), or whole with two underscores for a dot (`objective__beta=4.0`).

    Returns:
      The model. Of a network that is told beta, where the settings leave beta open, it is at `objective.beta`.

    Raises:
      UserError: no such directory; no run with these settings, or several: the line lists what there is.
    """
    workdir = pathlib.Path(workdir)
    rows = [row for row in tables.read_csv(workdir / "results.csv") if "seed" in row]
    row = _selected(rows, ({"run": run} if run is not None else {}) | _columns(rows, settings), workdir)
    variables, card = trained_models.read(trained_models.path(workdir, row["run"]))
    try:
        model: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in card["model"].items()
        }
        images = ImageSpec(**card["images"] | {"shape": tuple(card["images"]["shape"])})
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in card["config"].items()}
        return TrainedVAE(row, config, {"statistics": {}} | variables, ModelSpec(**model), images, card)
    except (KeyError, TypeError, AttributeError) as error:
        file = trained_models.path(workdir, row["run"])
        raise errors.UserError(f"{file}: its card is not that of a trained model ({error})") from error


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _columns(rows: list[tables.Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the columns of the table that they name."""
    columns = ["run", "name", "seed", *tables.grid_keys(rows)]
    found = {}
    for key, value in settings.items():
        dotted = key.replace("__", ".")
        named = [column for column in columns if dotted in (column, column.rpartition(".")[2])]
        if len(named) != 1:
            known = ", ".join(columns)
            count = "several columns" if named else "no column"
            raise errors.UserError(f"{key}={value!r}: {count} of that name; there are {known}")
        found[named[0]] = value
    return found


def _selected(rows: list[tables.Row], wanted: Mapping[str, Any], workdir: pathlib.Path) -> tables.Row:
    """The one row that has the wanted values."""
    chosen = [row for row in rows if all(row.get(column) == value for column, value in wanted.items())]
    if len(chosen) == 1 or _is_one_network(chosen, workdir):
        return chosen[0]
    asked = ", ".join(f"{column}={value!r}" for column, value in wanted.items()) or "nothing"
    listed = chosen or rows
    varying = [key for key in ("name", *tables.grid_keys(listed), "seed") if len({row.get(key) for row in listed}) > 1]
    values = "; ".join(f"{key}: {', '.join(dict.fromkeys(str(row.get(key, '')) for row in listed))}" for key in varying)
    count = f"{len(chosen)} runs" if chosen else "no run"
    raise errors.UserError(f"{workdir}: {count} with {asked}; choose by {values or 'run'}")


def _is_one_network(rows: list[tables.Row], workdir: pathlib.Path) -> bool:
    """Whether all rows are of one network, told a beta each; the first is the run itself."""
    keys = [key for key in tables.grid_keys(rows) if key != "objective.beta"]
    if len(tables.grouped(rows, ["name", "seed", *keys])) != 1:
        return False
    _, card = trained_models.read(trained_models.path(workdir, rows[0]["run"]))
    return card.get("model", {}).get("conditioning") == "beta"


def _at_least_one(samples: int) -> int:
    if samples < 1:
        raise errors.UserError(f"samples={samples}: should be at least 1")
    return samples


def _over_batches(program: Callable, rows: np.ndarray):
    """`program(batch, its number)` over batches of one shape, the last one padded; the results without the padding."""
    size = min(BATCH, 1 << (len(rows) - 1).bit_length())  # few shapes to compile for
    parts = []
    for number, start in enumerate(range(0, len(rows), size)):
        batch = rows[start : start + size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        parts.append(runs.take(jax.device_get(program(padded, number)), slice(len(batch))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
