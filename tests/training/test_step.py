"""One run's program: its steps by hand, its epochs and keys, and the same bits however runs are grouped and chunked."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from support import random_state, replica_groups, small_model

from vae_jax.core import keys
from vae_jax.data import dataset
from vae_jax.system import runs
from vae_jax.training import objectives, optimizers, schedules
from vae_jax.training.state import Hyperparams, Metrics, RunSpec, TrainConfig, TrainState
from vae_jax.training.step import Program, evenly, is_finite, program_of

EPS = np.finfo(np.float32).eps

pytestmark = pytest.mark.compiled_fully
PIXELS = load_digits().images.astype(np.uint8)[..., None]
BATCH = jnp.asarray(PIXELS[:64] / np.float32(16))
TRAINING, IMAGES = PIXELS[:150], PIXELS[150:200].astype(np.float32) / 16
MODEL = small_model(shape=(8, 8, 1), hidden=(8,), likelihood="bernoulli", sigma="")
# Two steps an epoch, 22 images left over.
SPEC = RunSpec(
    model=MODEL,
    images=dataset.ImageSpec((8, 8, 1), 16, dynamic=False),
    train_size=150,
    train=TrainConfig(epochs=4, batch_size=64),
)


def spec_with(spec: RunSpec = SPEC, **fields) -> RunSpec:
    """`spec` with fields of its own, or by "optimizer__eps" of its groups."""
    for name, value in fields.items():
        group, _, field = name.rpartition("__")
        value = dataclasses.replace(getattr(spec, group), **{field: value}) if group else value
        spec = dataclasses.replace(spec, **{group or name: value})
    return spec


def hyperparams(seed=0, learning_rate=1e-2, beta=1.0, noise_scale=1.0) -> Hyperparams:
    weights = objectives.Weights(*map(np.float32, (noise_scale, 1.0, beta)))
    return Hyperparams(np.int32(seed), objective=weights, optimizer=optimizers.Rates(np.float32(learning_rate)))


GRID = runs.stack([hyperparams(), hyperparams(beta=4), hyperparams(1), hyperparams(2, 1e-3), hyperparams(3, 0.1, 0, 0)])


class Counted:
    """A function that says how often it was traced."""

    def __init__(self, function):
        self.function, self.traces = function, 0

    def __call__(self, *args):
        self.traces += 1
        return self.function(*args)


@functools.cache
def advance_on(devices: int):
    """`advance` of many runs, compiled once for all tests, and the counter of its traces."""
    counted = Counted(Program(SPEC).advance)
    return runs.over_runs(counted, runs.mesh(devices), mapped=3), counted


@functools.cache
def compiled_init():
    return runs.over_runs(Program(SPEC).init, runs.mesh(1))


def initial(many: Hyperparams) -> TrainState:
    """The states of up to eight runs before the first step, on the host."""
    count = len(many.seed)
    return runs.take(jax.device_get(compiled_init()(runs.pad(many, 8), {})), slice(count))


def placed(state: TrainState, devices: int) -> TrainState:
    """A state where the program leaves it: one from the host would be traced, and compiled, once more."""
    return jax.device_put(state, NamedSharding(runs.mesh(devices), PartitionSpec("runs")))


def train(many: Hyperparams, chunks=(4,), devices: int = 8):
    """Chunk after chunk, with the state on the devices: the last state, and the metrics of each chunk, on the host."""
    count, many = len(many.seed), runs.pad(many, devices)
    state, found = placed(initial(many), devices), []
    for epochs in chunks:
        numbers = np.where(np.arange(len(many.seed)) < count, np.int32(epochs), 0)
        state, metrics = advance_on(devices)[0](state, many, numbers, TRAINING)
        found.append(runs.take(jax.device_get(metrics), slice(count)))
    return runs.take(jax.device_get(state), slice(count)), found


@functools.cache
def trained():
    """The grid of five, in one chunk of four epochs, on eight devices."""
    return train(GRID)


@functools.cache
def alone(index: int):
    """One run of the grid on one device: its state, its metrics, and the batches of its steps, [8, 64, 8, 8, 1]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "prepare", recording)
        state, (metrics,) = train(runs.take(GRID, slice(index, index + 1)), devices=1)
    jax.effects_barrier()
    batches = np.array(SEEN)
    SEEN.clear()
    return runs.take(state, 0), runs.take(metrics, 0), batches


