"""A config and its sweeps become checked runs: order, types of values, every refusal, and what shares a program."""

import dataclasses
import functools

import numpy as np
import pytest
from support import tiny

from configs import base
from vae_jax.core import errors
from vae_jax.data import dataset
from vae_jax.study import grid, planning
from vae_jax.study.config import ABSENT, FIELDS
from vae_jax.training import objectives


def runs_of(*sweeps, sweep=None, **fields):
    """`expand` of the base config with `fields` changed (two underscores for a dot)."""
    config = grid.flatten(base.get_config().to_dict())
    config |= {name.replace("__", "."): value for name, value in fields.items()}
    return grid.expand(config, sweep, [(key, grid.split_values(text)) for key, text in sweeps])


def rows_of(*rows):
    return lambda add: [add(row) for row in rows]


def images(count=20, shape=(8, 8, 1), high=1.0, valid=False):
    """A data set of noise, labelled in turn."""
    pixels = np.linspace(0, high, count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)
    split = dataset.Split(pixels, np.arange(count) % 3)
    splits = {"train": split, "test": split} | ({"valid": split} if valid else {})
    return dataset.Dataset(splits, dataset.ImageSpec(shape, 1, False), 0)


def refusal(*sweeps, **fields) -> str:
    with pytest.raises(errors.UserError) as caught:
        runs_of(*sweeps, **fields)
    return str(caught.value)


def refusal_for(data, **fields) -> str:
    (run,) = runs_of(**{"train__batch_size": 10} | fields)
    with pytest.raises(errors.UserError) as caught:
        planning.specify(run, data)
    return str(caught.value)


# The grid and its order


def test_no_sweep_is_a_grid_of_one():
    (run,) = runs_of(seed=3)
    assert run.name == "vae"
    assert run.settings == {}
    assert run.config == grid.flatten(base.get_config().to_dict()) | {"seed": 3}


def test_sweeps_multiply_and_the_last_turns_fastest():
    runs = runs_of(("objective.beta", "0.5,4"), ("seed", "2,0,1"))
    assert [(run.config["objective.beta"], run.config["seed"]) for run in runs] == [
        (0.5, 2), (0.5, 0), (0.5, 1), (4.0, 2), (4.0, 0), (4.0, 1),
    ]  # fmt: skip


def test_the_rows_of_the_config_come_first():
    rows = rows_of({"name": "ae", "objective.beta": 0}, {"name": "vae", "objective.beta": 1})
    runs = runs_of(("seed", "0,1"), sweep=rows)
    assert [(run.name, run.config["objective.beta"], run.config["seed"]) for run in runs] == [
        ("ae", 0.0, 0), ("ae", 0.0, 1), ("vae", 1.0, 0), ("vae", 1.0, 1),
    ]  # fmt: skip


def test_settings_are_the_swept_keys_of_all_rows_in_order_without_name_and_seed():
    rows = rows_of({"seed": 1, "name": "a", "model.latents": 3}, {"objective.beta": 2})
    first, second = runs_of(("optimizer.learning_rate", "0.01"), sweep=rows)
    assert list(first.settings.items()) == [("model.latents", 3), ("objective.beta", 1.0), ("optimizer.learning_rate", 0.01)]
    assert list(second.settings.items()) == [
        ("model.latents", 2),
        ("objective.beta", 2.0),
        ("optimizer.learning_rate", 0.01),
    ]


def test_a_key_of_one_value_is_still_of_the_grid():
    (run,) = runs_of(("objective.beta", "1"))
    assert run.settings == {"objective.beta": 1.0}


def test_a_sweep_that_adds_nothing_leaves_the_config():
    (run,) = runs_of(sweep=rows_of())
    assert run.settings == {}


def test_a_run_knows_its_groups():
    (run,) = runs_of(objective__beta=2.0)
    assert run.group("objective")["beta"] == 2.0
    assert {"name", "path", "dir", "download", "binarize", "valid_fraction", "seed"} <= run.group("data").keys()


def test_flatten_keeps_order_and_makes_tuples():
    assert list(grid.flatten({"b": {"y": [1, 2], "x": {"z": 1}}, "a": 0}).items()) == [
        ("b.y", (1, 2)),
        ("b.x.z", 1),
        ("a", 0),
    ]


