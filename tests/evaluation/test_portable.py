"""Models described in NumPy: the page's own evaluation of them agrees with JAX for every network, likelihood and prior."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from support import ROOT

from vae_jax.evaluation import portable
from vae_jax.figures.report import packing
from vae_jax.models import conditioning
from vae_jax.models.vae import VAE, ModelSpec

NETWORKS = (ROOT / "vae_jax/figures/report/networks.js").read_text()
# What the page computes of each image: the same quantities as `expected`.
EVALUATE = """
const [description, arrays, images, latents] = arguments, store = arrays.map(Networks.unpack);
const model = new Networks.Model(description, (number) => store[number]);
return images.map((x, i) => {
  const posterior = model.encode(x), z = latents[i];
  return {mean: posterior.mean, std: posterior.std, image: Array.from(model.decode(z)),
          distortion: [model.distortion(x, z)], rate: [model.rate(posterior, z)]};
});
"""

MODELS = {
    "linear": {"encoder": "linear", "decoder": "linear", "likelihood": "gaussian", "sigma": "learned", "prior": "mixture"},
    "odd conv": {"encoder": "conv", "decoder": "conv", "hidden": (4, 6, 16), "shape": (9, 7, 3), "activation": "gelu"},
    "own layers": {
        "encoder": "conv", "decoder": "conv", "hidden": (4, 6, 16), "kernel": (3, 2), "stride": (1, 3), "shape": (9, 8, 1),
        "decoder_hidden": (5, 3, 6, 12), "decoder_kernel": (5, 1, 3), "decoder_stride": (2, 1, 3),
        "decoder_activation": "elu",
    },
    "per pixel conv": {
        "encoder": "conv", "decoder": "conv", "hidden": (5, 7, 16), "likelihood": "gaussian", "sigma": "per_pixel",
        "normalize": "standardize", "prior": "vamp",
    },
    "vectors": {
        "shape": (12,), "likelihood": "gaussian", "sigma": "per_pixel", "activation": "relu", "prior": "student_t"
    },
    "whitened": {
        "normalize": "whiten", "likelihood": "continuous_bernoulli", "activation": "elu", "prior": "flow", "latents": 3
    },
    "levels": {
        "normalize": "none", "likelihood": "discretized_logistic", "sigma": "fixed", "levels": 16, "activation": "softplus",
        "prior": "laplace",
    },
    "tanh": {},
    "as in MNIST": {"shape": (28, 28, 1), "hidden": (100,), "latents": 20, "activation": "relu"},
    "told beta": {"conditioning": "beta", "prior": "vamp", "normalize": "none"},
    "told beta, linear": {"conditioning": "beta", "encoder": "linear", "decoder": "linear"},
    "told beta, conv": {"conditioning": "beta", "encoder": "conv", "decoder": "conv", "hidden": (4, 6, 16)},
}  # fmt: skip


@functools.cache
def made(name: str) -> tuple[ModelSpec, dict, np.ndarray]:
    """A model with parameters that differ from their start, and images."""
    spec = ModelSpec(**{"shape": (8, 8, 1), "sigma": "", "hidden": (16, 16)} | MODELS[name])
    generator, pixels = np.random.default_rng(0), math.prod(spec.shape)
    x = np.round(generator.random((4, *spec.shape)) * 16).astype(np.float32) / 16
    statistics = {}
    if spec.normalize != "none":
        statistics = {"mean": x.mean(axis=0), "scale": np.float32(0.5), "std": x.std(axis=0) + np.float32(0.1)}
        statistics |= {
            name: 0.3 * generator.normal(size=(pixels, pixels)).astype(np.float32) for name in ("whiten", "color")
        }
    if spec.conditioning == "beta":
        statistics |= {"log_beta": np.float32(0.7), "lowest_log_beta": np.float32(-1.1)}
    variables = {"statistics": jax.tree.map(jnp.asarray, statistics)}

    def init(x):
        return VAE(spec).apply(variables, x, rngs={"params": random.key(1)}, mutable=["params"])[1]["params"]

    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape).astype(np.float32)), jax.eval_shape(init, x)
    )
    return spec, {"params": params, **variables}, x


@functools.partial(jax.jit, static_argnums=0)
def computed(spec: ModelSpec, variables: dict, x, z, sigma) -> dict:
    vae = VAE(spec).bind(variables)
    posterior, likelihood = vae.encode(x), vae.decode(z, sigma)
    return {
        "mean": posterior.mean, "std": posterior.std, "image": likelihood.mean.reshape(len(x), -1),
        "distortion": -likelihood.log_prob(x)[:, None],
        "rate": posterior.rate_per_latent(vae.prior(), z).sum(axis=1, keepdims=True),
    }  # fmt: skip


def expected(spec: ModelSpec, variables: dict, x: np.ndarray, z: np.ndarray, sigma: float) -> list[dict]:
    """Of each image, by JAX."""
    found = computed(spec, variables, x, z, jnp.float32(sigma))
    return [{name: np.asarray(values[i]) for name, values in found.items()} for i in range(len(x))]


TELL = """
const [description, arrays, images, latents, logBetas] = arguments, store = arrays.map(Networks.unpack);
const model = new Networks.Model(description, (number) => store[number]);
return logBetas.map((logBeta) => {
  model.tell(logBeta);
  return images.map((x, i) => {
    const {mean, std} = model.encode(x);
    return {mean, std, image: Array.from(model.decode(latents[i]))};
  });
});
"""


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("told")])
def test_a_network_that_is_told_another_beta_is_what_jax_makes_of_it(browser, name):
    spec, variables, x = made(name)
    z = np.random.default_rng(1).normal(size=(len(x), spec.latents)).astype(np.float32)
    store = packing.Store(precise=True)
    described = store.tree(portable.describe(spec, variables, 0.3, 1.0))
    browser.get("about:blank")
    betas = np.log(np.array([0.06, 0.77, 1.0, 5.3], np.float32))  # none of them that of the description
    arguments = described, store.arrays, x.reshape(len(x), -1).tolist(), z.tolist(), betas.tolist()
    for log_beta, found in zip(betas, browser.execute_script(NETWORKS + TELL, *arguments), strict=True):
        theirs = expected(spec, conditioning.at(variables, jnp.asarray(log_beta)), x, z, 0.3)
        for ours, each in zip(found, theirs, strict=True):
            for quantity, values in ours.items():
                np.testing.assert_allclose(values, each[quantity], rtol=1e-5, atol=1e-5, err_msg=quantity)


@pytest.mark.parametrize("name", MODELS)
def test_the_page_evaluates_a_model_as_jax_does(browser, name):
    spec, variables, x = made(name)
    z = np.random.default_rng(1).normal(size=(len(x), spec.latents)).astype(np.float32)
    store = packing.Store(precise=True)
    described = store.tree(portable.describe(spec, variables, 0.3, 1.0))
    browser.get("about:blank")
    images = x.reshape(len(x), -1).tolist()
    found = browser.execute_script(NETWORKS + EVALUATE, described, store.arrays, images, z.tolist())
    for ours, theirs in zip(found, expected(spec, variables, x, z, 0.3), strict=True):
        for quantity, values in theirs.items():
            np.testing.assert_allclose(ours[quantity], values, rtol=1e-5, atol=1e-5, err_msg=quantity)


def test_weights_in_16_bits_give_images_that_agree(browser):
    spec, variables, x = made("as in MNIST")
    z = np.random.default_rng(1).normal(size=(len(x), spec.latents)).astype(np.float32)
    store = packing.Store(precise=False)
    described = store.tree(portable.describe(spec, variables, 1.0, 1.0))
    browser.get("about:blank")
    images = x.reshape(len(x), -1).tolist()
    found = browser.execute_script(NETWORKS + EVALUATE, described, store.arrays, images, z.tolist())
    for ours, theirs in zip(found, expected(spec, variables, x, z, 1.0), strict=True):
        np.testing.assert_allclose(ours["image"], theirs["image"], atol=1e-4)
        np.testing.assert_allclose(ours["mean"], theirs["mean"], atol=1e-3)


def test_a_deterministic_code_has_no_std_and_an_infinite_rate(browser):
    spec, variables, x = made("tanh")
    store = packing.Store(precise=True)
    described = store.tree(portable.describe(spec, variables, 1.0, 0.0))
    browser.get("about:blank")
    script = NETWORKS + EVALUATE.replace("[model.rate(posterior, z)]", "[String(model.rate(posterior, z))]")
    found = browser.execute_script(script, described, store.arrays, x.reshape(len(x), -1).tolist(), [[0, 0]] * len(x))
    assert [each["std"] for each in found] == [[0, 0]] * len(x)
    assert [each["rate"] for each in found] == [["Infinity"]] * len(x)


def test_a_network_of_another_kind_has_no_description():
    spec, variables, _ = made("tanh")
    assert portable.describe(ModelSpec(**vars(spec) | {"encoder": "graph"}), variables, 1.0, 1.0) is None