SEEN: list[np.ndarray] = []


def recording(pixels, spec, key, prepare=dataset.prepare):
    """`dataset.prepare` that keeps what it was given, also inside a compiled loop."""
    jax.debug.callback(lambda batch: SEEN.append(np.array(batch)), pixels, ordered=True)
    return prepare(pixels, spec, key)


@functools.cache
def step():
    """One update, with an eps that makes it smooth in the gradient: float32 errors of the gradient stay float32 errors."""
    return jax.jit(Program(spec_with(optimizer__eps=1e-2)).step)


def state_of(seed: int = 0) -> TrainState:
    return jax.tree.map(jnp.asarray, runs.take(initial(runs.stack([hyperparams(seed)])), 0))


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(actual), jax.device_get(expected))


def test_steps_per_epoch_are_whole_batches():
    assert SPEC.steps_per_epoch == 2


def test_one_chunk_or_four():
    (state, (whole,)), (again, each) = trained(), train(GRID, (1, 1, 1, 1))
    assert_same(again, state)
    assert np.all(state.step == 8)
    # Sums of the chunks in the order of the program, in float32.
    total = functools.reduce(functools.partial(jax.tree.map, np.add), each)
    assert_same(jax.tree.map(lambda value: value / np.float32(4), total), whole)


@pytest.mark.stress
@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_the_same_bits_on_any_devices(devices):
    assert_same(train(GRID, devices=devices), trained())


@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_same_bits_alone_on_one_device_and_in_a_grid_on_eight(index):
    state, metrics, _ = alone(index)
    assert_same(state, runs.take(trained()[0], index))
    assert_same(metrics, runs.take(trained()[1][0], index))


def test_runs_of_a_seed_start_and_walk_alike():
    state, (chunk,) = train(GRID, (1,))
    start = initial(GRID).params
    assert_same(runs.take(start, 0), runs.take(start, 1))  # beta 1 and 4
    kernel = start["encoder"]["Dense_0"]["kernel"]
    assert len(np.unique(kernel[:, 0, 0])) == 4  # seeds 0, 0, 1, 2, 3
    # The first batch and its noise are the same, so the first step's distortion is: see one step of each.
    first, other = (step()(state_of(), hyperparams(beta=beta), BATCH)[1] for beta in (1, 4))
    assert first.distortion == other.distortion
    assert first.rate == other.rate
    np.testing.assert_allclose(other.loss, other.distortion + 4 * other.rate, rtol=2 * EPS)
    assert np.all(state.diverged_at == -1)
    assert chunk.loss[0] != chunk.loss[1]


def test_training_lowers_the_loss():
    # Of the autoencoder, in nats per image: 64 log 2 = 44 where the decoder says one half.
    _, each = train(GRID, (1, 1, 1, 1))
    assert 40 < each[0].loss[4] < 60  # a mean over steps and images, not a sum
    assert each[3].loss[4] < each[0].loss[4] - 10


def test_a_deterministic_code_reports_an_infinite_rate():
    metrics = trained()[1][0]
    assert (np.isposinf(metrics.rate) == [False, False, False, False, True]).all()
    assert metrics.mean_std[4] == 0
    assert np.all(metrics.mean_std[:4] > 0)
    assert np.isfinite(metrics.loss).all()