# Values


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("model.latents", "2,8", [2, 8]),
        ("objective.beta", "0.25,1,1e2", [0.25, 1.0, 100.0]),
        ("data.download", "true,False", [True, False]),
        ("model.activation", "relu,tanh", ["relu", "tanh"]),
        ("model.sigma", "0.5,learned", ["0.5", "learned"]),
        ("model.hidden", "(64,32),(256,256)", [(64, 32), (256, 256)]),
        ("model.hidden", "[64,32],8,(16,)", [(64, 32), (8,), (16,)]),
        ("baselines", "(),pca", [(), ("pca",)]),
    ],
)
def test_texts_are_read_by_the_type_of_their_field(key, text, values):
    read = [run.config[key] for run in runs_of((key, text), data__name="mnist", model__likelihood="gaussian")]
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("objective.beta", 4, 4.0),
        ("objective.beta", np.float32(0.5), 0.5),
        ("model.sigma", 0.1, "0.1"),
        ("model.hidden", [8, 4], (8, 4)),
        ("model.hidden", 8, (8,)),
        ("train.epochs", np.int64(3), 3),
    ],
)
def test_python_values_too(key, value, typed):
    (run,) = runs_of(sweep=rows_of({key: value}))
    assert run.config[key] == typed
    assert type(run.config[key]) is type(typed)


@pytest.mark.parametrize(
    ("key", "text", "should"),
    [
        ("seed", "1.5", "a whole number"),
        ("seed", "true", "a whole number"),
        ("objective.beta", "two", "a number"),
        ("objective.beta", "(1,2)", "a number"),
        ("data.download", "yes", "true or false"),
        ("model.hidden", "(8,x)", "a tuple like (64,64)"),
        ("model.hidden", "(8,4.5)", "a tuple like (64,64)"),
    ],
)
def test_a_value_of_another_type_is_refused(key, text, should):
    assert refusal((key, text)) == f"{key}={text}: should be {should}"


@pytest.mark.parametrize(("key", "value"), [("seed", 1.0), ("seed", True), ("objective.beta", True), ("name", True)])
def test_a_python_value_of_another_type_is_refused(key, value):
    with pytest.raises(errors.UserError, match=f"^{key}={value}: should be a"):
        runs_of(sweep=rows_of({key: value}))


def test_split_values():
    assert grid.split_values("1,2") == ["1", "2"]
    assert grid.split_values("(64,32),(256,256)") == ["(64,32)", "(256,256)"]
    assert grid.split_values("[(1,2),3],4") == ["[(1,2),3]", "4"]
    assert grid.split_values("1,,2,") == ["1", "2"]
    assert grid.split_values("") == []


# Names


@pytest.mark.parametrize("name", ["beta", "objectve.beta", "objective.Beta"])
def test_an_unknown_name_is_answered_with_the_nearest(name):
    assert refusal((name, "1,2")).startswith(f"unknown config name {name!r}: did you mean objective.beta")


def test_an_unknown_name_in_the_rows_of_the_config_or_in_the_config_itself():
    with pytest.raises(errors.UserError, match=r"unknown config name 'latents': did you mean model\.latents"):
        runs_of(sweep=rows_of({"latents": 2}))
    assert refusal(train__epoch=3).startswith("unknown config name 'train.epoch': did you mean train.epochs")


def test_a_field_that_is_missing():
    config = base.get_config().to_dict()
    del config["objective"]["beta"]
    with pytest.raises(errors.UserError, match=r"the config has no objective\.beta: start from get_config\(\)"):
        grid.expand(config)


def test_a_key_given_twice():
    twice = "--sweep=seed: seed is given twice; a study sets each name once"
    assert refusal(("seed", "0,1"), ("seed", "2")) == twice
    with pytest.raises(errors.UserError, match=twice):
        runs_of(("seed", "0,1"), sweep=rows_of({"name": "a"}, {"seed": 1}))


def test_two_equal_runs():
    assert refusal(("objective.beta", "1,2,1.0")) == "two runs are equal: objective.beta=1.0; give each value once"
    with pytest.raises(errors.UserError, match="two runs are equal: the config alone"):
        runs_of(sweep=rows_of({}, {"seed": 0}))


