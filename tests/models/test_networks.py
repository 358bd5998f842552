"""Encoders and decoders: the convolutions are Linen's, shapes and parameter counts are as said."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, random

from configs import sprites_published
from vae_jax.models import conv, dense, networks, resnet, vae

# Ours and Linen's: 4x4 kernels of stride 2, padding SAME.
PAIRS = {
    "conv": (conv.Conv(3), nn.Conv(3, (4, 4), (2, 2), padding="SAME")),
    "transposed": (conv.ConvTranspose(3), nn.ConvTranspose(3, (4, 4), (2, 2), padding="SAME")),
}


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.float32(np.random.default_rng(0).normal(size=shape)))


def filled(module, x) -> dict:
    """Variables of a module without its `init`, whose draws take seconds to compile."""
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, random.key(0), x)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape) / 2, leaf.dtype), shapes)


def assert_close(actual, expected):
    """Two float32 sums in different orders: 1e-5 of the largest of them (the longest has 2,312 terms; eps is 1.2e-7)."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (28, 28), (33, 33), (8, 9), (1, 2)])
def test_convolution_is_linens(kind, size):
    mine, theirs = PAIRS[kind]
    x = images(2, *size, 2)
    assert jax.eval_shape(mine.init, random.key(0), x) == jax.eval_shape(theirs.init, random.key(0), x)
    # A bias of zeros would hide where it is added.
    variables = {"params": {"kernel": images(4, 4, 2, 3), "bias": jnp.array([0.5, -1.0, 2.0])}}
    cotangent = images(*jax.eval_shape(theirs.apply, variables, x).shape)

    @jax.jit
    def outputs_and_gradients(variables, x):
        pairs = [jax.vjp(module.apply, variables, x) for module in (mine, theirs)]
        return [(output, pull_back(cotangent)) for output, pull_back in pairs]

    assert_close(*outputs_and_gradients(variables, x))


@pytest.mark.parametrize("kind", PAIRS)
def test_the_platform_chooses_how_to_convolve(kind):
    mine, theirs = PAIRS[kind]
    x = images(2, 8, 8, 2)
    variables = jax.eval_shape(theirs.init, random.key(0), x)

    def program(module, platform: str) -> str:
        gradient = jax.jit(jax.grad(lambda v, x: jnp.sum(jnp.square(module.apply(v, x))), argnums=(0, 1)))
        return export.export(gradient, platforms=[platform])(variables, x).mlir_module()

    # Lowered for a CPU there are products alone, for a GPU convolutions alone; the parameters are the same.
    assert "stablehlo.convolution" in program(theirs, "cpu")
    assert "stablehlo.convolution" not in program(mine, "cpu")
    assert "stablehlo.dot_general" in program(mine, "cpu")
    for platform in ("cuda", "tpu"):
        assert "stablehlo.convolution" in program(mine, platform)
        assert "stablehlo.dot_general" not in program(mine, platform)


OTHERS = [(1, 1), (3, 1), (3, 2), (5, 2), (2, 3), (4, 3), (5, 1)]


@pytest.mark.parametrize(("kernel", "stride"), OTHERS)
@pytest.mark.parametrize("size", [(8, 9), (13, 8)])
def test_other_kernels_and_strides_are_linens(kernel, stride, size):
    x, variables = images(2, *size, 2), {"params": {"kernel": images(kernel, kernel, 2, 3), "bias": images(3)}}
    mine = conv.Conv(3, kernel, stride), conv.ConvTranspose(3, kernel, stride)
    theirs = (kind(3, (kernel, kernel), (stride, stride), padding="SAME") for kind in (nn.Conv, nn.ConvTranspose))
    outputs = jax.jit(lambda variables, x: [module.apply(variables, x) for module in (*mine, *theirs)])(variables, x)
    assert_close(outputs[:2], outputs[2:])


@pytest.mark.parametrize("kind", PAIRS)
def test_both_ways_to_convolve_agree(kind):
    """What runs on a CPU and what is lowered for others, on the CPU."""
    module, x, kernel = PAIRS[kind][0], images(2, 9, 8, 2), images(4, 4, 2, 3)

    def gradients(way):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.square(way(x, kernel, 2))), argnums=(0, 1)))(x, kernel)

    assert_close(*(jax.jit(way, static_argnums=2)(x, kernel, 2) for way in (module.on_cpu, module.elsewhere)))
    assert_close(gradients(module.on_cpu), gradients(module.elsewhere))