def network(params, x, eps):
    """The two networks of the spec and the two terms, written out: (distortion, rate) per image."""
    encoder, decoder = params["encoder"], params["decoder"]

    def dense(layer, inputs):
        return inputs @ layer["kernel"] + layer["bias"][None]

    x = x.reshape(len(x), 64)
    mean, log_var = jnp.split(dense(encoder["Dense_1"], jnp.tanh(dense(encoder["Dense_0"], x))), 2, axis=1)
    z = mean + jnp.sqrt(jnp.exp(log_var)) * eps
    logits = dense(decoder["Dense_1"], jnp.tanh(dense(decoder["Dense_0"], z)))
    p = 1 / (1 + jnp.exp(-logits))
    distortion = -jnp.sum(x * jnp.log(p) + (1 - x) * jnp.log(1 - p), axis=1)
    return distortion, 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, axis=1)


def test_steps_by_hand():
    """Three of the eight steps, of Adam on a loss written out here, with the noise of each step's key."""
    beta, rate, seed = 4.0, 1e-2, 3
    adam = optax.adam(1.0, eps=1e-2)
    state = state_of(seed).replace(step=jnp.int32(3))
    params, opt_state = state.params, adam.init(state.params)

    @jax.jit
    def reference(params, opt_state, x, number, decayed):
        eps = random.normal(keys.at(keys.stream(seed, keys.Stream.NOISE), number), (64, 2))

        def loss(params):
            distortion, rate = network(params, x, eps)
            return jnp.mean(distortion + beta * rate), (jnp.mean(distortion), jnp.mean(rate))

        found, grads = jax.value_and_grad(loss, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = adam.update(grads, opt_state, params)
        return jax.tree.map(lambda param, update: param + decayed * update, params, updates), opt_state, found

    for number in (3, 4, 5):
        x = jnp.asarray(PIXELS[64 * number : 64 * number + 64] / np.float32(16))
        decayed = np.float32(rate * (1 + np.cos(np.pi * number / 8)) / 2)
        params, opt_state, (loss, (distortion, kl)) = reference(params, opt_state, x, np.int32(number), decayed)
        state, metrics = step()(state, hyperparams(seed, rate, beta), x)
        # Sums over 64 pixels and 64 images, and logarithms of p and 1 - p: some ten roundings of the whole.
        np.testing.assert_allclose(metrics.loss, loss, rtol=10 * EPS)
        np.testing.assert_allclose(metrics.distortion, distortion, rtol=10 * EPS)
        np.testing.assert_allclose(metrics.rate, kl, rtol=100 * EPS)  # the usual form cancels where expm1 does not
    assert state.step == 6
    for mine, theirs in zip(*map(jax.tree.leaves, (state.params, params)), strict=True):
        # Each of three updates is at most the rate, and off by some 100 eps of it.
        np.testing.assert_allclose(mine, theirs, rtol=4 * EPS, atol=3 * rate * 100 * EPS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e25])
@pytest.mark.parametrize("where", ["loss", "kernel", "bias"])
def test_what_is_not_finite_is_seen(where, bad):
    """1e25 is finite, but its square, which Adam keeps, is not."""
    found = {"loss": np.ones((), np.float32), "kernel": np.full((3, 4), -1, np.float32), "bias": np.zeros((), np.float32)}

    def all_finite() -> bool:
        return bool(is_finite(jnp.asarray(found["loss"]), {name: found[name] for name in ("kernel", "bias")}))

    assert all_finite()
    found[where][(1, 2) if where == "kernel" else ()] = bad
    assert all_finite() == (where == "loss" and bad == 1e25)


def epochs_of(index: int) -> np.ndarray:
    """The numbers of the images in the order in which a run sees them, [epochs, images]."""
    numbers = {image.tobytes(): number for number, image in enumerate(TRAINING)}
    assert len(numbers) == 150
    return np.array([[numbers[image.tobytes()] for image in batch] for batch in alone(index)[2]]).reshape(4, 128)