@pytest.mark.parametrize("row", [3, None, "seed", ["seed"], object])
def test_a_row_that_is_no_dict(row):
    with pytest.raises(errors.UserError, match=r"^the sweep's add\(.*\): should be add\(\{NAME: VALUE, \.\.\.\}\)$"):
        runs_of(sweep=rows_of(row))


def test_every_field_has_the_type_of_its_default():
    defaults = grid.flatten(base.get_config().to_dict())
    assert {key: field.kind for key, field in FIELDS.items()} == {key: type(value) for key, value in defaults.items()}
    assert set(ABSENT) < set(defaults)


def test_more_runs_than_anybody_can_train():
    numbers = ",".join(map(str, range(400)))
    assert refusal(("seed", numbers), ("data.seed", numbers)) == "the sweeps make 160,000 runs; should be at most 100,000"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective.beta", None),
        ("objective.beta", "x"),
        ("seed", True),
        ("seed", 1.0),
        ("model.encoder", 3.5j),
        ("model.hidden", ("a",)),
        ("data.download", 2),
        ("name", "two\nlines"),
        ("name", "\ud800"),
        ("data.path", "\x1b[2J"),
    ],
)
def test_a_config_by_hand_has_values_of_the_types_of_its_fields(field, value):
    message = refusal(**{field.replace(".", "__"): value})
    assert message.startswith(f"{field}=")
    assert "should be a" in message or "should be true" in message
    assert message.isprintable()


def test_an_empty_sweep():
    assert refusal(("seed", "")) == "--sweep=seed: no values; should be seed=V1,V2,..."


# Ranges


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective.beta", -0.1),
        ("objective.beta", float("nan")),
        ("objective.beta", float("inf")),
        ("objective.noise_scale", -1.0),
        ("objective.distortion_weight", -1.0),
        ("seed", -1),
        ("seed", 2**31),
        ("model.latents", 0),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.b1", 1.0),
        ("optimizer.eps", 0.0),
        ("train.epochs", 0),
        ("train.batch_size", -1),
        ("train.chunk_epochs", -1),
        ("train.checkpoint_every", -1),
        ("data.valid_fraction", 1.0),
        ("data.valid_fraction", -0.1),
        ("eval.samples", 0),
        ("eval.batch_size", 0),
        ("eval.decoded", -1),
    ],
)
def test_out_of_range(field, value):
    assert refusal(**{field.replace(".", "__"): value}).startswith(f"{field}={value}: should be ")


def test_a_range_says_its_bounds():
    assert refusal(train__epochs=0) == "train.epochs=0: should be from 1 to 1e+07"
    assert refusal(optimizer__learning_rate=0.0) == "optimizer.learning_rate=0.0: should be above 0 and at most 1e+06"


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("data.binarize", "sometimes", "none, threshold, static, dynamic"),
        ("model.encoder", "lstm", "mlp, conv, linear, resnet"),
        ("model.decoder", "lstm", "mlp, conv, linear, resnet"),
        ("model.likelihood", "laplace", "bernoulli, gaussian"),
        ("model.prior", "uniform", "normal"),
        ("optimizer.schedule", "steps", "constant, linear, cosine"),
    ],
)
def test_a_choice_lists_what_there_is(field, value, known):
    message = refusal(**{field.replace(".", "__"): value})
    assert message.startswith(f"{field}={value}: should be one of ")
    assert set(known.split(", ")) <= set(message.rpartition("one of ")[2].split(", "))


def test_widths_and_baselines():
    assert refusal(model__hidden=(8, 0)) == "model.hidden=(8, 0): each should be from 1 to 100000"
    assert refusal(baselines=("pcca",)).startswith("baselines=('pcca',): each should be one of pca")
    assert refusal(name="  ").startswith("name=")