@pytest.mark.parametrize(("kernel", "stride"), [((3,), (1,)), ((5, 3), (2, 1)), ((3, 4), (3, 2))])
@pytest.mark.parametrize("shape", [(8, 12, 1), (17, 9, 3)])
def test_layers_of_their_own(kernel, stride, shape):
    encoder = conv.ConvEncoder((4, 6, 10), 3, "tanh", kernel, stride)
    decoder = conv.ConvDecoder((10, 6, 4), shape, "tanh", kernel, stride)
    (mean, _), variables = jax.eval_shape(encoder.init_with_output, random.key(0), images(5, *shape))
    assert mean.shape == (5, 3)
    kernels = [variables["params"][f"Conv_{layer}"]["kernel"].shape[0] for layer in range(2)]
    assert tuple(kernels) == kernel * (2 // len(kernel))
    output, _ = jax.eval_shape(decoder.init_with_output, random.key(0), images(5, 3))
    assert output.shape == (5, *shape)


def test_initial_weights_are_lecuns():
    kernel = jax.jit(conv.Conv(200).init)(random.key(0), images(1, 2, 2, 1))["params"]["kernel"]
    # Variance 1 / fan_in = 1 / 16. The relative standard error of a variance of n normals is sqrt(2 / n); 5 of them.
    assert abs(jnp.var(kernel) * 16 - 1) < 5 * np.sqrt(2 / kernel.size)


SHAPES = [(8, 8, 1), (9, 9, 3), (28, 28, 1), (12, 20, 3), (12,)]
NAMES = [
    (name, shape)
    for name, shape in itertools.product(networks.ENCODERS, SHAPES)
    if len(shape) == 3 or name not in ("conv", "resnet")
]


@pytest.mark.parametrize(("name", "shape"), NAMES)
def test_shapes(name, shape):
    encoder = networks.ENCODERS[name]((4, 6, 10), 3)
    decoder = networks.DECODERS[name]((10, 6, 4), shape)
    x = images(5, *shape)
    (mean, log_var), _ = jax.eval_shape(encoder.init_with_output, random.key(0), x)
    assert mean.shape == log_var.shape == (5, 3)
    output, _ = jax.eval_shape(decoder.init_with_output, random.key(0), images(5, 3))
    assert output.shape == (5, *shape)
    assert {leaf.dtype for leaf in (mean, log_var, output)} == {np.dtype(np.float32)}


def count(module, *shape: int) -> int:
    variables = jax.eval_shape(module.init, random.key(0), images(1, *shape))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables))


def test_parameter_counts():
    # Weights and biases of each layer: 64 pixels, widths 20 and 10, 3 latents.
    assert count(dense.MLPEncoder((20, 10), 3), 8, 8, 1) == (64 * 20 + 20) + (20 * 10 + 10) + (10 * 6 + 6)
    assert count(dense.MLPDecoder((10, 20), (8, 8, 1)), 3) == (3 * 10 + 10) + (10 * 20 + 20) + (20 * 64 + 64)
    assert count(dense.MLPEncoder((), 3), 12) == 12 * 6 + 6
    # W and c, and one log_var per latent.
    assert count(dense.LinearEncoder((20,), 3), 8, 8, 1) == (64 * 3 + 3) + 3
    assert count(dense.LinearDecoder((20,), (8, 8, 1)), 3) == 3 * 64 + 64
    # 8x8x1 -> 4x4x5 -> 2x2x7, then 28 -> 10 -> 6, and back; kernels are 4x4.
    encoder = (16 * 1 * 5 + 5) + (16 * 5 * 7 + 7) + (28 * 10 + 10) + (10 * 6 + 6)
    assert count(conv.ConvEncoder((5, 7, 10), 3), 8, 8, 1) == encoder
    decoder = (3 * 10 + 10) + (10 * 28 + 28) + (16 * 7 * 5 + 5) + (16 * 5 * 1 + 1)
    assert count(conv.ConvDecoder((10, 7, 5), (8, 8, 1)), 3) == decoder