def test_each_epoch_has_an_order_of_its_own():
    first, same_seed, other = (epochs_of(index) for index in (0, 1, 2))
    np.testing.assert_array_equal(first, same_seed)  # beta 1 and 4
    together = (*first, *other)
    for order in together:
        assert len(np.unique(order)) == 128  # no image twice; the 22 left over are others each time
    assert len({order.tobytes() for order in together}) == 8
    assert len({np.sort(order).tobytes() for order in together}) == 8
    # Two independent permutations share each place with probability 1 / 150: 1 of 128 on average.
    assert all(np.sum(a == b) < 10 for number, a in enumerate(together) for b in together[:number])


def test_one_trace_for_all_lengths_and_hyperparams():
    for length in (1, 2, 3):
        train(runs.stack([hyperparams(length, 10.0**-length, length, number / 4) for number in range(5)]), (length, 1))
    assert advance_on(8)[1].traces == 1


def test_a_run_of_no_epochs_stays_as_it_is():
    """What only fills up the devices; the metrics of such a run are means over nothing."""
    many = runs.pad(GRID, 8)
    before = initial(many)
    numbers = np.int32([2, 0, 2, 0, 2, 0, 0, 0])
    after = runs.fetch(advance_on(8)[0](placed(before, 8), many, numbers, TRAINING)[0])
    steps = SPEC.steps_per_epoch
    assert after.step.tolist() == [2 * steps, 0, 2 * steps, 0, 2 * steps, 0, 0, 0]
    for run in (1, 3, 5):
        assert_same(runs.take(after, run), runs.take(before, run))


def test_the_compiled_program_holds_no_collective():
    many = runs.pad(GRID, 8)
    text = advance_on(8)[0].lower(placed(initial(many), 8), many, np.ones(8, np.int32), TRAINING).compile().as_text()
    assert "while" in text
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter", text)


# The batch of a run over several devices


SHARED_KINDS = {
    "importance of convolutions": {
        "objective__kind": "importance",
        "objective__importance_samples": 3,
        "model": dataclasses.replace(MODEL, encoder="conv", decoder="conv", hidden=(2, 4)),
    },
    "mmd and optimal sigma": {
        "objective__kind": "mmd",
        "model": dataclasses.replace(MODEL, prior="mixture", prior_components=3, likelihood="gaussian", sigma="optimal"),
    },
}


def train_on(devices: int, **fields):
    """Four epochs of two runs, with `devices` devices for each: the compiled program's text, and what it gives."""
    images = dataclasses.replace(SPEC.images, dynamic=True)
    # An eps that makes a step smooth in the gradient, as in `step`.
    spec = spec_with(train__data_devices=devices, images=images, optimizer__eps=1e-2, **fields)
    weights = objectives.Weights(*map(np.float32, (1, 1, 1)), mmd_weight=np.float32(10))
    many = runs.stack([dataclasses.replace(hyperparams(seed), objective=weights) for seed in range(2)])
    program, mesh = Program(spec), runs.mesh(2, devices)
    advance = runs.over_runs(program.advance, mesh, mapped=3)
    states = runs.stack([random_state(spec, hyperparams(), {})] * 2)
    args = (*runs.put((states, many, np.int32([4, 4])), mesh), runs.put(TRAINING, mesh, shared=True))
    compiled = advance.lower(*args).compile()
    return compiled.as_text(), runs.fetch(compiled(*args))


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("kind", SHARED_KINDS)
def test_devices_that_share_a_batch_find_the_same_to_rounding(kind):
    """Also with losses that are no mean over images, with parameters of a prior, and with bits drawn for each batch."""
    (silent, alone), (text, shared) = (train_on(devices, **SHARED_KINDS[kind]) for devices in (1, 4))
    assert not replica_groups(silent)
    groups = replica_groups(text)
    assert groups
    assert all(group in ({0, 1, 2, 3}, {4, 5, 6, 7}) for group in groups)
    for mine, theirs in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        # Parameters of size one after eight steps; metrics are about 40 nats.
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.stress
@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("kind", ["capacity", "free_bits", "geco", "tc"])
def test_every_objective_over_several_devices(kind, devices):
    used = {"beta": 2.0, "capacity": 3.0, "capacity_weight": 5.0, "free_bits": 0.5, "distortion_target": 30.0}
    fields = {name: np.float32(used[name]) for name in objectives.OBJECTIVES[kind].uses if name in used}
    found = []
    for count in (1, devices):
        spec = spec_with(train__data_devices=count, objective__kind=kind, optimizer__eps=1e-2)
        weights = objectives.Weights(**fields)
        one = runs.stack([dataclasses.replace(hyperparams(), objective=weights)])
        program, mesh = Program(spec), runs.mesh(1, count)
        state = runs.over_runs(program.init, mesh)(one, {})
        found.append(runs.fetch(runs.over_runs(program.advance, mesh, mapped=3)(state, one, np.int32([4]), TRAINING)))
    for mine, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


