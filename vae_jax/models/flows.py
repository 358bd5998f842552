"""Invertible maps of the latents, of which the flow prior is made: each has `forward` and `inverse`."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

Latents = Float[Array, "batch latents"]
PerImage = Float[Array, " batch"]

BINS = 16  # of a spline
END = 5.0  # beyond which a spline is the identity, on either side
LEAST = 1e-3  # width and height of a bin, in parts of the whole, and slope of a spline


@struct.dataclass
class Coupling:
    """Half of the latents moved and scaled by a function of the other half (Dinh et al. 2017)."""

    kernel: Float[Array, "half width"]
    bias: Float[Array, " width"]
    kernel_out: Float[Array, "width twice"]
    bias_out: Float[Array, " twice"]

    def _affine(self, kept: Float[Array, "batch half"]) -> tuple[Float[Array, "batch rest"], Float[Array, "batch rest"]]:
        hidden = jnp.tanh(kept @ self.kernel + self.bias[None])
        shift, log_scale = jnp.split(hidden @ self.kernel_out + self.bias_out[None], 2, axis=-1)
        return shift, 2 * jnp.tanh(0.5 * log_scale)  # a scale between exp(-2) and exp(2): no layer can explode

    def forward(self, u: Latents) -> Latents:
        """From the base to the latents; the order is turned round, so that the next layer moves the other half."""
        kept, moved = jnp.split(u, [self.kernel.shape[0]], axis=-1)
        shift, log_scale = self._affine(kept)
        return jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift], axis=-1)[:, ::-1]

    def inverse(self, z: Latents) -> tuple[Latents, PerImage]:
        """From the latents to the base, and log |d base / d latents|."""
        kept, moved = jnp.split(z[:, ::-1], [self.kernel.shape[0]], axis=-1)
        shift, log_scale = self._affine(kept)
        moved = (moved - shift) * jnp.exp(-log_scale)
        return jnp.concatenate([kept, moved], axis=-1), -jnp.sum(log_scale, axis=-1)


@struct.dataclass
class Spline:
    """One latent through a monotone spline of rational quadratics on [-END, END] (Durkan et al. 2019, eq. 4 to 8).

    The fields are unconstrained; at 0 the map is the identity.
    """

    widths: Float[Array, " bins"]
    heights: Float[Array, " bins"]
    slopes: Float[Array, " inner"]  # at the knots between bins

    def _bins(self) -> dict[str, Float[Array, " bins"]]:
        """Left edge, width and height of each bin, and the slopes at its two ends."""
        slopes = LEAST + jax.nn.softplus(self.slopes + jnp.log(jnp.expm1(1 - LEAST)))
        slopes = jnp.concatenate([jnp.ones(1), slopes, jnp.ones(1)])  # as those of the identity beyond
        width, height = (
            2 * END * (LEAST + (1 - LEAST * len(sizes)) * jax.nn.softmax(sizes)) for sizes in (self.widths, self.heights)
        )
        left, bottom = (jnp.cumsum(size) - size - END for size in (width, height))
        return {
            "left": left, "width": width, "bottom": bottom, "height": height, "first": slopes[:-1], "last": slopes[1:]
        }  # fmt: skip

    def _of(self, edge: str, values: Latents) -> dict[str, Latents]:
        """The bin of each value, found by its lower `edge`."""
        bins = self._bins()
        number = jnp.sum(values[..., None] >= bins[edge][None, None, 1:], axis=-1)
        return {name: of_bin[number] for name, of_bin in bins.items()}

    def forward(self, u: Latents) -> Latents:
        """From the base to the latents: the root of the quadratic that `inverse` is in a bin."""
        own = self._of("bottom", u)
        rise = jnp.clip(u, -END, END) - own["bottom"]
        steepness = own["height"] / own["width"]
        bend = rise * (own["first"] + own["last"] - 2 * steepness)
        a = own["height"] * (steepness - own["first"]) + bend
        b = own["height"] * own["first"] - bend
        c = -steepness * rise
        share = 2 * c / (-b - jnp.sqrt(jnp.maximum(jnp.square(b) - 4 * a * c, 0)))
        return jnp.where(jnp.abs(u) < END, own["left"] + share * own["width"], u)

    def inverse(self, z: Latents) -> tuple[Latents, PerImage]:
        """From the latents to the base, and log |d base / d latents|."""
        own, inside = self._of("left", z), jnp.abs(z) < END
        share = jnp.clip((z - own["left"]) / own["width"], 0, 1)
        rest, steepness = 1 - share, own["height"] / own["width"]
        base = steepness + (own["first"] + own["last"] - 2 * steepness) * share * rest
        value = own["bottom"] + own["height"] * (steepness * jnp.square(share) + own["first"] * share * rest) / base
        mixed = own["last"] * jnp.square(share) + 2 * steepness * share * rest + own["first"] * jnp.square(rest)
        log_slope = 2 * jnp.log(steepness) + jnp.log(mixed) - 2 * jnp.log(base)
        return jnp.where(inside, value, z), jnp.sum(jnp.where(inside, log_slope, 0), axis=-1)