BY_HAND = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
def test_mlp_is_what_it_says(activation):
    generator = np.random.default_rng(1)
    x, (a, b), (c, d) = (
        generator.normal(size=(3, 2, 2, 1)),
        *([generator.normal(size=s) for s in shapes] for shapes in (((4, 5), (5,)), ((5, 4), (4,)))),
    )
    params = {"Dense_0": {"kernel": a, "bias": b}, "Dense_1": {"kernel": c, "bias": d}}
    params = jax.tree.map(lambda leaf: jnp.asarray(np.float32(leaf)), params)
    found = jax.jit(dense.MLPEncoder((5,), 2, activation).apply)({"params": params}, jnp.asarray(np.float32(x)))
    expected = BY_HAND[activation](x.reshape(3, 4) @ a + b) @ c + d
    # float32 against float64: inputs and parameters rounded, then two sums of 4 and 5 terms of size up to 10.
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_an_activation_after_each_hidden_layer(name):
    hidden = (4, 6, 10)
    for module, x in (
        (networks.ENCODERS[name](hidden, 2, "tanh"), images(1, 8, 8, 1)),
        (networks.DECODERS[name](hidden, (8, 8, 1), "tanh"), images(1, 2)),
    ):
        variables = jax.eval_shape(module.init, random.key(0), x)
        assert str(jax.make_jaxpr(module.apply)(variables, x)).count("= tanh ") == len(hidden)


def test_linear_networks_are_linear_and_share_one_log_var():
    encoder, x, y = dense.LinearEncoder((), 3), images(4, 2, 2, 1), 2 * images(4, 2, 2, 1)[::-1]
    variables = filled(encoder, x)
    (a, log_var), (b, _), (both, _), (zero, _) = (jax.jit(encoder.apply)(variables, z) for z in (x, y, x + y, 0 * x))
    np.testing.assert_allclose(both, a + b - zero, atol=2e-5)  # sums of 4 terms of size up to 10: 20 eps of that
    # One learned number per latent, whatever the image, of either sign.
    np.testing.assert_array_equal(log_var, np.tile(log_var[:1], (4, 1)))
    _, doubled = jax.jit(encoder.apply)(
        {"params": variables["params"] | {"log_var": -2 * variables["params"]["log_var"]}}, y
    )
    np.testing.assert_array_equal(doubled, -2 * log_var)
    assert np.all(log_var != 0)
    decoder, z = dense.LinearDecoder((), (2, 2, 1)), images(4, 3)
    variables = filled(decoder, z)
    once, twice, zero = (jax.jit(decoder.apply)(variables, k * z) for k in (1, 2, 0))
    np.testing.assert_allclose(twice, 2 * once - zero, atol=1e-5)


@pytest.mark.parametrize("name", networks.ENCODERS)
def test_images_of_a_batch_do_not_meet(name):
    encoder, x = networks.ENCODERS[name]((4, 6), 2), images(3, 8, 8, 1)
    variables = filled(encoder, x)

    def of_first(x):
        return sum(jnp.sum(output[0]) for output in encoder.apply(variables, x))

    gradient = jax.jit(jax.grad(of_first))(x)
    assert np.all(gradient[1:] == 0)
    assert np.any(gradient[0] != 0)


@pytest.mark.parametrize("channels", [8, 12, 3])
def test_group_normalisation_is_linens(channels):
    mine, theirs = resnet.GroupNorm(), nn.GroupNorm(np.gcd(8, channels).item())
    x, params = 3 * images(2, 5, 4, channels) + 1, {"scale": images(channels), "bias": images(channels) - 1}
    assert_close(jax.jit(mine.apply)({"params": params}, x), jax.jit(theirs.apply)({"params": params}, x))


