"""The Gaussian log-density, of which posterior, priors and likelihood are made."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Values = Float[Array, "..."]


def log_density(squared: Values, log_var: Values | float) -> Values:
    """log N(x; mean, exp(log_var)) elementwise in nats, of `squared` = (x - mean)^2 / exp(log_var)."""
    return -0.5 * (squared + log_var) - 0.5 * jnp.log(2 * jnp.pi)
