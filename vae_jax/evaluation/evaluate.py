"""What trained runs are worth: a row of `results.csv` and the arrays for figures of each.

Batches of each split go through the `measure` of every metric on the device, with all runs of a block at once, and from
there, without padding, into accumulators on the host. No split is on the device as a whole. Then come the programs that
run once, and the decoded means of latents that figures and Frechet distances need.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from vae_jax.core import keys, registry
from vae_jax.data.dataset import SPLITS, Dataset
from vae_jax.evaluation import accumulate, batches, bounds, calibration, frechet, queries
from vae_jax.evaluation.config import EvalConfig
from vae_jax.evaluation.metric import METRICS, Metric, Run, Setting, Values
from vae_jax.evaluation.metrics import columns
from vae_jax.evaluation.trained import Purpose, bind, own
from vae_jax.models import likelihoods
from vae_jax.models.vae import ModelSpec
from vae_jax.system import memory, runs
from vae_jax.system.progress import Progress, counted, say
from vae_jax.training import objectives

__all__ = ["EvalConfig", "TrainedRuns", "columns", "evaluate"]

BLOCK = 16  # runs whose arrays are on the host at a time
# A run that diverged may stand where its numbers overflow; it is evaluated all the same.
ignore_overflow = np.errstate(over="ignore", invalid="ignore")


@dataclasses.dataclass(frozen=True)
class TrainedRuns:
    """Runs that share a network, on the host; all but `model` and `objective` have a leading runs axis.

    Attributes:
      model: the network.
      variables: what `VAE.bind` takes.
      sigma: of the decoder, where it is a number.
      weights: of the objective, as they were at the end of training.
      seeds: of the runs.
      objective: its kind.
    """

    model: ModelSpec
    variables: dict
    sigma: np.ndarray
    weights: objectives.Weights
    seeds: np.ndarray
    objective: str = "weighted"

    def __len__(self) -> int:
        return len(self.seeds)

    def take(self, which: slice) -> "TrainedRuns":
        """Some of the runs."""
        leaves = runs.take((self.variables, self.sigma, self.weights, self.seeds), which)
        return TrainedRuns(self.model, *leaves, self.objective)

    @property
    def leaves(self) -> tuple:
        """What a program knows of a run: see `trained.bind`."""
        return self.variables, self.sigma, self.weights.noise_scale, self.seeds


@struct.dataclass
class Inputs:
    """What a metric's `program` sees beside the run.

    Attributes:
      images: the first images of the test split: a batch, or as many as AIS asks for.
      mean, log_var: codes of the whole test split [n, latents].
    """

    images: Float[Array, "n *shape"]
    mean: Float[Array, "m latents"]
    log_var: Float[Array, "m latents"]


def evaluate(
    trained: TrainedRuns,
    spec: EvalConfig,
    dataset: Dataset,
    progress: Progress | None = None,
    plan: "Plan | None" = None,
) -> Iterator[tuple[dict, dict]]:
    """Yield (metrics, arrays) for each run in order: a row of results.csv, and what its figures are drawn from.

    Args:
      trained: the runs.
      spec: how much to draw, and which metrics to leave out.
      dataset: its train and test splits are evaluated, and valid where the spec says so, with bits that stay the same; of a
        large split on a disk some images, see `EvalConfig.images`.
      progress: counts runs, from where it stands on.
      plan: of this setting, if there is one.
    """
    plan = plan or Plan.of(Setting(trained.model, spec, dataset.evaluated(spec.images), trained.objective))
    _say_fewer(plan, dataset)
    if not plan.metrics:
        yield from (({}, {}) for _ in range(len(trained)))
        if progress:
            progress.update(progress.done + len(trained))
        return
    start, together, done = 0, plan.together(len(trained)), progress.done if progress else 0

    def report(runs_done: float | int) -> None:
        if progress:
            progress.update(done + runs_done)

    def attempt(start: int, together: int) -> list["Measured"]:
        block = trained.take(slice(start, start + together))
        with memory.watched(together):
            return _measure(plan, plan.programs(together), block, lambda share: report(start + share * len(block)))

    while start < len(trained):
        measured, together = memory.halving(functools.partial(attempt, start), together, release=plan.release)
        for number, run in enumerate(measured, start):
            yield _row(plan, run), _arrays(plan, run)
            report(number + 1)
        start += len(measured)


def _say_fewer(plan: "Plan", dataset: Dataset) -> None:
    """A line where not all images of a split are evaluated."""
    splits = plan.setting.dataset.splits
    fewer = [
        f"{len(splits[split]):,} of {counted(len(dataset.splits[split]), f'{split} image')}"
        for split in plan.splits
        if plan.metrics and len(splits[split]) < len(dataset.splits[split])
    ]
    if fewer:
        say(f"evaluation: {', '.join(fewer)}, evenly from all of them (eval.images)")


class Measured(NamedTuple):
    """All that was measured of a run."""

    run: Run
    states: dict[str, Any]  # of each metric
    queries: dict[str, np.ndarray]  # latents, by what they are for
    pairs: np.ndarray | None  # test images between whose codes lines are decoded
    decoded: dict[str, np.ndarray]  # images of those that are shown
    held_to_prior: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The metrics that apply to a setting, what they need of the data, and the splits that they go over."""

    setting: Setting
    metrics: dict[str, Metric]
    references: dict[str, Any]
    _programs: dict[int, "Programs"] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def of(setting: Setting) -> "Plan":
        """For all runs of a setting."""
        wanted = {name: metric for name, metric in METRICS.items() if name not in setting.spec.without}
        metrics = {name: metric for name, metric in wanted.items() if metric.applies(setting)}
        return Plan(setting, metrics, {name: metric.reference(setting) for name, metric in metrics.items()})

    def states(self) -> dict[str, Any]:
        """Of the metrics of one run, before anything was measured."""
        return {name: metric.init(self.references[name], self.setting) for name, metric in self.metrics.items()}

    @property
    def splits(self) -> list[str]:
        """That any metric goes over; test codes are needed in any case."""
        wanted = {split for metric in self.metrics.values() for split in metric.splits(self.setting.spec)}
        return [split for split in SPLITS if split in wanted or split == "test"]

    @property
    def per_image(self) -> dict[str, Metric]:
        """The metrics that measure something of every image."""
        return {name: metric for name, metric in self.metrics.items() if metric.measure}

    def measured(self, split: str) -> list[str]:
        """The names of those that do so for this split."""
        return [name for name, metric in self.per_image.items() if split in metric.splits(self.setting.spec)]

    def limit(self, split: str) -> int:
        """Draws for each image of a split, at most."""
        most = np.iinfo(np.int32).max
        return self.setting.spec.draws_of(most, len(self.setting.dataset.splits[split]))

    def together(self, count: int) -> int:
        """How many runs at a time: their arrays come to the host."""
        pixels, splits = math.prod(self.setting.model.shape), self.setting.dataset.splits
        shown = 1000 * pixels  # images, more or less
        spread = 4 * min(frechet.SIDE, pixels) * pixels  # two in float64
        codes = (3 * len(splits["test"]) + len(splits["train"])) * self.setting.model.latents
        batch = self.setting.spec.batch_size * (pixels + len(calibration.EDGES) * 3)
        return max(
            1, min(count, BLOCK, memory.free() // (4 * 4 * (shown + spread + codes + batch)))
        )  # and room for the rest

    def programs(self, together: int) -> "Programs":
        """What runs on the devices for so many runs or fewer at a time."""
        if together not in self._programs:
            self._programs[together] = Programs.build(self, together)
        return self._programs[together]

    def release(self) -> None:
        """Forget all programs."""
        self._programs.clear()

    @property
    def shown(self) -> int:
        """How many of the first test images the programs of metrics see."""
        spec = self.setting.spec
        count = max(spec.batch_size, spec.ais_images if "ais" in self.metrics else 0, queries.SHOWN)
        return min(count, len(self.setting.dataset.splits["test"]))

    def compile_ahead(self, threads: Executor, trained: TrainedRuns) -> None:
        """Have threads compile what evaluates runs like `trained`, of whose arrays only the shapes are looked at."""
        if not self.metrics:
            return
        programs, model, spec = self.programs(self.together(len(trained))), self.setting.model, self.setting.spec
        held = runs.shaped(trained.leaves, programs.mesh, programs.size)
        number = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        images, shown = (_floats(count, *model.shape) for count in (spec.batch_size, self.shown))
        x, first, *counters = runs.shaped((images, shown, number, number, number), programs.mesh)
        z, codes = (
            runs.shaped(_floats(1, count, model.latents), programs.mesh, programs.size)
            for count in (spec.batch_size, len(self.setting.dataset.splits["test"]))
        )
        if model.sigma == "optimal":
            programs.sigma.compile_ahead(threads, held, x, *counters[:2])
        programs.codes.compile_ahead(threads, held, x, *counters)
        for name in dict.fromkeys(name for split in self.splits for name in self.measured(split)):
            programs.per_image[name].compile_ahead(threads, held, x, *counters)
        programs.model.compile_ahead(threads, held)
        for program in programs.once.values():
            program.compile_ahead(threads, held, (codes, codes), first)
        programs.decode.compile_ahead(threads, held, z)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(np.float32))