def test_no_noise_needs_no_rate():
    message = refusal(objective__noise_scale=0.0, objective__beta=2.0)
    assert message.startswith("objective.noise_scale=0 with objective.beta=2: a deterministic code has infinite rate")
    (run,) = runs_of(objective__noise_scale=0.0, objective__beta=0.0)
    assert run.config["objective.noise_scale"] == 0.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"objective__kind": "capacity", "objective__noise_scale": 0.0},
            "objective.noise_scale=0 with objective.kind=capacity:",
        ),
        ({"objective__kind": "geco", "objective__noise_scale": 0.0}, "objective.noise_scale=0 with objective.kind=geco:"),
        ({"objective__noise_scale": 0.5, "model__prior": "vamp"}, "objective.noise_scale=0.5 (constant) with model.prior="),
        ({"objective__kind": "free_bits", "model__prior": "flow"}, "objective.kind=free_bits with model.prior=flow:"),
        ({"objective__capacity": 3.0}, "objective.capacity=3: has no effect with objective.kind=weighted;"),
        ({"objective__kind": "tc", "objective__mmd_weight": 3.0}, "objective.mmd_weight=3: has no effect"),
        (
            {"objective__kind": "capacity", "objective__beta": 2.0},
            "objective.beta=2: has no effect with objective.kind=capacity; should be 1",
        ),
        ({"objective__kind": "geco", "objective__beta": 2.0}, "objective.beta=2: has no effect with objective.kind=geco;"),
        (
            {"objective__kind": "geco", "objective__distortion_weight": 0.0},
            "objective.distortion_weight=0: has no effect with objective.kind=geco; should be 1",
        ),
        (
            {"objective__kind": "geco", "schedule__distortion_weight": "linear:3"},
            "schedule.distortion_weight=linear:3: has no effect with objective.kind=geco;",
        ),
        (
            {"model__prior": "vamp", "schedule__noise_scale": "linear:3"},
            "objective.noise_scale=1 (linear:3) with model.prior=vamp: should be 0 or 1 and constant, because",
        ),
        (
            {"objective__kind": "tc", "objective__noise_scale": 0.5},
            "objective.noise_scale=0.5 with objective.kind=tc: should be 1, because",
        ),
        (
            {"objective__kind": "tc", "schedule__noise_scale": "linear:3"},
            "schedule.noise_scale=linear:3 with objective.kind=tc: should be constant, because",
        ),
        (
            {"objective__importance_samples": 5},
            "objective.importance_samples=5: has no effect with objective.kind=weighted; should be 1",
        ),
        (
            {"objective__kind": "importance", "objective__beta": 2.0},
            "objective.beta=2: has no effect with objective.kind=importance; should be 1",
        ),
        (
            {"objective__kind": "importance", "objective__noise_scale": 0.5},
            "objective.noise_scale=0.5: has no effect with objective.kind=importance; should be 1",
        ),
        (
            {"objective__kind": "importance", "schedule__beta": "linear:3"},
            "schedule.beta=linear:3: has no effect with objective.kind=importance; should be constant",
        ),
        ({"schedule__sigma": "linear:3"}, "schedule.sigma=linear:3: should be constant or one of cooling:EPOCHS"),
        ({"schedule__beta": "cooling:3"}, "schedule.beta=cooling:3: should be constant or one of linear:EPOCHS,"),
        ({"schedule__beta": "linear"}, "schedule.beta=linear: should be constant or one of linear:EPOCHS, cosine:EPOCHS,"),
        ({"schedule__beta": "linear:-3"}, "schedule.beta=linear:-3: should be"),
        ({"schedule__beta": "steps:3"}, "schedule.beta=steps:3: should be"),
        ({"schedule__beta": "constant:3"}, "schedule.beta=constant:3: should be"),
        ({"schedule__capacity": "linear:3"}, "schedule.capacity=linear:3: has no effect with objective.kind=weighted;"),
        (
            {"baselines": ("ppca",), "model__likelihood": "gaussian", "model__prior": "flow"},
            "baselines=('ppca',): ppca needs",
        ),
    ],
)
def test_objectives_that_mean_nothing(changed, said):
    assert refusal(**changed).startswith(said)


def test_what_a_weight_is_where_it_has_no_effect_is_its_default():
    assert all(field.unused in (None, field.default) for field in FIELDS.values())
    for kind in objectives.OBJECTIVES:
        runs_of(objective__kind=kind, objective__distortion_target=20.0 if kind == "geco" else 0.0)


@pytest.mark.parametrize(
    ("name", "key", "value", "only"),
    [
        ("digits", "data.path", "my.npz", "data.name=npy, data.name=npz and data.name=folder use it"),
        ("mnist", "data.path", "my.npz", "data.name=npy, data.name=npz and data.name=folder use it"),
        ("digits", "data.dir", "/sets", "image sets of TFDS use it"),
        ("npz", "data.download", True, "image sets of TFDS use it"),
    ],
)
def test_a_place_where_the_data_are_not_looked_for(name, key, value, only):
    said = f"{key}={value}: has no effect with data.name={name}; only {only}"
    assert refusal(data__name=name, **{key.replace(".", "__"): value}) == said
    assert refusal((key, str(value)), data__name=name) == said


