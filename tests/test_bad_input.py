"""A user's mistake is one line on standard error and exit code 2, and nothing is written: each as typed in a shell."""

import pathlib

import numpy as np
import pytest

VAE = "--config=configs/vae.py"
NPZ = ("--config.data.name=npz", "--config.train.batch_size=8")
# What is typed after `python -m experiments.train`; {tmp} is a directory of files that are in it, {workdir} none yet.
TRAIN = {
    # Names.
    "no config": ([], "flag --config=None"),
    "unknown config file": (["--config=configs/vea.py"], "unknown config 'configs/vea.py': did you mean configs/vae.py"),
    "a directory for a config": (["--config=configs"], "unknown config 'configs': did you mean"),
    "config with a syntax error": (["--config={tmp}/syntax.py"], "--config={tmp}/syntax.py: SyntaxError"),
    "config that raises": (["--config={tmp}/raises.py"], "--config={tmp}/raises.py, line 2: ZeroDivisionError"),
    "config that sets a wrong type": (["--config={tmp}/kind.py"], "--config={tmp}/kind.py, line 4: TypeError"),
    "config that sets an unknown field": (
        ["--config={tmp}/field.py"],
        "unknown config name 'objective.betta': did you mean objective.beta",
    ),
    "config without get_config": (["--config={tmp}/empty.py"], "--config={tmp}/empty.py: has no get_config()"),
    "unknown config name": (
        [VAE, "--config.objectve.beta=1"],
        "unknown config name 'objectve.beta': did you mean objective.beta",
    ),
    "last part of a name": ([VAE, "--config.beta=1"], "unknown config name 'beta': did you mean objective.beta"),
    "group for a name": ([VAE, "--config.objective=1"], "unknown config name 'objective': did you mean objective."),
    "unknown sweep name": ([VAE, "--sweep=beta=1,2"], "unknown config name 'beta': did you mean objective.beta"),
    # Values.
    "negative beta": ([VAE, "--config.objective.beta=-1"], "objective.beta=-1.0: should be from 0"),
    "negative beta in a sweep": ([VAE, "--sweep=objective.beta=1,-1"], "objective.beta=-1.0: should be from 0"),
    "nan for beta": ([VAE, "--config.objective.beta=nan"], "objective.beta=nan: should be from 0"),
    "word for a number": ([VAE, "--config.objective.beta=two"], "objective.beta=two: should be a number"),
    "half a latent": ([VAE, "--sweep=model.latents=2.5"], "model.latents=2.5: should be a whole number"),
    "zero epochs": ([VAE, "--config.train.epochs=0"], "train.epochs=0: should be from 1"),
    "no noise and a rate": ([VAE, "--config.objective.noise_scale=0"], "objective.noise_scale=0 with objective.beta=1"),
    "beta that has no effect": (
        [VAE, "--config.objective.kind=geco", "--config.objective.distortion_target=20", "--sweep=objective.beta=1,2"],
        "objective.beta=2: has no effect with objective.kind=geco; should be 1",
    ),
    "distortion weight that has no effect": (
        [VAE, "--config.objective.kind=geco", "--config.objective.distortion_weight=2"],
        "objective.distortion_weight=2: has no effect with objective.kind=geco; should be 1",
    ),
    "total correlation of other noise": (
        [VAE, "--config.objective.kind=tc", "--config.objective.noise_scale=0.5"],
        "objective.noise_scale=0.5 with objective.kind=tc: should be 1",
    ),
    "discrepancy of one image": (
        [VAE, "--config.objective.kind=mmd", "--config.train.batch_size=1"],
        "train.batch_size=1 with objective.kind=mmd: should be a batch of at least 2 images",
    ),
    "exact row of other weights": (
        ["--config=configs/linear.py", "--config.objective.distortion_weight=2"],
        "baselines=('pca', 'ppca'): ppca needs objective.distortion_weight=1, not 2.0",
    ),
    "unknown network": ([VAE, "--config.model.encoder=cnn"], "model.encoder=cnn: should be one of mlp, conv, linear"),
    "unknown baseline": ([VAE, "--config.baselines=pcca"], "baselines=('pcca',): each should be one of pca"),
    # Flags.
    "coordinator without a port": ([VAE, "--coordinator=host"], "--coordinator=host: should be HOST:PORT of process 0"),
    "processes without a coordinator": ([VAE, "--processes=2"], "--coordinator=: should be HOST:PORT of process 0"),
    "a process too many": (
        [VAE, "--coordinator=127.0.0.1:1", "--processes=2", "--process=2"],
        "--process=2 --processes=2: should be a number from 0, and how many there are",
    ),
    "no value": ([VAE, "--config.objective.beta"], "--config.objective.beta: should be --config.objective.beta=VALUE"),
    "empty value": ([VAE, "--config.objective.beta="], "objective.beta=: should be a number"),
    "twice": ([VAE, "--config.seed=1", "--config.seed=2"], "--config.seed is given twice"),
    "value apart": ([VAE, "--config.seed", "1"], "unexpected argument '1'"),
    "stray word": ([VAE, "grid"], "unexpected argument 'grid': flags look like --name=value"),
    "unknown flag": ([VAE, "--wrkdir=x"], "Unknown command line flag 'wrkdir'"),
    "sweep without values": ([VAE, "--sweep=seed"], "--sweep=seed: should be --sweep=KEY=V1,V2,..."),
    "empty sweep": ([VAE, "--sweep=seed="], "--sweep=seed: no values"),
    "two equal runs": ([VAE, "--sweep=seed=1,1"], "two runs are equal: seed=1"),
    "two sweeps of one name": ([VAE, "--sweep=seed=1", "--sweep=seed=2"], "--sweep=seed: seed is given twice"),
    "sweep of a swept name": (["--config=configs/ablations.py", "--sweep=seed=1"], "--sweep=seed: seed is given twice"),
    "override of a swept name": (
        ["--config=configs/ablations.py", "--config.seed=1"],
        "--config.seed has no effect: the sweep of configs/ablations.py sets seed",
    ),
    "no devices": ([VAE, "--cpu_devices=0"], "--cpu_devices=0: should be at least 1"),
    # Data.
    "unknown data set": ([VAE, "--config.data.name=mnits"], "data.name='mnits' is not known (did you mean mnist"),
    "set that is not prepared": (
        [VAE, "--config.data.name=mnist", "--config.data.dir={tmp}"],
        "mnist is not prepared in {tmp}; nothing is downloaded unasked: pass --config.data.download=true",
    ),
    "path of another set": (
        [VAE, "--config.data.path={tmp}/good.npz"],
        "data.path={tmp}/good.npz: has no effect with data.name=digits; "
        "only data.name=npy, data.name=npz and data.name=folder use it",
    ),
    "directory of another set": (
        [VAE, "--config.data.dir={tmp}"],
        "data.dir={tmp}: has no effect with data.name=digits; only image sets of TFDS use it",
    ),
    "no path": ([VAE, *NPZ], "data.name=npz needs data.path=FILE.npz"),
    "no file": ([VAE, *NPZ, "--config.data.path={tmp}/none.npz"], "data.path={tmp}/none.npz: no such file"),
    "no archive": ([VAE, *NPZ, "--config.data.path={tmp}/text.npz"], "data.path={tmp}/text.npz: not a readable .npz"),
    "missing array": ([VAE, *NPZ, "--config.data.path={tmp}/missing.npz"], "{tmp}/missing.npz: no array 'train', only test"),
    "two shapes": (
        [VAE, *NPZ, "--config.data.path={tmp}/shapes.npz"],
        "{tmp}/shapes.npz: train (20, 8, 8) float32",
    ),
    "one number per image": ([VAE, *NPZ, "--config.data.path={tmp}/flat.npz"], "{tmp}/flat.npz: train has shape (20,)"),
    "too few labels": ([VAE, *NPZ, "--config.data.path={tmp}/labels.npz"], "{tmp}/labels.npz: train_labels has shape (3,)"),
    "labels that are no classes": (
        [VAE, *NPZ, "--config.data.path={tmp}/classes.npz"],
        "{tmp}/classes.npz: test_labels has dtype float64; should be integer, bool or string",
    ),
    "all for validation": (
        [VAE, *NPZ, "--config.data.path={tmp}/good.npz", "--config.data.valid_fraction=0.99"],
        "data.valid_fraction=0.99: leaves no training image of 20",
    ),
    "nan": ([VAE, *NPZ, "--config.data.path={tmp}/nan.npz"], "{tmp}/nan.npz: test is not finite in 1 value"),
    "not in [0, 1] for Bernoulli": (
        [VAE, *NPZ, "--config.data.path={tmp}/wide.npz"],
        "model.likelihood=bernoulli needs values in [0, 1]: train has [0, 1.",
    ),
    # Where to write: a path that nobody can make a directory, root or not.
    "file for a workdir": ([VAE, "--workdir={tmp}/text.npz"], "--workdir={tmp}/text.npz: is a file; should be a directory"),
    "workdir below a file": ([VAE, "--workdir={tmp}/text.npz/run"], "{tmp}/text.npz/run: Not a directory"),
    "workdir that cannot be written": ([VAE, "--workdir=/proc/run"], "/proc/run: No such file or directory"),
    "workdir of another config": (
        [VAE, "--workdir={tmp}/other"],
        "--workdir={tmp}/other belongs to another config: objective.beta is 2.0 there and 1.0 here",
    ),
}
READ = {
    "no workdir": ([], "flag --workdir=None"),
    "no such directory": (["--workdir={tmp}/none"], "{tmp}/none/"),
    "not a run directory": (["--workdir={tmp}"], "{tmp}/"),
    "a file": (["--workdir={tmp}/text.npz"], "{tmp}/text.npz/"),
    "not finished": (["--workdir={tmp}/other"], "{tmp}/other"),
    "stray word": (["--workdir={tmp}", "x"], "unexpected argument 'x'"),
}
EVALUATE = {
    "field of the training": (
        ["--workdir={tmp}/other", "--config.seed=1"],
        "--config.seed: is of the training; only eval fields can be changed here",
    ),
    "unknown field": (["--workdir={tmp}/other", "--config.eval.sample=1"], "unknown config name 'eval.sample'"),
}
FIGURES = {"override": (["--workdir={tmp}", "--config.seed=1"], "Unknown command line flag 'config.seed'")}
MAINS = {"train": TRAIN, "evaluate": READ | EVALUATE, "figures": READ | FIGURES}
CONFIGS = {
    "syntax": "def get_config(:\n",
    "raises": "def get_config():\n    return 1 / 0\n",
    "kind": "from configs import base\ndef get_config():\n    config = base.get_config()\n    config.model.hidden = 8\n",
    "field": "from configs import base\ndef get_config():\n    config = base.get_config()\n"
    "    config.objective.betta = 2.0\n    return config\n",
    "empty": "BETA = 2\n",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the cases name."""
    tmp = tmp_path_factory.mktemp("bad")
    for name, text in CONFIGS.items():
        (tmp / f"{name}.py").write_text(text)
    (tmp / "text.npz").write_text("hello")
    images = np.linspace(0, 1, 20 * 64, dtype=np.float32).reshape(20, 8, 8)
    holed = images.copy()
    holed[3, 4, 5] = np.nan
    archives = {
        "missing": {"test": images},
        "shapes": {"train": images, "test": images[:, 1:]},
        "flat": {"train": images[:, 0, 0], "test": images[:, 0, 0]},
        "labels": {"train": images, "test": images, "train_labels": np.zeros(3)},
        "good": {"train": images, "test": images},
        "classes": {"train": images, "test": images, "test_labels": np.linspace(0, 1, 20)},
        "nan": {"train": images, "test": holed},
        "wide": {"train": 2 * images, "test": images},
    }
    for name, arrays in archives.items():
        np.savez(tmp / f"{name}.npz", **arrays)
    begin(tmp / "other")
    return tmp


def begin(workdir: pathlib.Path) -> None:
    """A study with another beta, stopped before it did anything."""
    from configs import base
    from vae_jax.study import study
    from vae_jax.training import loop as fit

    config = base.get_config()
    config.objective.beta = 2.0
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "fit", interrupted)
        study.run(config, workdir)


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def typed(files, forks):
    """(main, case) -> exit code, standard output, standard error, workdir."""
    commands, workdirs = {}, {}
    for main, cases in MAINS.items():
        for case, (arguments, _) in cases.items():
            workdirs[main, case] = files / "new" / f"{len(commands)}"
            arguments = [argument.format(tmp=files) for argument in arguments]
            if main == "train" and not any(argument.startswith("--workdir") for argument in arguments):
                arguments.append(f"--workdir={workdirs[main, case]}")
            commands[main, case] = main, arguments
    before = snapshot(files)
    ended = {key: (*forks.run(*command, drawn=True), workdirs[key]) for key, command in commands.items()}
    assert snapshot(files) == before
    return ended


def snapshot(folder: pathlib.Path) -> dict:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("main", "case"), [(main, case) for main, cases in MAINS.items() for case in cases])
def test_one_line_and_nothing_written(typed, files, main, case):
    code, out, err, workdir = typed[main, case]
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert MAINS[main][case][1].format(tmp=files) in err
    assert (code, out) == (2, "")
    assert not workdir.exists()


def test_known_data_sets_are_listed(typed):
    message = typed["train", "unknown data set"][2]
    assert "known are digits, faces, sprites, npy, npz, folder, and the image sets of TFDS; prepared in " in message
