"""A training step of convolutional networks: how it is lowered for each platform, that the numbers agree, half precision."""

import functools
import re

import jax
import numpy as np
import pytest
from support import random_state

from vae_jax.data.dataset import ImageSpec
from vae_jax.models import conv
from vae_jax.models.vae import ModelSpec
from vae_jax.training.optimizers import OptimizerConfig
from vae_jax.training.state import Hyperparams, RunSpec, TrainConfig
from vae_jax.training.step import Program

SHAPE = (9, 8, 3)  # odd and even, in colour
BATCH = np.random.default_rng(0).random((4, *SHAPE), np.float32)
PAIRS = [("conv", "resnet"), ("resnet", "conv")]  # each network on each side


def spec(pair: tuple[str, str], precision: str = "float32") -> RunSpec:
    encoder, decoder = pair
    model = ModelSpec(shape=SHAPE, encoder=encoder, decoder=decoder, hidden=(3, 5), sigma="", normalize="none")
    train = TrainConfig(epochs=1, batch_size=len(BATCH), precision=precision)
    # An eps that makes a step smooth in the gradient.
    return RunSpec(model, ImageSpec(SHAPE, 255, False), len(BATCH), optimizer=OptimizerConfig(eps=1e-2), train=train)


@functools.cache
def arguments(of: RunSpec) -> tuple:
    return random_state(of, Hyperparams(np.int32(0)), {}), Hyperparams(np.int32(0)), BATCH


def traced(of: RunSpec):
    """A step."""
    program = Program(of)
    return jax.jit(lambda *args: program.step(*args)).trace(*arguments(of))


traced_once = functools.cache(traced)


@functools.cache
def on_cpu(of: RunSpec):
    """A step, lowered for this CPU; once for all tests."""
    return traced_once(of).lower()


def stepped(of: RunSpec, lowered):
    """State and metrics after a step, on this CPU."""
    return jax.device_get(lowered.compile()(*arguments(of)))


@functools.cache
def whole(pair: tuple[str, str]):
    """The same in float32, by the program of a CPU; compiled once for all tests."""
    return stepped(spec(pair), on_cpu(spec(pair)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_step_is_products_on_a_cpu_and_convolutions_on_a_gpu(pair, precision):
    of = spec(pair, precision)
    step = traced_once(of)
    assert "stablehlo.convolution" not in on_cpu(of).as_text()
    text = step.lower(lowering_platforms=("cuda",)).as_text()
    results = re.findall(r"= stablehlo\.convolution.*-> tensor<[\dx]*x(\w+)>", text)
    assert set(results) == {"f32" if precision == "float32" else "bf16"}
    # Each convolution, and its gradients by the kernel and, but for the first of the encoder, by what it reads.
    kernels = [leaf for leaf in jax.tree.leaves(arguments(of)[0].params) if np.ndim(leaf) == 4]
    assert len(results) == 3 * len(kernels) - 1


@pytest.mark.parametrize("pair", PAIRS)
def test_a_step_of_both_programs_has_the_same_numbers(pair, monkeypatch):
    ours = whole(pair)
    for layer in (conv.Conv, conv.ConvTranspose):
        monkeypatch.setattr(layer, "on_cpu", staticmethod(layer.elsewhere))
    theirs = stepped(spec(pair), traced(spec(pair)).lower())  # anew
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        # Parameters of size 0.05, moved by 0.001; the loss is a sum over 216 pixels.
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_step_in_half_precision_is_near(pair):
    of = spec(pair, "bfloat16")
    (state, half), (_, exact) = stepped(of, on_cpu(of)), whole(pair)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, half))} == {np.dtype(np.float32)}
    # Eight bits of mantissa in logits of size one, averaged over pixels and images.
    np.testing.assert_allclose(half.loss, exact.loss, rtol=2e-3)
    assert half.loss != exact.loss