def test_a_place_is_for_the_data_sets_of_the_study_that_are_looked_for_there():
    runs_of(("data.name", "digits,npz,mnist"), data__path="my.npz", data__dir="/sets", data__download=True)
    runs_of(sweep=rows_of({"data.name": "digits"}, {"data.name": "npz", "data.path": "my.npz"}))
    assert refusal(("data.name", "npz,digits"), ("data.path", "a.npz,b.npz")).startswith("data.path=a.npz: has no effect")


def test_the_lengths_of_schedules_share_a_program():
    found = runs_of(("schedule.beta", "linear:5,linear:20"), ("objective.beta", "1,2"))
    specs, hyperparams = zip(*(planning.specify(run, images(200)) for run in found), strict=True)
    assert len(set(specs)) == 1
    assert specs[0].schedules == (("beta", "linear"),)
    assert [float(h.schedule_epochs["beta"]) for h in hyperparams] == [5, 5, 20, 20]


def test_optimizers_differ_in_traced_numbers_but_for_whether_there_are_any():
    found = runs_of(
        ("optimizer.learning_rate", "0.1,0.2"), ("optimizer.weight_decay", "0.1,0.2"), ("optimizer.clip_norm", "0,1,2")
    )
    specs, hyperparams = zip(*(planning.specify(run, images(200)) for run in found), strict=True)
    assert len(set(specs)) == 2  # with and without clipping
    assert [float(h.optimizer.clip_norm) for h in hyperparams[:3]] == [0, 1, 2]
    assert (specs[0].optimizer.weight_decay, hyperparams[0].optimizer.weight_decay) == (1, np.float32(0.1))


@pytest.mark.parametrize("sigma", ["", "0", "-1", "1e-9", "nan", "inf", "learnt", "pixel by pixel"])
def test_a_sigma_that_is_none(sigma):
    message = refusal(model__likelihood="gaussian", model__sigma=sigma)
    assert message.startswith(f"model.sigma={sigma}: should be learned")
    assert message.endswith("or a number from 0.001 to 1e+06")


@pytest.mark.parametrize("kind", ["learned", "per_pixel", "optimal"])
def test_kinds_of_sigma(kind):
    (run,) = runs_of(model__likelihood="gaussian", model__sigma=kind)
    spec, hyperparams = planning.specify(run, images(200))
    assert (spec.model.sigma, hyperparams.sigma) == (kind, 1.0)


def test_a_kind_of_sigma_that_another_likelihood_has():
    message = refusal(model__likelihood="discretized_logistic", model__sigma="optimal")
    should = "should be learned, per_pixel or a number from 0.001 to 1e+06"
    assert message == f"model.sigma=optimal with model.likelihood=discretized_logistic: {should}"


def test_the_best_sigma_of_several_draws_has_no_closed_form():
    message = refusal(model__likelihood="gaussian", model__sigma="optimal", objective__kind="importance")
    assert message.startswith("model.sigma=optimal with objective.kind=importance: ")


def test_ppca_has_one_sigma():
    fields = {"model__likelihood": "gaussian", "baselines": ("ppca",)}
    assert refusal(model__sigma="per_pixel", **fields).startswith("baselines=('ppca',): ppca has one sigma for all pixels")
    runs_of(model__sigma="optimal", **fields)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objective__noise_scale": 0.5}, "objective.noise_scale=1, not 0.5"),
        ({"objective__distortion_weight": 2.0}, "objective.distortion_weight=1, not 2.0"),
        ({"schedule__beta": "linear:3"}, "schedule.beta=constant, not linear:3"),
        ({"objective__kind": "free_bits"}, "objective.kind=weighted, not free_bits"),
    ],
)
def test_ppca_is_the_optimum_of_two_terms_weighed_by_beta(changed, said):
    fields = {"model__likelihood": "gaussian", "baselines": ("ppca",)}
    assert refusal(**fields, **changed) == f"baselines=('ppca',): ppca needs {said}"
    runs_of(("objective.beta", "0.1,1,10"), **fields)
    # Without a rate there is no such row, and nothing to refuse.
    runs_of(objective__beta=0.0, objective__noise_scale=0.0, **fields)


