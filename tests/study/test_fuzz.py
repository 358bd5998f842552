"""Whatever is typed, or written into a config: it runs, or it ends in one line and leaves nothing behind."""

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import SMALL

from vae_jax.study import config

NAMES = [*config.FIELDS, "beta", "objective.betta", "objective", "model.", ".seed", "", "seed.seed", "SEED", "--seed"]
# No number so large that it is allowed, and takes years.
TEXTS = ["0", "1", "2", "3", "-1", "0.5", "1e-3", "1e9", "-0.0", "nan", "inf", "-inf", "1e999", "1e-320", "2147483648"]
TEXTS += [30 * "9", 5000 * "9", "1_0", "0x10", "1,2", "(8,)", "(8,,8)", "((8))", "[8", "()", "[]", ",", "", " ", "true"]
TEXTS += ["None", "none", "linear", "conv", "gaussian", "bernoulli", "learned", "digits", "npz", "tests/data/vectors.npz"]
TEXTS += [
    "tests",
    "/dev/null",
    "/dev/zero",
    "\ud800",
    "\x1b[2J",
    "a\nb",
    "é",
    "%s",
    "{}",
    "$HOME",
    "'",
    '"',
    "\\",
    "a" * 5000,
]
PUNCTUATION = "abcxyzEN()[]{}.,;:=+-_*/\\'\"$%&!?#~ \t\n\x07é"
VALUES = st.sampled_from(TEXTS) | st.text(PUNCTUATION, max_size=8)
PYTHON = ["None", "3", "-1", "'x'", "1.5", "True", "(1,)", "[]", "{}", "{3: 4}", "float('nan')", "10**30", "b'x'", "print"]
PYTHON += ["object()", "'a\\nb'", "('a',)", "{'name': 1}", "{'seed': None}", "{'model': {'latents': 3}}", "1 / 0", "set()"]
CODE = """from configs import base
def get_config():
    config = base.get_config()
{fields}    return config
"""

overrides = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=2)
sweeps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(VALUES, max_size=3).map(",".join)).map("=".join) | VALUES, max_size=2
)
flags = st.lists(
    st.sampled_from(["--config", "--sweep", "x", "--", "-", "--override=", "--override=seed", "--seed=1", "--nosweep"])
    | st.sampled_from(["--cpu_devices=0", "--cpu_devices=x", "--cpu_devices=1", "--restart", "--norestart", "--restart=2"]),
    max_size=1,
)
configs = st.none() | st.tuples(
    st.lists(st.tuples(st.sampled_from(list(config.FIELDS)), st.sampled_from(PYTHON)), max_size=2),
    st.none() | st.sampled_from(PYTHON),
    st.booleans(),
)


@pytest.fixture(scope="module")
def typed(forks, tmp_path_factory):
    """Types one command line, and checks how it ended."""
    folder, count = tmp_path_factory.mktemp("fuzz"), itertools.count()

    def type_and_check(overrides, sweeps, flags, config):
        number = next(count)
        workdir, path = folder / f"run_{number}", "configs/vae.py"
        small = {**SMALL, "train.epochs": 2}
        if config:
            path = folder / f"config_{number}.py"
            fields, added, callable_sweep = config
            code = CODE.format(fields="".join(f"    config.{key} = {value}\n" for key, value in fields))
            if added is not None:
                code += f"def sweep(add):\n    add({added})\n" if callable_sweep else f"sweep = {added}\n"
            path.write_text(code)
            small = {key: value for key, value in small.items() if key not in dict(fields)}
        small = {key: value for key, value in small.items() if key not in dict(overrides)}
        words = [f"--config={path}", *(f"--config.{key}={value}" for key, value in [*small.items(), *overrides])]
        words += [*(f"--sweep={sweep}" for sweep in sweeps), f"--workdir={workdir}", *flags]
        ended = forks.run("train", words, drawn=True)
        where = f"{words} ended as {ended}"
        assert "Traceback" not in ended.err, where
        if "--config" in words:  # without a value: the list of config files
            assert (ended.code, ended.err, workdir.exists()) == (0, "", False), where
        elif ended.code in (0, 3):
            assert (workdir / "results.csv").exists(), where
        else:
            assert (ended.code, ended.out) == (2, ""), where
            assert ended.err.startswith("error: "), where
            assert ended.err.count("\n") == 1, where
            assert not workdir.exists(), where

    return type_and_check


def fuzzed(examples: int, derandomize: bool):
    """What failed once is tried each time."""

    def decorate(test):
        for found in FOUND:
            test = example(**found)(test)
        test = given(overrides=overrides, sweeps=sweeps, flags=flags, config=configs)(test)
        checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
        return settings(
            max_examples=examples, derandomize=derandomize, deadline=None, database=None, suppress_health_check=checks
        )(test)

    return decorate


NOTHING = {"overrides": [], "sweeps": [], "flags": [], "config": None}
FOUND = [
    NOTHING | {"config": ([], "3", True)},  # add(3)
    NOTHING | {"config": ([("objective.beta", "None")], None, False)},
    NOTHING | {"overrides": [("name", "\ud800")]},  # written into results.csv after hours of training
    NOTHING | {"overrides": [("model.latents", "1000000000")]},
    NOTHING | {"overrides": [("objective.kind", "mmd"), ("train.batch_size", "1")]},  # no two images to compare
    NOTHING | {"overrides": [("objective.kind", "tc")], "sweeps": ["objective.noise_scale=1,0.5"]},
    NOTHING | {"overrides": [("data.name", "digits")]},  # with the path of another set
    NOTHING | {"sweeps": ["seed=" + ",".join(map(str, range(1000))), "data.seed=" + ",".join(map(str, range(1000)))]},
]


@fuzzed(30, derandomize=True)
def test_it_runs_or_ends_in_one_line(typed, overrides, sweeps, flags, config):
    typed(overrides, sweeps, flags, config)


@pytest.mark.stress
@fuzzed(300, derandomize=False)
def test_it_runs_or_ends_in_one_line_whatever_is_typed(typed, overrides, sweeps, flags, config):
    typed(overrides, sweeps, flags, config)
