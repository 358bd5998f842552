"""ONE run as a program: what is static (`RunSpec`), traced (`Hyperparams`), carried (`TrainState`), reported (`Metrics`).

`make_program(spec)` gives three pure functions; `runs.over_runs` makes them functions of many runs. `advance` is the
program of a chunk: epochs of steps, on the device, with the data resident there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Num

from vae_jax.core import keys, schema
from vae_jax.data import dataset as data
from vae_jax.models.vae import VAE, ModelSpec
from vae_jax.training import objectives, optimizers, schedules

# Of one run inside a program, with a leading runs axis outside, and whatever tree transformations put there.
Leaf = Any

COLDEST = 1e-3  # of the data's scale: the least sigma at the end of cooling


# What the networks compute in while training; parameters, moments, and all from their outputs on, are float32 anyway.
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long a run trains, on what batches, and when the host looks at it."""

    epochs: int = schema.field(300, "Passes over the training split.", low=1, high=10**7)
    batch_size: int = schema.field(128, "Images in a step; 0: the whole training split.", low=0, high=10**7)
    precision: str = schema.field(
        "float32",
        "Of the networks while training; parameters and losses stay float32.",
        choices=PRECISIONS,
        absent="float32",
    )
    data_devices: int = schema.field(
        1, "Devices that share the batch of each run, where a model is too large for one.", low=1, high=10**5, absent=1
    )
    chunk_epochs: int = schema.field(10, "Epochs between two looks of the host: a line of metrics each.", low=1, high=10**7)
    checkpoint_every: int = schema.field(0, "Epochs between checkpoints; 0: at the end only.", low=0, high=10**7)


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """Everything that shapes the program of a run: runs with equal specs share one compiled program."""

    model: ModelSpec
    images: data.ImageSpec
    train_size: int
    importance_samples: int
    batch_size: int
    epochs: int
    schedule: str
    b1: float
    b2: float
    eps: float
    objective: str = "weighted"
    schedules: tuple[tuple[str, str], ...] = ()  # of the weights that have one: (weight, schedule)
    cooling: float = 0.0  # part of the steps over which sigma is held above a bound that falls
    data_devices: int = 1  # that share the batch of a run
    precision: str = "float32"  # of the networks

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: what is left over differs in every epoch, because the order does."""
        return self.train_size // self.batch_size


@struct.dataclass
class Hyperparams:
    """What may differ between runs that share a program: every leaf is a number, traced."""

    seed: objectives.Number
    learning_rate: objectives.Number
    sigma: objectives.Number
    objective: objectives.Weights
    schedule_epochs: dict[str, objectives.Number] = struct.field(default_factory=dict)  # by weight


@struct.dataclass
class TrainState:
    """What is carried from step to step, and saved.

    `diverged_at` is the step whose loss or gradient was not finite first, -1 while there is none; from then on the state
    stays what it was before that step.
    """

    step: Leaf  # int32 []
    params: dict
    statistics: dict  # of the training data, where the model normalises; constant
    opt_state: optax.OptState
    diverged_at: Leaf  # int32 []
    carried: dict = struct.field(default_factory=dict)  # by the objective, from step to step

    @property
    def variables(self) -> dict:
        """What `VAE.bind` takes."""
        return {"params": self.params, "statistics": self.statistics}


@struct.dataclass
class Metrics:
    """Means over images, in nats; what is reported and not carried."""

    loss: Leaf  # float32 [], as all of them
    distortion: Leaf
    rate: Leaf
    mean_std: Leaf


@dataclasses.dataclass(frozen=True)
class Rows:
    """The part of a batch that one of `devices` devices along the mesh's axis "data" has: `count` rows.

    Each device differentiates the loss of the whole batch by way of its own rows; the mean of what they find is the
    gradient, because each of the `devices` equal losses hands its share back to every row.
    """

    devices: int = 1
    count: int = 0  # used where there are several devices

    def share(self, x: Float[Array, "batch *shape"]) -> Float[Array, "rows *shape"]:
        """This device's rows of a batch."""
        if self.devices == 1:
            return x
        return lax.dynamic_slice_in_dim(x, lax.axis_index("data") * self.count, self.count)

    def draw(self, key, shape: tuple[int, ...], dtype) -> Array:
        """`random.normal` for these rows, or for several draws of each one after another, as one device alone draws it."""
        if self.devices == 1:
            return random.normal(key, shape, dtype)
        whole = random.normal(key, (shape[0] // self.count, self.devices, self.count, *shape[1:]), dtype)
        return whole[:, lax.axis_index("data")].reshape(shape)

    def gather(self, terms: objectives.Terms) -> objectives.Terms:
        """The terms of the whole batch."""
        return terms if self.devices == 1 else terms.gathered("data")

    def mean(self, tree):
        """Over the devices: of their gradients it is the gradient."""
        return tree if self.devices == 1 else lax.pmean(tree, "data")


class Program(NamedTuple):
    """The three functions of one run.

    init(hyperparams, statistics) -> TrainState; statistics: of the training data
    step(state, hyperparams, x) -> (TrainState, Metrics): one update on images [batch, *shape] in [0, 1]
    advance(state, hyperparams, splits, epochs) -> (TrainState, {split: Metrics}): `epochs` (traced) passes over
      splits["train"]; metrics are means over those steps, and over splits["valid"] at their end
    """

    init: Callable
    step: Callable
    advance: Callable


def make_program(spec: RunSpec) -> Program:
    """The program of every run with this spec."""
    vae, objective = VAE(spec.model, PRECISIONS[spec.precision]), objectives.OBJECTIVES[spec.objective]
    rows = Rows(spec.data_devices, spec.batch_size // spec.data_devices)
    total_steps = spec.epochs * spec.steps_per_epoch

    def init(hyperparams: Hyperparams, statistics: dict) -> TrainState:
        key, x = keys.stream(hyperparams.seed, keys.Stream.INIT), jnp.zeros((1, *spec.model.shape))
        _, variables = VAE(spec.model).apply({"statistics": statistics}, x, rngs={"params": key}, mutable=["params"])
        params, zero = variables["params"], jnp.zeros((), jnp.int32)
        carried = jax.tree.map(jnp.float32, objective.carried)
        moments = optax.scale_by_adam().init(params)
        return TrainState(zero, params, statistics, moments, diverged_at=zero - 1, carried=carried)

    def loss_and_terms(params, state: TrainState, hyperparams: Hyperparams, x, key, prior_key, rows=Rows()):
        bound = vae.bind({"params": vae.cast(params), "statistics": state.statistics | _cooled(spec, state)})
        epoch = state.step.astype(jnp.float32) / spec.steps_per_epoch
        weights = schedules.scheduled(hyperparams.objective, spec.schedules, hyperparams.schedule_epochs, epoch)
        drawn = (key, weights.noise_scale, hyperparams.sigma, spec.importance_samples, rows.draw, rows.mean)
        terms = rows.gather(objectives.terms(bound, rows.share(x), *drawn))
        context = objectives.Context(bound.prior(), prior_key, spec.train_size, state.carried)
        loss, carried = objective.loss(terms, weights, context)
        return loss, (terms, carried)

    def step(state: TrainState, hyperparams: Hyperparams, x: Float[Array, "batch *shape"]):
        streams = (keys.stream(hyperparams.seed, name) for name in (keys.Stream.NOISE, keys.Stream.PRIOR))
        noise, prior = (keys.at(stream, state.step) for stream in streams)
        loss_of = jax.value_and_grad(loss_and_terms, has_aux=True)
        (loss, (terms, carried)), grads = loss_of(state.params, state, hyperparams, x, noise, prior, rows)
        grads = rows.mean(grads)
        alive = _is_finite(loss, grads) & (state.diverged_at < 0)
        progress = state.step.astype(jnp.float32) / total_steps
        rate = hyperparams.learning_rate * optimizers.DECAYS[spec.schedule](progress)
        direction, opt_state = _adam(spec, grads, state.opt_state, alive)
        params = jax.tree.map(lambda param, each: param - rate * each, state.params, direction)
        moved = TrainState(state.step + 1, params, state.statistics, opt_state, state.diverged_at, carried)
        return _freeze(alive, state, moved), _means(loss, terms, hyperparams)

    def epoch(state: TrainState, hyperparams: Hyperparams, pixels: Num[Array, "n *shape"]):
        number = state.step // spec.steps_per_epoch
        order = random.permutation(keys.at(keys.stream(hyperparams.seed, keys.Stream.ORDER), number), spec.train_size)
        order = order[: spec.steps_per_epoch * spec.batch_size].reshape(spec.steps_per_epoch, spec.batch_size)

        def body(carry, indices):
            state, total = carry
            key = keys.at(keys.stream(hyperparams.seed, keys.Stream.BITS), state.step)
            state, metrics = step(state, hyperparams, data.prepare(pixels[indices], spec.images, key))
            return (state, jax.tree.map(jnp.add, total, metrics)), None

        zero = Metrics(*(jnp.zeros(()) for _ in dataclasses.fields(Metrics)))
        (state, total), _ = lax.scan(body, (state, zero), order)
        return state, jax.tree.map(lambda value: value / spec.steps_per_epoch, total)

    def validate(state: TrainState, hyperparams: Hyperparams, x: Float[Array, "n *shape"]) -> Metrics:
        key = keys.at(keys.stream(hyperparams.seed, keys.Stream.VALID), state.step)
        # In batches about as large as those of training, which some losses depend on; none is smaller.
        total = len(x)
        count = max(total // spec.batch_size, 1)
        size, longer = divmod(total, count)

        def of_batch(args):
            number, x = args
            own = keys.at(key, number)
            loss, (terms, _) = loss_and_terms(state.params, state, hyperparams, x, keys.at(own, 0), keys.at(own, 1))
            return jax.tree.map(lambda mean: mean * (len(x) / total), _means(loss, terms, hyperparams))

        metrics = []
        # The first `longer` batches have one image more.
        for first, last, start, width in ((0, longer, 0, size + 1), (longer, count, longer * (size + 1), size)):
            if last > first:
                images = x[start : start + (last - first) * width].reshape(last - first, width, *x.shape[1:])
                shares = lax.map(of_batch, (jnp.arange(first, last), images))
                metrics.append(jax.tree.map(jnp.sum, shares))
        return jax.tree.map(lambda *parts: sum(parts), *metrics)

    def advance(state: TrainState, hyperparams: Hyperparams, splits: dict, epochs: Int[Array, ""]):
        def body(_, carry):
            state, total = carry
            state, metrics = epoch(state, hyperparams, splits["train"])
            return state, jax.tree.map(jnp.add, total, metrics)

        zero = Metrics(*(jnp.zeros(()) for _ in dataclasses.fields(Metrics)))
        state, total = lax.fori_loop(0, epochs, body, (state, zero))
        metrics = {"train": jax.tree.map(lambda value: value / epochs.astype(jnp.float32), total)}
        if "valid" in splits:
            metrics["valid"] = validate(state, hyperparams, splits["valid"])
        return state, metrics

    return Program(init, step, advance)


def _cooled(spec: RunSpec, state: TrainState) -> dict:
    """The least log sigma of this step, where the spec cools: from the scale of the data down to COLDEST of it.

    Latents are then won one by one, from the direction of largest variance on. With a small sigma from the start several of
    them share one direction, and to part them is a slow turn against a steep likelihood (annealing as in Rose 1998).
    """
    if not spec.cooling:
        return {}
    time = state.step.astype(jnp.float32) / (spec.cooling * spec.epochs * spec.steps_per_epoch)
    least = jnp.log(state.statistics["scale"]) + time * jnp.log(COLDEST)
    return {"least_log_sigma": jnp.where(time < 1, least, -jnp.inf)}


def _means(loss: Float[Array, ""], terms: objectives.Terms, hyperparams: Hyperparams) -> Metrics:
    """What is reported of a batch: a deterministic code has std 0 and infinite rate, whatever its log_var says."""
    noise_scale = hyperparams.objective.noise_scale
    rate = jnp.where(noise_scale > 0, jnp.mean(terms.rate), jnp.inf)
    return Metrics(loss, jnp.mean(terms.distortion), rate, noise_scale * jnp.mean(terms.posterior.std))


def _is_finite(loss: Float[Array, ""], grads: dict) -> Bool[Array, ""]:
    """Whether the loss and the gradient are finite, and its squares, which Adam keeps.

    By the squared norm of the column sums: what is not finite stays so in a sum, and sums of columns read the gradient
    once, where its squares would be written and read again.
    """
    return jnp.isfinite(loss + sum(jnp.sum(jnp.square(jnp.sum(jnp.atleast_1d(g), axis=0))) for g in jax.tree.leaves(grads)))


def _adam(spec: RunSpec, grads: dict, before: optax.ScaleByAdamState, alive: Bool[Array, ""]):
    """The direction of `optax.scale_by_adam`, and its state after the step, or that before it where `alive` is false.

    Written out, because a step of a wide network takes as long to move memory as to compute. The direction is made from
    moments that are frozen already, so XLA keeps no copy of them, and with one division (Kingma & Ba 2015, section 2).
    """

    def moment(decay: float, moments: dict, values: dict) -> dict:
        return jax.tree.map(lambda m, value: jnp.where(alive, decay * m + (1 - decay) * value, m), moments, values)

    mu, nu = moment(spec.b1, before.mu, grads), moment(spec.b2, before.nu, jax.tree.map(jnp.square, grads))
    count = jnp.where(alive, before.count + 1, before.count)
    root = jnp.sqrt(1 - spec.b2 ** count.astype(jnp.float32))
    scale, eps = root / (1 - spec.b1 ** count.astype(jnp.float32)), spec.eps * root
    direction = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
    return direction, optax.ScaleByAdamState(count, mu, nu)


def _freeze(alive: Bool[Array, ""], before: TrainState, after: TrainState) -> TrainState:
    """`after`, or for a run that has left the finite numbers, `before` with the clock going on."""
    params, carried = jax.tree.map(
        lambda new, old: jnp.where(alive, new, old), (after.params, after.carried), (before.params, before.carried)
    )
    first = jnp.where(alive | (before.diverged_at >= 0), before.diverged_at, before.step)
    return dataclasses.replace(after, params=params, carried=carried, diverged_at=first)