def test_a_likelihood_of_levels_needs_whole_ones():
    levels = {"model__likelihood": "discretized_logistic", "model__sigma": "learned"}
    message = refusal_for(images(), **levels)
    assert message.startswith(
        "model.likelihood=discretized_logistic needs whole levels, as bytes have: train has other values"
    )
    whole = dataset.Split(np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8, 1) % 17)
    (run,) = runs_of(train__batch_size=10, **levels)
    spec, _ = planning.specify(
        run, dataset.Dataset({"train": whole, "test": whole}, dataset.ImageSpec((8, 8, 1), 16, False), 0)
    )
    assert spec.model.levels == 16
    bright = dataset.Dataset({"train": whole, "test": whole}, dataset.ImageSpec((8, 8, 1), 8, False), 0)
    assert refusal_for(bright, **levels).startswith(
        "model.likelihood=discretized_logistic needs values in [0, 1]: train has [0, 2]"
    )


def test_sigma_is_not_read_where_the_likelihood_has_none():
    (run,) = runs_of(model__likelihood="bernoulli", model__sigma="whatever")
    spec, hyperparams = planning.specify(run, images(200))
    assert spec.model.sigma == ""
    assert hyperparams.sigma == 1.0


@pytest.mark.parametrize(
    ("sweep", "fields", "said"),
    [
        (("model.sigma", "0.1,0.5"), {}, "(model.sigma=0.1): model.sigma has no effect with model.likelihood=bernoulli"),
        (("model.prior_components", "5,50"), {}, "model.prior_components has no effect with model.prior=normal"),
        (
            ("model.hidden", "(8,),(9,)"),
            {"model__encoder": "linear", "model__decoder": "linear"},
            "model.hidden has no effect with model.encoder=linear, model.decoder=linear",
        ),
        (
            ("model.hidden", "(8,),(9,)"),
            {"model__encoder": "linear", "model__decoder_hidden": (7,)},
            "model.hidden has no effect with model.encoder=linear, model.decoder=mlp, model.decoder_hidden=(7,)",
        ),
        (
            ("model.decoder_hidden", "(),(8,)"),
            {"model__hidden": (8,)},
            "model.decoder_hidden has no effect with model.hidden=(8,)",
        ),
    ],
)
def test_runs_that_differ_in_what_they_do_not_use(sweep, fields, said):
    message = refusal(sweep, **fields)
    assert message.startswith("two runs are equal (")
    assert message.endswith(f"{said}; should have one value")


def test_runs_of_which_one_uses_what_they_differ_in():
    runs_of(("model.sigma", "0.1,0.5"), model__likelihood="gaussian")
    runs_of(("model.prior_components", "5,50"), model__prior="vamp")
    runs_of(("model.hidden", "(8,),(9,)"), model__encoder="linear")
    assert "model.likelihood=bernoulli" in refusal(("model.likelihood", "gaussian,bernoulli"), ("model.sigma", "0.1,0.5"))


def test_a_constraint_without_a_target():
    message = refusal(objective__kind="geco")
    assert message.startswith("objective.distortion_target=0 with objective.kind=geco: is not set; should be the distortion")
    runs_of(objective__kind="geco", objective__distortion_target=-3.0)


def test_a_run_with_the_name_of_a_baseline():
    said = "name=pca: is the name of a row of baselines; should be another"
    assert refusal(name="pca", baselines=("pca",)) == said
    assert refusal(("name", "vae,pca"), baselines=("pca",)) == said
    runs_of(name="pca")
    runs_of(name="ppca", baselines=("pca",))


# Rules that need the data


def test_a_batch_larger_than_the_data_is_the_data(monkeypatch, capsys):
    (run,) = runs_of(train__batch_size=10)
    assert planning.specify(run, images(10))[0].batch_size == 10
    assert planning.specify(run, images(9))[0].batch_size == 9
    monkeypatch.setattr(dataset, "load", lambda **_: images(9))
    planning.plan(tiny(train__batch_size=10), None, [("seed", ("0", "1"))])
    assert capsys.readouterr().err == "train.batch_size=10: a batch is all of the training split, 9 images\n"
    planning.plan(tiny(train__batch_size=9))
    assert capsys.readouterr().err == ""


