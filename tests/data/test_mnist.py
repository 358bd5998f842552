"""MNIST itself, as TFDS prepares it: what is read, and the ends of the scale of its likelihood."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.dataset import ImageSpec, load
from vae_jax.models import likelihoods
from vae_jax.models.vae import VAE, ModelSpec


@pytest.fixture(scope="module")
def mnist():
    """The data set; its 70,000 images are decoded once."""
    if not pathlib.Path(os.environ.get("TFDS_DATA_DIR", ""), "mnist").is_dir():
        pytest.skip("needs a prepared mnist in $TFDS_DATA_DIR")
    return load("mnist", valid_fraction=0.0)


def test_mnist(mnist):
    assert {name: len(split) for name, split in mnist.splits.items()} == {"train": 60_000, "test": 10_000}
    train = mnist.splits["train"]
    assert mnist.spec == ImageSpec((28, 28, 1), 255, dynamic=False)
    assert mnist.source == {"tfds": "mnist/3.0.1"}
    assert train.pixels.dtype == np.uint8
    # Whitened, test images lie about where training images do.
    statistics, test = mnist.statistics("whiten"), mnist.images("test")
    white = np.abs((test - statistics["mean"]).reshape(len(test), -1) @ statistics["whiten"]).max(axis=1)
    assert np.median(white) < 3.5
    assert white.max() < 200
    # The published mean of the training pixels is 0.1307, to four digits.
    assert abs(train.pixels.mean() / 255 - 0.1307) < 1e-4
    np.testing.assert_array_equal(np.bincount(train.labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])


def test_the_ends_of_the_scale(mnist):
    """Of a decoder that says nothing but the mean, 205.8 to 206.0 nats; no grey image costs less than its entropy, 45.5."""
    x = jnp.asarray(mnist.images("test"))
    spec = ModelSpec(shape=x.shape[1:], hidden=(), activation="relu", sigma="")
    statistics = mnist.statistics("whiten")  # which were computed above; the same mean as of "center"
    variables = {"statistics": {name: jnp.asarray(statistics[name]) for name in ("mean", "scale")}}

    def started(x):
        return VAE(spec).apply(variables, x, rngs={"params": jax.random.key(0)}, mutable=["params"])[1]["params"]

    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(started, x[:1]))
    collapsed = VAE(spec).bind(variables | {"params": params})
    log_prob = jax.jit(lambda x: collapsed.decode(jnp.zeros((len(x), 2))).log_prob(x))(x)
    assert 205.8 < -np.mean(log_prob) < 206.0
    log_prob = jax.jit(lambda x: likelihoods.Bernoulli(jnp.clip(jnp.log(x) - jnp.log1p(-x), -50, 50)).log_prob(x))(x)
    assert -np.mean(log_prob) == pytest.approx(45.53, abs=0.01)