# Networks in bfloat16


@pytest.mark.usefixtures("compiled_quickly")
def test_bfloat16_is_in_the_networks_alone():
    """Their products are; parameters, moments and metrics are float32, and the loss is near."""
    half = Program(spec_with(optimizer__eps=1e-2, train__precision="bfloat16")).step
    jaxpr = str(jax.make_jaxpr(half)(state_of(), hyperparams(), BATCH))
    products = re.findall(r":(\w+)\[[\d,]*\] = dot_general", jaxpr)
    assert set(products) == {"bf16"}
    full, _ = step()(state_of(), hyperparams(), BATCH)
    state, metrics = jax.jit(half)(state_of(), hyperparams(), BATCH)
    assert [leaf.dtype for leaf in jax.tree.leaves((state, metrics))] == [
        leaf.dtype for leaf in jax.tree.leaves((full, metrics))
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, metrics))} == {np.dtype(np.float32)}
    exact = step()(state_of(), hyperparams(), BATCH)[1]
    # Eight bits of mantissa in logits of size one, averaged over 64 pixels and images.
    np.testing.assert_allclose(metrics.loss, exact.loss, rtol=2e-3)
    assert metrics.loss != exact.loss


def test_a_diverged_run_stands_still():
    # Adam moves each parameter by about the learning rate: finite, but the next step's loss is not.
    wild = runs.stack(
        [hyperparams(), hyperparams(beta=4), hyperparams(1, 1e30), hyperparams(2, 1e-3), hyperparams(3, 0.1, 0, 0)]
    )
    (one, _), (all_four, (chunk,)) = train(wild, (1,)), train(wild)
    assert all_four.diverged_at.tolist() == [-1, -1, 1, -1, -1]
    assert all_four.step.tolist() == [8] * 5  # the clock goes on
    assert not np.isfinite(chunk.loss[2])
    for leaf in jax.tree.leaves((all_four.params, all_four.opt_state)):
        assert np.isfinite(leaf).all()
    # What it was after the only good step, however long it goes on.
    assert_same(runs.take(all_four.params, 2), runs.take(one.params, 2))
    assert_same(runs.take(all_four.opt_state, 2), runs.take(one.opt_state, 2))
    assert runs.take(all_four.opt_state, 2).count == 1
    assert np.abs(runs.take(all_four.params, 2)["decoder"]["Dense_1"]["kernel"]).max() > 1e29
    # Nobody else noticed.
    calm, (calm_chunk,) = trained()
    for index in (0, 1, 3, 4):
        assert_same(runs.take((all_four, chunk), index), runs.take((calm, calm_chunk), index))


def test_no_nan_reaches_the_parameters():
    good, _ = step()(state_of(), hyperparams(), BATCH)
    bad, metrics = step()(good, hyperparams(), BATCH.at[3, 2, 1].set(jnp.nan))
    assert np.isnan(metrics.loss)
    assert bad.diverged_at == 1
    assert bad.step == 2
    assert_same((bad.params, bad.opt_state), (good.params, good.opt_state))
    # It never comes back, and the first bad step stays the first.
    after, _ = step()(bad, hyperparams(), BATCH)
    assert_same(after, bad.replace(step=3))
    worse, _ = step()(after, hyperparams(), BATCH * jnp.nan)
    assert_same(worse, bad.replace(step=4))