def test_a_batch_of_0_is_the_whole_split():
    (run,) = runs_of(train__batch_size=0)
    assert planning.specify(run, images(9))[0].batch_size == 9


def test_a_discrepancy_needs_two_images():
    for size in (1, 0):
        message = refusal_for(images(1), objective__kind="mmd", train__batch_size=size)
        assert message.startswith(f"train.batch_size={size} with objective.kind=mmd: should be a batch of at least 2 images")
    (run,) = runs_of(objective__kind="mmd", train__batch_size=2)
    assert planning.specify(run, images(2))[0].batch_size == 2


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
def test_bernoulli_needs_values_between_0_and_1(likelihood):
    message = refusal_for(images(high=1.5), model__likelihood=likelihood)
    assert message.startswith(f"model.likelihood={likelihood} needs values in [0, 1]: train has [0, 1.5]")
    (run,) = runs_of(train__batch_size=10, model__likelihood="gaussian")
    planning.specify(run, images(high=1.5))


def test_bernoulli_looks_at_every_split():
    good, bad = images(), images(high=-0.5)
    mixed = dataclasses.replace(good, splits=good.splits | {"test": bad.splits["test"]})
    assert refusal_for(mixed).startswith("model.likelihood=bernoulli needs values in [0, 1]: test has [-0.5, 0]")


@pytest.mark.parametrize("shape", [(9, 7, 1), (7, 7, 1), (64,)])
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_conv_needs_images_from_8x8(shape, network):
    """The message names the network that is one."""
    message = refusal_for(images(shape=shape), **{f"model__{network}": "conv"})
    assert message == f"model.{network}=conv needs images from 8x8 up: these have shape {shape}"


@pytest.mark.parametrize("hidden", [(8,), (2, 2, 2, 2, 8)])
def test_conv_needs_as_many_layers_as_the_image_can_be_halved(hidden):
    message = refusal_for(images(), model__encoder="conv", model__hidden=hidden)
    assert message.startswith(f"model.hidden={hidden}: conv takes channels of 1 to 3 convolutions")


def test_kernels_and_strides_are_of_networks_that_have_them():
    message = refusal(model__kernel=(3,))
    assert message == ("model.kernel=(3,): has no effect with model.decoder=mlp and model.encoder=mlp; should be (4,)")
    (run,) = runs_of(model__decoder="conv", model__kernel=(3, 5), model__stride=(1, 2), model__hidden=(2, 3, 4))
    model = planning.specify(run, images(shape=(8, 12, 3)))[0].model
    assert (model.kernel, model.stride) == ((3, 5), (1, 2))
    message = refusal_for(images(), model__decoder="conv", model__kernel=(3, 5), model__hidden=(2, 3, 4, 4))
    assert message == "model.kernel=(3, 5): should be one number, or 3, one for each convolution of the decoder"


def test_a_decoder_with_layers_of_its_own():
    own = {"decoder_hidden": (3, 9), "decoder_kernel": (5,), "decoder_stride": (1,), "decoder_activation": "relu"}
    conv = {"model__encoder": "conv", "model__decoder": "conv", "model__hidden": (2, 3, 4), "model__kernel": (3, 5)}
    (run,) = runs_of(**conv, **{f"model__{name}": value for name, value in own.items()})
    model = planning.specify(run, images(shape=(8, 12, 3)))[0].model
    assert {name: vars(model)[name] for name in own} == own
    message = refusal_for(images(), **conv, model__decoder_hidden=(3, 9))
    assert message == "model.kernel=(3, 5): should be one number, or 1, one for each convolution of the decoder"
    message = refusal_for(images(), **conv, model__decoder_hidden=(9,), model__decoder_kernel=(4,))
    assert message.startswith("model.decoder_hidden=(9,): conv takes channels of 1 to 3 convolutions")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decoder_kernel": (3,)}, "model.decoder_kernel=(3,): has no effect with model.decoder=mlp; should be empty"),
        (
            {"kernel": (3,), "decoder": "conv", "decoder_kernel": (5,)},
            "model.kernel=(3,): has no effect with model.decoder=conv and model.encoder=mlp and model.decoder_kernel=(5,); "
            "should be (4,)",
        ),
        (
            {"decoder": "linear", "decoder_hidden": (8,)},
            "model.decoder_hidden=(8,): has no effect with model.decoder=linear; should be empty",
        ),
        (
            {"decoder": "linear", "decoder_activation": "relu"},
            "model.decoder_activation=relu: has no effect with model.decoder=linear; should be empty",
        ),
        (
            {"decoder_activation": "rleu"},
            "model.decoder_activation=rleu: should be one of relu, tanh, softplus, gelu, elu or empty",
        ),
    ],
)
def test_settings_of_a_decoder_that_has_no_use_for_them(fields, said):
    assert refusal(**{f"model__{name}": value for name, value in fields.items()}) == said


