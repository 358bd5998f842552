"""One run as a program: its first state, a step, an epoch, a chunk of epochs.

The methods of `Program` are pure functions of one run; `runs.over_runs` makes them functions of many runs. `advance` is
the program of a chunk: epochs of steps, on the device, with the data resident there. `advance_on` is that of a block of
batches, where the data do not fit there; its steps are the same.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, Num

from vae_jax.core import keys, registry
from vae_jax.data import dataset
from vae_jax.models.vae import VAE
from vae_jax.system import runs
from vae_jax.training import objectives, optimizers, schedules
from vae_jax.training.objectives import Number
from vae_jax.training.rows import WHOLE, Rows
from vae_jax.training.state import PRECISIONS, Hyperparams, Metrics, Partway, RunSpec, TrainState


class Draws(NamedTuple):
    """The keys of what is drawn in a step."""

    noise: Key[Array, ""]  # epsilon of the reparameterisation
    prior: Key[Array, ""]  # samples of the prior, for some objectives
    beta: Key[Array, ""]  # of each image, where the networks are told it


@dataclasses.dataclass(frozen=True)
class Program:
    """The functions of one run with this spec; equal specs make equal programs (see `program_of`)."""

    spec: RunSpec
    _mapped: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def over_runs(self, name: str, mesh: Mesh, **options) -> runs.OverRuns:
        """The method of that name for many runs: `runs.over_runs`, made once for each mesh and set of options."""
        key = name, mesh, *options.items()
        if key not in self._mapped:
            # `init` is called once, and has the same bits so.
            self._mapped[key] = runs.over_runs(getattr(self, name), mesh, briefly=name == "init", **options)
        return self._mapped[key]

    @functools.cached_property
    def vae(self) -> VAE:
        """The network as it is trained: in the precision of the spec."""
        return VAE(self.spec.model, PRECISIONS[self.spec.train.precision])

    @property
    def rows(self) -> Rows:
        """The part of a batch that a device has."""
        devices = self.spec.train.data_devices
        return Rows(devices, self.spec.batch_size // devices)

    def init(self, hyperparams: Hyperparams, statistics: dict) -> TrainState:
        """The state before the first step; `statistics` are those of the training data."""
        spec = self.spec
        if spec.model.conditioning == "beta":
            # The beta of the evaluation; in training each image has its own.
            weights = hyperparams.objective
            statistics = statistics | {"log_beta": jnp.log(weights.beta), "lowest_log_beta": jnp.log(weights.beta_low)}
        key, x = keys.stream(hyperparams.seed, keys.Stream.INIT), jnp.zeros((1, *spec.model.shape))
        _, variables = VAE(spec.model).apply({"statistics": statistics}, x, rngs={"params": key}, mutable=["params"])
        params, zero = variables["params"], jnp.zeros((), jnp.int32)
        carried = jax.tree.map(jnp.float32, objectives.OBJECTIVES[spec.objective.kind].carried)
        opt_state = optimizers.OPTIMIZERS[spec.optimizer.name].build(spec.optimizer).init(params)
        average = params if spec.optimizer.ema else {}
        return TrainState(zero, params, statistics, opt_state, diverged_at=zero - 1, carried=carried, average=average)

    def step(
        self, state: TrainState, hyperparams: Hyperparams, x: Float[Array, "batch *shape"]
    ) -> tuple[TrainState, Metrics]:
        """One update on a batch of images in [0, 1]; a step that is not finite leaves the run as it was, for good."""
        spec, rows = self.spec, self.rows
        streams = (keys.Stream.NOISE, keys.Stream.PRIOR, keys.Stream.BETA)
        drawn = Draws(*(keys.at(keys.stream(hyperparams.seed, name), state.step) for name in streams))
        differentiated = jax.value_and_grad(self.loss, has_aux=True)
        (loss, (metrics, carried)), grads = differentiated(state.params, state, hyperparams, x, drawn, rows)
        grads = rows.mean(grads)
        alive = is_finite(loss, grads) & (state.diverged_at < 0)
        step = state.step.astype(jnp.float32)
        updates, opt_state = optimizers.updates(
            spec.optimizer, hyperparams.optimizer, grads, state.opt_state, state.params, alive
        )
        rate = optimizers.learning_rate(spec.optimizer, hyperparams.optimizer, step, spec.steps_per_epoch, spec.train.epochs)
        params = jax.tree.map(lambda param, update: param + rate * update, state.params, updates)
        average = optimizers.averaged(spec.optimizer, state.average, params, step) if state.average else {}
        after = dataclasses.replace(state, params=params, opt_state=opt_state, carried=carried, average=average)
        return frozen(alive, state, after, optimizers.OPTIMIZERS[spec.optimizer.name].freezes), metrics

    def loss(
        self,
        params: dict,
        state: TrainState,
        hyperparams: Hyperparams,
        x: Float[Array, "batch *shape"],
        drawn: Draws,
        rows: Rows = WHOLE,
    ) -> tuple[Float[Array, ""], tuple[Metrics, dict]]:
        """The loss of a batch, its metrics, and what the objective carries to the next step.

        Args:
          params: differentiated; those in `state` are not used.
          state: where the run is.
          hyperparams: of the run.
          x: the whole batch.
          drawn: the keys of what is drawn.
          rows: the part of the batch that is computed here.
        """
        spec, objective = self.spec, objectives.OBJECTIVES[self.spec.objective.kind]
        names, lengths = dict(spec.schedules), hyperparams.schedule_epochs
        epoch = state.step.astype(jnp.float32) / spec.steps_per_epoch
        statistics = state.statistics
        if "sigma" in names:
            bound = schedules.least_log_sigma(names, lengths, epoch, statistics["scale"])
            statistics = statistics | {"least_log_sigma": bound}
        weights = schedules.scheduled(hyperparams.objective, names, lengths, epoch)
        if spec.model.conditioning == "beta":
            low, high = jnp.log(weights.beta_low), jnp.log(weights.beta_high)
            log_beta = low + (high - low) * evenly(drawn.beta, len(x))
            statistics = statistics | {"log_beta": rows.share(log_beta)}
            weights = weights.replace(beta=jnp.exp(log_beta))
        vae = self.vae.bind({"params": self.vae.cast(params), "statistics": statistics})
        samples = spec.objective.importance_samples if objective.needs_draws else 0
        terms = objectives.terms(vae, rows.share(x), drawn.noise, weights.noise_scale, hyperparams.sigma, samples, rows)
        terms = rows.gather(terms)
        context = objectives.Context(vae.prior(), drawn.prior, spec.train_size, state.carried)
        loss, carried = objective.loss(terms, weights, context)
        return loss, (Metrics.of(loss, terms, weights.noise_scale), carried)

    def advance(
        self, state: TrainState, hyperparams: Hyperparams, epochs: Int[Array, ""], pixels: Num[Array, "n *shape"]
    ) -> tuple[TrainState, Metrics]:
        """`epochs` (traced; none for a run that only fills up a device) passes over the stored pixels of the training split.

        Returns:
          The state, and the means of the metrics over those steps (NaN of no steps).
        """

        def body(_, carry):
            state, total = carry
            state, metrics = self.epoch(state, hyperparams, pixels)
            return state, jax.tree.map(jnp.add, total, metrics)

        state, total = lax.fori_loop(0, epochs, body, (state, Metrics.zero()))
        return state, jax.tree.map(lambda value: value / epochs.astype(jnp.float32), total)

    def epoch(
        self, state: TrainState, hyperparams: Hyperparams, pixels: Num[Array, "n *shape"]
    ) -> tuple[TrainState, Metrics]:
        """One pass over the training split in an order of its own, and the mean of its steps' metrics."""
        spec = self.spec
        order = self.order(hyperparams.seed, state.step // spec.steps_per_epoch)

        def body(carry, indices):
            key = self.bits(carry[0], hyperparams)
            return self.step_on(carry, hyperparams, dataset.prepare(pixels[indices], spec.images, key)), None

        (state, total), _ = lax.scan(body, (state, Metrics.zero()), order)
        return state, jax.tree.map(lambda value: value / spec.steps_per_epoch, total)

    def order(self, seed: Number, epoch: Int[Array, ""]) -> Int[Array, "steps batch"]:
        """Which images each step of an epoch sees: by the run's `seed`, or as all runs do."""
        spec = self.spec
        if spec.order_seed is None:
            stream = keys.stream(seed, keys.Stream.ORDER)
        else:
            stream = keys.stream(spec.order_seed, keys.DataStream.ORDER)
        order = random.permutation(keys.at(stream, epoch), spec.train_size)
        return order[: spec.steps_per_epoch * spec.batch_size].reshape(spec.steps_per_epoch, spec.batch_size)

    def bits(self, state: TrainState, hyperparams: Hyperparams) -> Key[Array, ""]:
        """The key of the bits that grey pixels become in this step."""
        return keys.at(keys.stream(hyperparams.seed, keys.Stream.BITS), state.step)

    def step_on(
        self, carry: tuple[TrainState, Metrics], hyperparams: Hyperparams, x: Float[Array, "batch *shape"]
    ) -> tuple[TrainState, Metrics]:
        """A step, whose metrics are added to those in `carry`."""
        state, total = carry
        state, metrics = self.step(state, hyperparams, x)
        return state, jax.tree.map(jnp.add, total, metrics)

    def advance_on(
        self,
        partway: Partway,
        hyperparams: Hyperparams,
        block: Num[Array, "steps rows *shape"],
        count: Int[Array, ""],
    ) -> Partway:
        """The first `count` (traced) steps of a block, of stored pixels in the order of the epoch, which may end with it.

        Args:
          partway: where the run is.
          hyperparams: of the run.
          block: of each batch the rows of this device.
          count: how many of its batches there are. Shared by all runs, unlike the epochs of `advance`: where runs are
            vectorised, a number of each run would cost a selection over the state in each step.
        """

        def body(number, carry):
            key = self.bits(carry[0], hyperparams)
            pixels = self.rows.joined(lax.dynamic_index_in_dim(block, number, keepdims=False))
            return self.step_on(carry, hyperparams, dataset.prepare(pixels, self.spec.images, key))

        state, total = lax.fori_loop(0, count, body, (partway.state, partway.epoch))
        has_ended = state.step % self.spec.steps_per_epoch == 0
        means = jax.tree.map(lambda value: value / self.spec.steps_per_epoch, total)
        chunk = jax.tree.map(lambda sums, mean: jnp.where(has_ended, sums + mean, sums), partway.chunk, means)
        return Partway(state, jax.tree.map(lambda value: jnp.where(has_ended, 0.0, value), total), chunk)

    def measure(
        self, state: TrainState, hyperparams: Hyperparams, x: Float[Array, "n *shape"], stream: Int[Array, ""]
    ) -> Metrics:
        """Metrics of the model as it is evaluated, on images in [0, 1].

        In batches about as large as those of training, because some losses depend on their size; none is smaller.

        Args:
          state: where the run is.
          hyperparams: of the run.
          x: the images.
          stream: the number of the stream that this step's draws come from.
        """
        key = keys.at(keys.stream(hyperparams.seed, stream), state.step)
        total = len(x)
        count = max(total // self.spec.batch_size, 1)
        size, longer = divmod(total, count)

        def of_batch(args):
            number, x = args
            own = keys.at(key, number)
            params = state.variables["params"]
            _, (metrics, _) = self.loss(params, state, hyperparams, x, Draws(*(keys.at(own, number) for number in range(3))))
            return jax.tree.map(lambda mean: mean * (len(x) / total), metrics)

        metrics = []
        # The first `longer` batches have one image more.
        for first, last, start, width in ((0, longer, 0, size + 1), (longer, count, longer * (size + 1), size)):
            if last > first:
                images = x[start : start + (last - first) * width].reshape(last - first, width, *x.shape[1:])
                shares = lax.map(of_batch, (jnp.arange(first, last), images))
                metrics.append(jax.tree.map(jnp.sum, shares))
        return jax.tree.map(lambda *parts: sum(parts), *metrics)


def program_of(spec: RunSpec) -> Program:
    """The program of a spec: the same object each time, so that a process traces and compiles it once.

    Specs share a program if they differ only in what the host decides by: when chunks end, when checkpoints are saved, and,
    where the learning rate is constant, how many epochs there are.
    """
    train = dataclasses.replace(spec.train, chunk_epochs=0, checkpoint_every=0, checkpoint_steps=0)
    if spec.optimizer.schedule == "constant":
        train = dataclasses.replace(train, epochs=1)
    return _program(dataclasses.replace(spec, train=train), registry.changes())


@functools.lru_cache(maxsize=16)
def _program(spec: RunSpec, changes: int) -> Program:
    return Program(spec)


def evenly(key: Key[Array, ""], count: int) -> Float[Array, " count"]:
    """Draws from [0, 1), each of them uniform, 1 / count apart (systematic sampling): a batch covers the range."""
    return (random.uniform(key) + jnp.arange(count, dtype=jnp.float32) / count) % 1


def is_finite(loss: Float[Array, ""], grads: dict) -> Bool[Array, ""]:
    """Whether the loss and the gradient are finite, and its squares, which Adam keeps.

    By the squared norm of the column sums: what is not finite stays so in a sum, and sums of columns read the gradient
    once, where its squares would be written and read again.
    """
    return jnp.isfinite(loss + sum(jnp.sum(jnp.square(jnp.sum(jnp.atleast_1d(g), axis=0))) for g in jax.tree.leaves(grads)))


def frozen(alive: Bool[Array, ""], before: TrainState, after: TrainState, is_optimizer_frozen: bool) -> TrainState:
    """`after`, one step on; for a run that has diverged all of `before` but its step."""
    first = jnp.where(alive | (before.diverged_at >= 0), before.diverged_at, before.step)
    names = ("params", "carried", "average") if is_optimizer_frozen else ("params", "opt_state", "carried", "average")

    def moving(state: TrainState) -> dict:
        return {name: getattr(state, name) for name in names}

    kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), moving(after), moving(before))
    return dataclasses.replace(after, step=before.step + 1, diverged_at=first, **kept)
