"""p(z) as structs: `log_prob`, `sample`, `quantile`, and the closed-form rate where there is one."""

import jax.numpy as jnp
from flax import struct
from jax import random
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Key


@struct.dataclass
class Normal:
    """N(0, I) over `latents` dimensions."""

    latents: int = struct.field(pytree_node=False)

    def log_prob(self, z: Float[Array, "batch latents"]) -> Float[Array, " batch"]:
        return jnp.sum(-0.5 * jnp.square(z) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.normal(key, (count, self.latents))

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value below which one latent falls with probability `level`."""
        return ndtri(level)

    def rate_per_latent(
        self, mean: Float[Array, "batch latents"], log_var: Float[Array, "batch latents"]
    ) -> Float[Array, "batch latents"]:
        """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent, in nats (Kingma & Welling 2014, appendix B)."""
        # expm1, because exp(v) - 1 - v of a collapsed latent is a difference of nearly equal numbers.
        return 0.5 * (jnp.square(mean) + jnp.expm1(log_var) - log_var)


Prior = Normal

# name -> latents -> struct.
PRIORS = {"normal": Normal}