@pytest.mark.parametrize("kind", ["learned", "per_pixel", "optimal"])
def test_a_free_sigma_needs_fewer_latents_than_pixels(kind):
    free = {"model__likelihood": "gaussian", "model__sigma": kind}
    message = refusal_for(images(shape=(4,)), model__latents=4, **free)
    assert message.startswith(f"model.latents=4 with model.sigma={kind}: should be below 4, the number of pixels")
    (run,) = runs_of(train__batch_size=10, model__latents=3, **free)
    assert planning.specify(run, images(shape=(4,)))[0].model.sigma == kind


# What shares a program


def specs_of(*sweeps, **fields):
    return [planning.specify(run, images()) for run in runs_of(*sweeps, **{"train__batch_size": 10} | fields)]


@pytest.mark.parametrize(
    "sweep",
    [
        ("seed", "0,1"),
        ("objective.beta", "0,4"),
        ("objective.distortion_weight", "0,1"),
        ("objective.noise_scale", "0.5,1"),
        ("optimizer.learning_rate", "0.1,0.01"),
        ("name", "a,b"),
    ],
)
def test_traced_fields_share_a_program(sweep):
    (one, _), (other, _) = specs_of(sweep)
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "sweep",
    [
        ("model.latents", "2,3"),
        ("model.hidden", "(8,),(9,)"),
        ("model.encoder", "mlp,linear"),
        ("model.activation", "tanh,relu"),
        ("model.likelihood", "bernoulli,gaussian"),
        ("train.batch_size", "5,10"),
        ("train.epochs", "1,2"),
        ("optimizer.schedule", "constant,cosine"),
        ("optimizer.b1", "0.5,0.9"),
    ],
)
def test_static_fields_do_not(sweep):
    (one, _), (other, _) = specs_of(sweep)
    assert one != other


def test_a_number_for_sigma_is_traced_and_a_kind_is_not():
    (a, ours), (b, theirs), (c, _) = specs_of(("model.sigma", "0.5,2,learned"), model__likelihood="gaussian")
    assert a == b != c
    assert (ours.sigma, theirs.sigma) == (0.5, 2.0)


def test_hyperparams_are_the_numbers_of_the_config():
    ((_, hyperparams),) = specs_of(
        seed=7, objective__beta=3.0, objective__distortion_weight=0.5, optimizer__learning_rate=0.25
    )
    assert hyperparams.seed == 7
    assert hyperparams.seed.dtype == np.int32
    assert hyperparams.optimizer.learning_rate == 0.25
    weights = hyperparams.objective
    assert (weights.noise_scale, weights.distortion_weight, weights.beta) == (1.0, 0.5, 3.0)


def test_group_keeps_the_order_and_loads_each_data_set_once():
    asked = []

    @functools.cache
    def loaded(source):
        asked.append(dict(source)["seed"])
        return images()

    # One batch size for each data seed: the two groups take turns.
    runs = runs_of(("seed", "0,1"), ("data.seed", "5,6"), train__batch_size=10)
    groups = planning.group(runs, loaded)
    assert [[number for number, _ in members] for members in groups.values()] == [[0, 2], [1, 3]]
    assert [[int(hyperparams.seed) for _, hyperparams in members] for members in groups.values()] == [[0, 1], [0, 1]]
    assert asked == [5, 6]


@pytest.mark.parametrize(
    "sweep", [("eval.samples", "1,2"), ("train.chunk_epochs", "1,2"), ("train.checkpoint_every", "0,2")]
)
def test_what_is_looked_at_otherwise_is_grouped_apart(sweep):
    groups = planning.group(runs_of(sweep, train__batch_size=10), lambda source: images())
    assert len(groups) == 2
