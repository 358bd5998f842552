"""A jitted step per batch in the manner of flax's examples/vae: Linen modules, a TrainState, batches from the host."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from jax import random


class VAE(nn.Module):
    hidden: int
    latents: int
    pixels: int

    @nn.compact
    def __call__(self, x, key):
        encoded = nn.relu(nn.Dense(self.hidden)(x))
        mean, logvar = nn.Dense(self.latents)(encoded), nn.Dense(self.latents)(encoded)
        z = mean + jnp.exp(0.5 * logvar) * random.normal(key, logvar.shape)
        return nn.Dense(self.pixels)(nn.relu(nn.Dense(self.hidden)(z))), mean, logvar


@jax.jit
def train_step(state, x, key):
    def loss_fn(params):
        logits, mean, logvar = state.apply_fn({"params": params}, x, key)
        bce = -jnp.mean(jnp.sum(x * logits - jax.nn.softplus(logits), axis=-1))
        kld = -0.5 * jnp.mean(jnp.sum(1 + logvar - jnp.square(mean) - jnp.exp(logvar), axis=-1))
        return bce + kld

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


def epoch(images: np.ndarray, hidden: int, latents: int, batch_size: int) -> Callable[[], None]:
    """A function that trains for one epoch on flat images in [0, 1], which stay on the host."""
    model, generator, key = VAE(hidden, latents, images.shape[1]), np.random.default_rng(0), random.key(0)
    params = model.init(key, images[:batch_size], key)["params"]
    state = train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))

    def train() -> None:
        nonlocal state, key
        order = generator.permutation(len(images))
        for start in range(0, len(images) - batch_size + 1, batch_size):
            key, noise_key = random.split(key)
            state = train_step(state, images[order[start : start + batch_size]], noise_key)
        jax.block_until_ready(state)

    return train