class Programs(NamedTuple):
    """What runs on the devices, each a function over the runs of a block."""

    mesh: Any
    size: int  # runs in a call
    sigma: Any  # (runs, images, batch number, limit) -> squared error [size]
    codes: Any  # (runs, images, batch number, split, limit) -> {name: [size, ...]}
    per_image: dict[str, Any]  # the same of each metric
    model: Any  # (runs) -> what the model is without an image
    once: dict[str, Any]  # (runs, codes, images) -> what a metric's program gives
    decode: Any  # (runs, latents [size, latents]) -> images

    @staticmethod
    def build(plan: Plan, together: int) -> "Programs":
        """For `together` runs or fewer at a time."""
        mesh = runs.mesh(together)
        setting = plan.setting
        # No program depends on `eval.betas`: evaluations that differ only in it share their programs.
        spec = dataclasses.replace(setting.spec, betas=())

        def over(function: Callable, *static, mapped: int = 1) -> Any:
            return _over_runs(registry.changes(), function, setting.model, spec, *static, mesh=mesh, mapped=mapped)

        return Programs(
            mesh,
            -(-together // mesh.size) * mesh.size,
            over(_squared_error),
            over(_per_image, bounds.measure, ()),
            {
                name: over(_per_image, metric.measure, own(name) if metric.counters is None else metric.counters)
                for name, metric in plan.per_image.items()
            },
            over(_model),
            {
                # Not `briefly`: a total correlation near 0, a difference of large sums, would move in its first digits.
                name: runs.over_runs(functools.partial(_once, setting, metric.program), mesh, mapped=2)
                for name, metric in plan.metrics.items()
                if metric.program
            },
            over(_decode, mapped=2),
        )


@functools.lru_cache(maxsize=64)
def _over_runs(changes: int, function: Callable, *static, mesh: Any, mapped: int) -> Any:
    """`runs.over_runs`, made once for equal models and settings, so that a process traces and compiles it once."""
    return runs.over_runs(functools.partial(function, *static), mesh, mapped=mapped, briefly=True)


# Programs: functions of one run.


def _squared_error(model: ModelSpec, spec: EvalConfig, run: tuple, x, number, limit) -> Float[Array, " batch"]:
    trained = bind(model, run)
    key, samples = trained.key(Purpose.SIGMA, number), jnp.minimum(spec.samples, limit)
    return calibration.squared_error(trained.vae, x, trained.posterior(x), key, trained.sigma, samples)


def _per_image(
    model: ModelSpec, spec: EvalConfig, measure: Callable, counters: tuple, run: tuple, x, number, split, limit
) -> dict:
    trained = bind(model, run)
    return measure(trained, x, trained.key(*counters, split, number), spec, limit)


def _model(model: ModelSpec, spec: EvalConfig, run: tuple) -> dict[str, Array]:
    trained = bind(model, run)
    prior, levels = trained.vae.prior(), jnp.asarray(queries.LEVELS, jnp.float32)
    samples = prior.sample(trained.key(Purpose.PRIOR), spec.decoded or queries.SAMPLES)
    if prior.has_quantile:
        quantiles = jnp.tile(prior.quantile(levels)[:, None], (1, model.latents))
    else:
        quantiles = jnp.quantile(samples, levels, axis=0)
    found = {"prior_samples": samples, "quantiles": quantiles}
    if model.sigma not in ("", "per_pixel"):
        found["sigma"] = jnp.exp(trained.vae.log_sigma(trained.sigma))
    return found


def _once(setting: Setting, program: Callable, run: tuple, codes: tuple, images) -> Any:
    return program(bind(setting.model, run), Inputs(images, *codes), setting)


def _decode(model: ModelSpec, spec: EvalConfig, run: tuple, z) -> Float[Array, "batch *shape"]:
    trained = bind(model, run)
    return trained.vae.decode(z, trained.sigma).mean


# The host: batches to the device, what comes back to the accumulators.


def _measure(plan: Plan, programs: Programs, block: TrainedRuns, report: Callable[[float], None]) -> list[Measured]:
    """Everything of the runs of one block; `report` gets the share of the batches that is done."""
    if block.model.sigma == "optimal":
        sigma = _optimal_sigma(plan, programs, runs.put(runs.pad(block.leaves, programs.size), programs.mesh))
        block = dataclasses.replace(block, sigma=sigma[: len(block)])
    held = runs.put(runs.pad(block.leaves, programs.size), programs.mesh)
    states = [
        {name: metric.init(plan.references[name], plan.setting) for name, metric in plan.metrics.items()}
        for _ in block.seeds
    ]
    codes = [accumulate.Kept() for _ in block.seeds]
    _over_splits(plan, programs, held, states, codes, report)
    arrays = [kept.arrays() for kept in codes]
    model = runs.fetch(programs.model(held))
    once = _run_once(plan, programs, held, arrays)
    weights = [runs.take(block.weights, number) for number in range(len(block))]
    found = [
        Run(plan.setting, weights[number], arrays[number], runs.take(once, number), runs.take(model, number))
        for number in range(len(block))
    ]
    return _decoded(plan, programs, held, [int(seed) for seed in block.seeds], found, states)


def _optimal_sigma(plan: Plan, programs: Programs, held: tuple) -> np.ndarray:
    """The root of the mean squared error of the training split, z drawn; what training used for its batches."""
    spec, limit = plan.setting.spec, np.int32(plan.limit("train"))
    means = accumulate.Means()
    for number, batch in enumerate(batches.batches(plan.setting.dataset, "train", spec.batch_size)):
        x, counters = runs.put((batch.images, (np.int32(number), limit)), programs.mesh, shared=True)
        squared = runs.fetch(programs.sigma(held, x, *counters))
        means.add({"squared": squared[:, : batch.real].T})
    return np.maximum(np.sqrt(means.means("squared")), likelihoods.SIGMA_FLOOR).astype(np.float32)


@ignore_overflow
def _over_splits(
    plan: Plan, programs: Programs, held: tuple, states: list[dict], codes: list[accumulate.Kept], report: Callable
) -> None:
    """All batches of all splits, through every metric's measure and update."""
    spec, dataset = plan.setting.spec, plan.setting.dataset
    total, done = sum(-(-len(dataset.splits[split]) // spec.batch_size) for split in plan.splits), 0
    for split in plan.splits:
        for number, batch in enumerate(batches.batches(dataset, split, spec.batch_size)):
            counters = np.int32(number), np.int32(Purpose[split.upper()]), np.int32(plan.limit(split))
            x, counters = runs.put((batch.images, counters), programs.mesh, shared=True)
            called = [programs.codes, *(programs.per_image[name] for name in plan.measured(split))]
            found = [runs.fetch(program(held, x, *counters)) for program in called]
            for run, state in enumerate(states):
                rows = {name: leaf[run, : batch.real] for part in found for name, leaf in part.items()} | batch.rows
                _update(plan, state, split, rows)
                if split == "test":
                    codes[run].add({name: rows[name] for name in ("mean", "log_var", "rate_per_latent")})
            done += 1
            report(0.9 * done / total)  # the rest is for what comes after


def _update(plan: Plan, state: dict, source: str, rows: Mapping[str, np.ndarray]) -> None:
    for name, metric in plan.metrics.items():
        if source in metric.splits(plan.setting.spec):
            state[name] = metric.update(state[name], source, rows)


def _run_once(plan: Plan, programs: Programs, held: tuple, arrays: list[dict]) -> dict[str, Any]:
    """What the programs of the metrics found, with a leading runs axis."""
    if not programs.once:
        return {}
    images = runs.put(batches.first(plan.setting.dataset, "test", plan.shown), programs.mesh, shared=True)
    stacked = runs.stack([(each["mean"], each["log_var"]) for each in arrays])
    codes = runs.put(runs.pad(stacked, programs.size), programs.mesh)
    return {name: runs.fetch(program(held, codes, images)) for name, program in programs.once.items()}


@ignore_overflow
def _decoded(
    plan: Plan, programs: Programs, held: tuple, seeds: list[int], found: list[Run], states: list[dict]
) -> list[Measured]:
    """Decode what figures show and distances need, the latter batch by batch."""
    objective = objectives.OBJECTIVES[plan.setting.objective]
    to_prior = [objective.holds_to_prior(run.weights.beta, run.weights.mmd_weight) for run in found]
    pairs = [_pairs(plan, seed) for seed in seeds]
    asked = [_queries(plan, *each) for each in zip(found, pairs, to_prior, strict=True)]
    flat = [np.concatenate(list(each.values())) for each in asked]
    size, shown = plan.setting.spec.batch_size, [accumulate.Kept() for _ in found]
    for start in range(0, len(flat[0]), size):
        z = np.stack([np.resize(each[start : start + size], (size, each.shape[1])) for each in flat])
        means = runs.fetch(programs.decode(held, runs.put(runs.pad(z, programs.size), programs.mesh)))
        for run, state in enumerate(states):
            for name, piece in _pieces(asked[run], start, means[run, : len(flat[run]) - start]):
                _update(plan, state, name, {"images": piece})
                if name not in ("midpoints", "axes"):
                    shown[run].add({name: piece})
    decoded = [kept.arrays() for kept in shown]
    return [Measured(*each) for each in zip(found, states, asked, pairs, decoded, to_prior, strict=True)]


def _pieces(asked: dict[str, np.ndarray], start: int, means: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of a batch of decoded latents, which begins at `start`, by what they are for."""
    begin = 0
    for name, z in asked.items():
        low, high = max(begin - start, 0), min(begin + len(z) - start, len(means))
        if low < high:
            yield name, means[low:high]
        begin += len(z)


def _pairs(plan: Plan, seed: int) -> np.ndarray | None:
    """Pairs of test images of different classes, the same for every model of a seed."""
    labels, count = plan.setting.dataset.splits["test"].labels, plan.setting.spec.decoded or queries.SAMPLES
    return queries.pairs(labels, count, np.random.default_rng([seed, int(keys.Stream.EVALUATION)]))


@ignore_overflow
def _queries(plan: Plan, run: Run, pairs: np.ndarray | None, to_prior: bool) -> dict[str, np.ndarray]:
    """Which latents are decoded."""
    model, spec, codes = plan.setting.model, plan.setting.spec, run.codes
    rate = codes["rate_per_latent"].mean(axis=0)
    by_rate = np.isfinite(rate).all() and len(rate) == model.latents
    importance = rate if by_rate else codes["mean"].var(axis=0)
    asked = queries.queries(codes["mean"], importance, run.model["prior_samples"], run.model["quantiles"], pairs, to_prior)
    compared = frechet.images_of(spec.decoded, math.prod(model.shape)) if "frechet" in plan.metrics else 0
    asked["samples"] = asked["samples"][: max(compared, queries.SAMPLES)]
    if "midpoints" in asked:
        asked["midpoints"] = asked["midpoints"][:compared]
    if model.decoder == "linear":
        # Unit vectors and the origin: their differences are the columns of the decoder.
        asked["axes"] = np.eye(model.latents + 1, model.latents, dtype=np.float32)
    return asked


@ignore_overflow
def _row(plan: Plan, measured: Measured) -> Values:
    """The columns of a run: those of the test split first."""
    row: Values = {}
    for name, metric in plan.metrics.items():
        values = metric.finish(measured.states[name], measured.run)
        # What needs the density of the code does not apply to a point.
        row |= dict.fromkeys(values) if metric.density and not measured.run.is_random else values
    return dict(sorted(row.items(), key=lambda item: item[0].startswith(("train_", "valid_"))))


@ignore_overflow
def _arrays(plan: Plan, measured: Measured) -> dict[str, np.ndarray]:
    """What the figures need of one run."""
    codes, test = measured.run.codes, plan.setting.dataset.splits["test"]
    arrays = {
        "codes_mean": codes["mean"],
        "codes_std": np.exp(0.5 * codes["log_var"]),
        "rate_per_latent": codes["rate_per_latent"].mean(axis=0, dtype=float),
        "held_to_prior": np.array(measured.held_to_prior),
        "images": batches.first(plan.setting.dataset, "test", queries.SHOWN),
        "test_images": batches.first(plan.setting.dataset, "test", queries.SAMPLES),
    }
    if test.labels is not None:
        arrays["labels"] = test.labels
    if plan.setting.model.prior != "normal":
        arrays["prior_samples"] = measured.run.model["prior_samples"][: queries.PRIOR_SAMPLES]
    arrays |= measured.decoded | {"samples": measured.decoded["samples"][: queries.SAMPLES]}
    if measured.pairs is not None:
        arrays["interpolation_images"] = plan.setting.dataset.chosen("test", measured.pairs[: queries.LINES].ravel())
    if "plane" in measured.queries:
        arrays["plane_latents"] = measured.queries["plane"]
    for name, metric in plan.metrics.items():
        if metric.arrays:
            arrays |= metric.arrays(measured.states[name], measured.run)
    return arrays