def test_a_block_starts_from_its_input():
    """With its last convolution at zero it is the identity, or where the shape changes the 1x1 convolution."""
    x = images(2, 8, 8, 4)
    block = resnet.Block(4, "relu")
    variables = filled(block, x)
    assert set(variables["params"]) == {"GroupNorm_0", "Conv_0", "GroupNorm_1", "Conv_1"}
    variables["params"]["Conv_1"] = jax.tree.map(jnp.zeros_like, variables["params"]["Conv_1"])
    np.testing.assert_array_equal(jax.jit(block.apply)(variables, x), x)
    smaller = resnet.Block(6, "relu", stride=2)
    assert jax.eval_shape(smaller.apply, filled(smaller, x), x).shape == (2, 4, 4, 6)


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_bfloat16(network):
    """What such a network computes in half precision is what it computes in whole, to 8 bits of its mantissa."""
    encoder, x = networks.ENCODERS[network]((4, 6, 10), 3, "tanh"), images(4, 12, 10, 3)
    variables = filled(encoder, x)
    apply = jax.jit(lambda variables, x: jnp.concatenate(encoder.apply(variables, x)))
    whole = apply(variables, x)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (variables, x))
    half = apply(*low)
    assert half.dtype == jnp.bfloat16
    assert np.abs(np.asarray(half, np.float32) - whole).max() < 0.1 * np.abs(whole).max()


def shapes_of(**settings) -> dict:
    """The shapes of the parameters of both networks of a model."""
    spec = vae.ModelSpec(**{"shape": (12, 8, 1), "sigma": ""} | settings)
    encoder, decoder = networks.encoder(vars(spec)), networks.decoder(vars(spec), spec.shape)
    x, z = images(1, *spec.shape), images(1, spec.latents)
    found = {"encoder": jax.eval_shape(encoder.init, random.key(0), x)}
    found["decoder"] = jax.eval_shape(decoder.init, random.key(0), z)
    return jax.tree.map(lambda leaf: leaf.shape, found, is_leaf=lambda leaf: hasattr(leaf, "shape"))


def test_a_decoder_is_the_mirror_of_the_encoder_unless_it_has_layers_of_its_own():
    conv_both = {"encoder": "conv", "decoder": "conv", "hidden": (4, 6, 10), "kernel": (3, 5), "stride": (1, 2)}
    mirror = shapes_of(**conv_both)
    as_it_is = {"decoder_hidden": (4, 6, 10), "decoder_kernel": (3, 5), "decoder_stride": (1, 2)}
    assert shapes_of(**conv_both, **as_it_is) == mirror
    own = shapes_of(**conv_both, decoder_hidden=(5, 7, 9), decoder_kernel=(2, 4), decoder_stride=(3, 1))
    assert own["encoder"] == mirror["encoder"]
    decoder = own["decoder"]["params"]
    assert decoder["MLPDecoder_0"]["Dense_1"]["kernel"] == (9, 4 * 3 * 7)
    # From the image inwards: kernels 2 and 4; the last layer makes the image.
    assert decoder["ConvTranspose_0"]["kernel"] == (4, 4, 7, 5)
    assert decoder["ConvTranspose_1"]["kernel"] == (2, 2, 5, 1)


def test_a_decoder_may_have_another_activation():
    model = vars(vae.ModelSpec(activation="relu", decoder_activation="elu", shape=(4,)))
    assert (networks.encoder(model).activation, networks.decoder(model, (4,)).activation) == ("relu", "elu")
    model = vars(vae.ModelSpec(activation="relu", shape=(4,)))
    assert networks.decoder(model, (4,)).activation == "relu"


def test_the_published_networks_of_sprites():
    """Those of Locatello et al. 2019, as their disentanglement_lib builds them."""
    model = sprites_published.get_config().model.to_dict() | {"shape": (64, 64, 1)}
    found = shapes_of(**model | {"sigma": ""})
    encoder, decoder = found["encoder"]["params"], found["decoder"]["params"]
    assert [encoder[f"Conv_{i}"]["kernel"] for i in range(4)] == [
        (4, 4, 1, 32), (4, 4, 32, 32), (2, 2, 32, 64), (2, 2, 64, 64)
    ]  # fmt: skip
    assert [encoder["MLPEncoder_0"][f"Dense_{i}"]["kernel"] for i in range(2)] == [(1024, 256), (256, 20)]
    assert [decoder["MLPDecoder_0"][f"Dense_{i}"]["kernel"] for i in range(2)] == [(10, 256), (256, 1024)]
    assert [decoder[f"ConvTranspose_{i}"]["kernel"] for i in range(4)] == [
        (4, 4, 64, 64), (4, 4, 64, 32), (4, 4, 32, 32), (4, 4, 32, 1)
    ]  # fmt: skip