def test_a_process_has_one_program_for_a_spec_until_a_part_changes(monkeypatch):
    found, mesh = program_of(spec_with()), runs.mesh(1)
    assert program_of(spec_with()) is found
    assert found.over_runs("advance", mesh, mapped=2) is found.over_runs("advance", mesh, mapped=2)
    assert found.over_runs("advance", mesh, mapped=2) is not found.over_runs("advance", mesh, mapped=2, donate=True)
    # When the host looks at a run, and how long a run is whose learning rate stays, is not seen by the program.
    for name in ("chunk_epochs", "checkpoint_every", "checkpoint_steps"):
        assert program_of(spec_with(**{f"train__{name}": 3})) is found
    longer = spec_with(train__epochs=9)
    assert program_of(longer) is not found
    stays = [program_of(spec_with(spec, optimizer__schedule="constant")) for spec in (SPEC, longer)]
    assert stays[0] is stays[1]
    # A cell of a notebook that is run again may add another loss under the same name.
    monkeypatch.setitem(objectives.OBJECTIVES, "mine", objectives.OBJECTIVES["weighted"])
    assert program_of(spec_with()) is not found


@pytest.mark.usefixtures("compiled_quickly")
def test_metrics_of_images_are_those_of_the_network():
    state, images = state_of().replace(step=jnp.int32(10)), IMAGES
    measure = jax.jit(Program(spec_with(train__batch_size=15)).measure)
    found = measure(state, hyperparams(), images, jnp.int32(keys.Stream.VALID))
    # With keys of their own stream, in batches no smaller than those of training.
    key, parts = keys.at(keys.stream(0, keys.Stream.VALID), 10), []
    for number, part in enumerate(np.array_split(images, 3)):
        noise = random.normal(keys.at(keys.at(key, number), 0), (len(part), 2))
        parts.append(jax.jit(network)(state.params, part, noise))
    distortion, rate = map(jnp.concatenate, zip(*parts, strict=True))
    np.testing.assert_allclose(found.distortion, distortion.mean(), rtol=10 * EPS)
    np.testing.assert_allclose(found.rate, rate.mean(), rtol=100 * EPS)
    np.testing.assert_allclose(found.loss, (distortion + rate).mean(), rtol=10 * EPS)


@functools.cache
def compiled(spec: RunSpec):
    """`advance` of one run."""
    return jax.jit(Program(spec).advance)


def two_epochs(**changed) -> tuple[TrainState, Metrics]:
    """The state and the training metrics after two epochs of one run with another spec, weights or schedules."""
    weights = changed.pop("weights", objectives.Weights(*map(np.float32, (1, 1, 1))))
    lengths = changed.pop("lengths", {})
    given = dataclasses.replace(hyperparams(), objective=weights, schedule_epochs=lengths)
    spec = spec_with(**changed)
    # The first state is that of all specs here, but for what the objective carries.
    carried = jax.tree.map(jnp.float32, objectives.OBJECTIVES[spec.objective.kind].carried)
    return compiled(spec)(state_of().replace(carried=carried), given, jnp.int32(2), TRAINING)


@pytest.mark.usefixtures("compiled_quickly")
def test_a_scheduled_weight_moves_with_the_epochs():

    def rising_to(beta: float, epochs: float) -> Metrics:
        weights = objectives.Weights(*map(np.float32, (1, 1, beta)))
        return two_epochs(schedules=(("beta", "linear"),), lengths={"beta": np.float32(epochs)}, weights=weights)[1]

    # Steps at epochs 0, 0.5, 1 and 1.5: beta is 0, 0.75, 1.5 and 2.25, so the loss is not that of any constant.
    rising, none = rising_to(3, 2), rising_to(0, 2)
    np.testing.assert_allclose(none.loss, none.distortion, rtol=4 * EPS)
    assert rising.rate < none.rate
    assert none.distortion < rising.loss < rising.distortion + 2.25 * none.rate
    # A length far beyond the training is a weight of nearly 0.
    long = rising_to(3, 1e6)
    np.testing.assert_allclose(long.loss, none.loss, rtol=1e-4)


