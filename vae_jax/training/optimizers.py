"""Optimizers by name, from optax. Learning rate, weight decay and clipping are traced: runs may differ in them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from vae_jax.core import schema
from vae_jax.core.registry import Registry

# Factor on the learning rate, from progress in [0, 1] through training.
DECAYS = Registry(
    "decay of the learning rate",
    {
        "constant": jnp.ones_like,
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 + 0.5 * jnp.cos(jnp.pi * progress),
        "exponential": lambda progress: jnp.exp(-jnp.log(1e4) * progress),  # to 1e-4: as long at every scale
    },
)

OPTIMIZERS: Registry["Optimizer"] = Registry("optimizer")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the learning rate over training."""

    name: str = schema.field("adam", "Which optimizer.", choices=OPTIMIZERS, absent="adam")
    learning_rate: float = schema.field(3e-3, "Step size.", low=schema.POSITIVE, high=1e6, traced=True)
    schedule: str = schema.field("cosine", "Decay of the learning rate over training.", choices=DECAYS)
    warmup_epochs: float = schema.field(
        0.0, "Epochs over which the learning rate rises from 0, beside its decay.", low=0, high=1e7, absent=0.0
    )
    b1: float = schema.field(0.9, "Decay of the first moment.", low=0, high=1 - 1e-7)
    b2: float = schema.field(0.999, "Decay of the second moment (also of rmsprop).", low=0, high=1 - 1e-7)
    eps: float = schema.field(1e-8, "Added to the root of the second moment.", low=schema.POSITIVE, high=1.0)
    momentum: float = schema.field(0.9, "Momentum of sgd and muon.", low=0, high=1 - 1e-7, absent=0.9)
    weight_decay: float = schema.field(
        0.0,
        "Weight decay of every parameter: added to the update by adamw, lion and muon, to the gradient (L2) by others.",
        low=0,
        high=1e6,
        traced=True,
        absent=0.0,
    )
    clip_norm: float = schema.field(
        0.0, "The gradient is scaled down to at most this norm; 0: no limit.", low=0, high=1e9, traced=True, absent=0.0
    )
    ema: float = schema.field(
        0.0,
        "Decay of an average of the parameters, which is what is evaluated; 0: the last parameters are.",
        low=0,
        high=1 - 1e-7,
        absent=0.0,
    )


# A variable of its own, because a type checker takes no call for a base class.
_NUMBERS: Any = schema.numbers(OptimizerConfig)


@struct.dataclass
class Rates(_NUMBERS):
    """The traced fields of `OptimizerConfig`, each a number."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer of optax, or of a file of one's own.

    Attributes:
      build: from a config to the transformation at a learning rate of 1 and without weight decay: the step adds the
        learning rate times what it gives to the parameters.
      decoupled: whether weight decay is added to the update (Loshchilov & Hutter 2019); if not, to the gradient.
      freezes: whether its update takes `alive` and leaves its own state as it was where a step does not count.
    """

    build: Callable[[OptimizerConfig], optax.GradientTransformation]
    decoupled: bool = False
    freezes: bool = False


def static(config: OptimizerConfig) -> OptimizerConfig:
    """`config` without its traced numbers, except that weight_decay and clip_norm say whether there is any (1 or 0)."""
    return dataclasses.replace(
        schema.static(config), weight_decay=float(config.weight_decay > 0), clip_norm=float(config.clip_norm > 0)
    )


def updates(
    config: OptimizerConfig, rates: Rates, grads: dict, state: optax.OptState, params: dict, alive: Bool[Array, ""]
) -> tuple[dict, optax.OptState]:
    """What is added to the parameters at a learning rate of 1, and the optimizer's state after the step.

    Args:
      config: from `static`.
      rates: traced.
      grads: of the loss.
      state: of the optimizer.
      params: before the step.
      alive: whether the step counts; an optimizer that takes it need not be frozen afterwards.
    """
    optimizer = OPTIMIZERS[config.name]
    if config.clip_norm:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(grad)) for grad in jax.tree.leaves(grads)))
        factor = jnp.minimum(1.0, rates.clip_norm / norm)
        grads = jax.tree.map(lambda grad: factor * grad, grads)
    if config.weight_decay and not optimizer.decoupled:
        grads = jax.tree.map(lambda grad, param: grad + rates.weight_decay * param, grads, params)
    transformation = optax.with_extra_args_support(optimizer.build(config))
    # Optax adds Python and NumPy numbers to float32 arrays, which the strict mode of the tests refuses.
    with jax.numpy_dtype_promotion("standard"):
        found, state = transformation.update(grads, state, params, alive=alive)
    if config.weight_decay and optimizer.decoupled:
        found = jax.tree.map(lambda update, param: update - rates.weight_decay * param, found, params)
    return found, state


def learning_rate(config: OptimizerConfig, rates: Rates, step: Float[Array, ""], steps_per_epoch: int, epochs: int):
    """The learning rate of one step, after warm-up and decay."""
    rate = rates.learning_rate * DECAYS[config.schedule](step / (epochs * steps_per_epoch))
    if config.warmup_epochs:
        rate = rate * jnp.minimum(1.0, (step + 1) / (config.warmup_epochs * steps_per_epoch))
    return rate


def averaged(config: OptimizerConfig, average: dict, params: dict, step: Float[Array, ""]) -> dict:
    """The moving average of the parameters after one more step; in early steps of fewer (Polyak & Juditsky 1992)."""
    # As in TensorFlow's ExponentialMovingAverage: the initial parameters are forgotten within some ten steps.
    decay = jnp.minimum(config.ema, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)


def adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """The updates and the state of `optax.adam(1.0)`, in fewer passes over memory (Kingma & Ba 2015, section 2).

    A step of a wide network takes as long to move memory as to compute. The moments are frozen here where the step does
    not count, before the update is made from them, so XLA keeps no copy of them; and there is one division.
    """

    def update(grads, state, params=None, *, alive=True):
        def moment(decay: float, moments: dict, values: dict) -> dict:
            return jax.tree.map(lambda m, value: jnp.where(alive, decay * m + (1 - decay) * value, m), moments, values)

        mu, nu = moment(config.b1, state.mu, grads), moment(config.b2, state.nu, jax.tree.map(jnp.square, grads))
        count = jnp.where(alive, state.count + 1, state.count)
        root = jnp.sqrt(1 - config.b2 ** count.astype(jnp.float32))
        scale, eps = root / (1 - config.b1 ** count.astype(jnp.float32)), config.eps * root
        found = jax.tree.map(lambda m, v: -(scale * m / (jnp.sqrt(v) + eps)), mu, nu)
        return found, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam().init, update)


def muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Muon for the kernels of dense layers, Adam for all else (Jordan et al. 2024)."""
    settings = {"beta": config.momentum, "eps": config.eps, "adam_b1": config.b1, "adam_b2": config.b2}
    return optax.contrib.muon(1.0, **settings)


OPTIMIZERS.update(
    {
        "adam": Optimizer(adam, freezes=True),
        "adamw": Optimizer(adam, decoupled=True, freezes=True),
        "sgd": Optimizer(lambda config: optax.sgd(1.0, config.momentum)),
        "rmsprop": Optimizer(lambda config: optax.rmsprop(1.0, config.b2, config.eps)),
        "adamax": Optimizer(lambda config: optax.adamax(1.0, config.b1, config.b2, config.eps)),
        "lion": Optimizer(lambda config: optax.lion(1.0, config.b1, config.b2, weight_decay=0.0), decoupled=True),
        "muon": Optimizer(muon, decoupled=True),
    }
)
