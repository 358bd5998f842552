"""An epoch in one jit in the manner of numpyro's examples/vae.py: images on the device, `fori_loop` over batches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.example_libraries import optimizers, stax


def epoch(images: np.ndarray, hidden: int, latents: int, batch_size: int, binarize: bool) -> Callable[[], float]:
    """A function that trains for one epoch on flat images in [0, 1] and returns its mean loss."""
    data, pixels = jax.device_put(images), images.shape[1]
    heads = stax.parallel(stax.Dense(latents), stax.serial(stax.Dense(latents), stax.Exp))
    encoder_init, encode = stax.serial(stax.Dense(hidden), stax.Softplus, stax.FanOut(2), heads)
    decoder_init, decode = stax.serial(stax.Dense(hidden), stax.Softplus, stax.Dense(pixels))
    init_state, update, get_params = optimizers.adam(1e-3)

    def negative_elbo(params, key, x):
        mean, std = encode(params[0], x)
        logits = decode(params[1], mean + std * random.normal(key, mean.shape))
        log_likelihood = jnp.sum(x * logits - jax.nn.softplus(logits))
        rate = 0.5 * jnp.sum(mean**2 + std**2 - 1 - 2 * jnp.log(std))
        return (rate - log_likelihood) / len(x)

    @jax.jit
    def train(state, key):
        order_key, key = random.split(key)
        order = random.permutation(order_key, len(data))

        def body(i, carry):
            total, state, key = carry
            x = jnp.take(data, lax.dynamic_slice_in_dim(order, i * batch_size, batch_size), axis=0)
            key, noise_key, bits_key = random.split(key, 3)
            x = random.bernoulli(bits_key, x).astype(x.dtype) if binarize else x
            loss, grads = jax.value_and_grad(negative_elbo)(get_params(state), noise_key, x)
            return total + loss, update(i, grads, state), key

        count = len(data) // batch_size
        total, state, _ = lax.fori_loop(0, count, body, (0.0, state, key))
        return total / count, state

    keys = iter(random.split(random.key(0), 10_000))
    state = init_state((encoder_init(next(keys), (-1, pixels))[1], decoder_init(next(keys), (-1, latents))[1]))

    def one() -> float:
        nonlocal state
        loss, state = train(state, next(keys))
        return float(loss)

    return one