@pytest.mark.usefixtures("compiled_quickly")
def test_an_objective_carries_its_state_through_the_scan():
    weights = objectives.Weights(np.float32(1), np.float32(1), distortion_target=np.float32(5))
    state, metrics = two_epochs(objective__kind="geco", weights=weights)
    assert set(state.carried) == {"log_multiplier", "constraint"}
    # Four steps above the target of 5 nats, each of which may add at most 0.05.
    assert 0 < state.carried["log_multiplier"] <= 4 * 0.05 + EPS
    assert metrics.distortion > 5 and state.carried["constraint"] > 0


@pytest.mark.usefixtures("compiled_quickly")
def test_free_bits_report_the_rate_itself():
    weights = objectives.Weights(np.float32(1), np.float32(1), np.float32(1), free_bits=np.float32(50))
    given = dataclasses.replace(hyperparams(), objective=weights)
    _, metrics = jax.jit(Program(spec_with(objective__kind="free_bits")).step)(state_of(), given, BATCH)
    assert metrics.rate < 50
    np.testing.assert_allclose(metrics.loss, metrics.distortion + 2 * 50, rtol=1e-5)


def test_cooling_by_hand():
    """The least sigma falls from the scale of the data to a thousandth of it in two epochs; then there is none."""
    names, lengths, scale = {"sigma": "cooling"}, {"sigma": np.float32(2)}, jnp.float32(2)
    found = [schedules.least_log_sigma(names, lengths, jnp.float32(step / 2), scale) for step in range(8)]
    np.testing.assert_allclose(found[:4], np.log(2) + np.arange(4) / 4 * np.log(1e-3), rtol=1e-5)
    assert found[4:] == [-np.inf] * 4


@pytest.mark.usefixtures("compiled_quickly")
def test_the_schedule_of_sigma_holds_it_up():
    """In steps at epochs 0 to 1.5 of a cooling over 2 epochs sigma is no less than its bound, and far above 0.01."""
    model = dataclasses.replace(MODEL, likelihood="gaussian", sigma="fixed", normalize="center")
    statistics = {"mean": jnp.zeros((8, 8, 1)), "scale": jnp.float32(0.5)}
    found, spec = {}, spec_with(model=model, schedules=(("sigma", "cooling"),))
    step = jax.jit(Program(spec).step)
    for length in (2.0, 1e-3):
        given = hyperparams().replace(sigma=np.float32(0.01), schedule_epochs={"sigma": np.float32(length)})
        state = random_state(spec, given, statistics)
        found[length] = step(state.replace(step=jnp.int32(1)), given, BATCH)[1].distortion
    # Squares of about 0.1 at 64 pixels: over 2 sigma^2, and 64 log sigma. At epoch 0.5 of 2 the bound is 0.089.
    assert found[1e-3] > 10 * abs(found[2.0])


@pytest.mark.usefixtures("compiled_quickly")
def test_evenly_drawn_numbers_cover_the_range_and_each_is_uniform():
    drawn = np.asarray(jax.jit(jax.vmap(lambda seed: evenly(random.key(seed), 8)))(np.arange(400)))
    assert drawn.shape == (400, 8) and drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(drawn), axis=1), 1 / 8, atol=1e-6)
    # Of each place in the batch: mean 1/2 and variance 1/12, to four standard errors of 400 draws.
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=4 * (1 / 12 / 400) ** 0.5)
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 12, atol=4 * (1 / 180 / 400) ** 0.5)
