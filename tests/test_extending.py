"""One config file outside the checkout adds a part of every kind; it trains, is killed, goes on, is evaluated and drawn."""

import os
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
from support import ROOT, is_there, wait_for

from vae_jax.storage import tables

SMALL = ("--config.train.epochs=16", "--config.train.chunk_epochs=1", "--config.train.checkpoint_every=2")
SMALL += (
    "--config.model.encoder=linear",
    "--config.train.batch_size=20",
    "--config.eval.samples=2",
    "--config.eval.decoded=20",
    "--config.eval.aggregate_samples=0",
)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The file of docs/extending.md, away from the checkout."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "def get_config" in block]
    path = tmp_path_factory.mktemp("elsewhere") / "mine.py"
    path.write_text(block)
    return path


def test_all_parts_together_take_fewer_than_80_lines(mine):
    assert len([line for line in mine.read_text().splitlines() if line.strip()]) < 80


@pytest.fixture(scope="module")
def trained(mine, forks, tmp_path_factory):
    """A study of that file, killed in between, that went on and was drawn; read only, and how its last command ended."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    command = [f"--config={mine}", f"--workdir={workdir}", *SMALL]
    process = forks.start("train", command)
    wait_for(lambda: is_there(workdir, "checkpoints/*/[0-9]*"))
    os.kill(process, signal.SIGKILL)
    assert forks.end().code != 0
    return workdir, forks.run("train", command, drawn=True)


def test_it_trains_is_killed_goes_on_and_is_drawn(mine, forks, trained, tmp_path):
    workdir, ended = shutil.copytree(trained[0], tmp_path / "run"), trained[1]
    assert ended.code == 0, ended.err
    (row,) = tables.read_csv(workdir / "results.csv")
    assert np.isfinite(row["elbo"]) and row["rate_se"] > 0 and row["sharpness"] > 0
    assert (workdir / "figures/sharpness.png").exists()
    config = f"--config={mine}"
    assert forks.run("evaluate", [config, f"--workdir={workdir}"]).code == 0
    assert tables.read_csv(workdir / "results.csv") == [row]
    drawn = forks.run("figures", [config, f"--workdir={workdir}", "--only=sharpness"], drawn=True)
    assert drawn.code == 0 and "sharpness.png" in drawn.out


def test_without_the_file_the_missing_part_is_named(mine, forks, trained):
    for main in ("evaluate", "figures"):
        assert_is_named(mine, forks.run(main, [f"--workdir={trained[0]}"], drawn=True))


def assert_is_named(mine, ended) -> None:
    assert ended.code == 2 and len(ended.err.strip().splitlines()) == 1
    assert "mine.py" in ended.err and pathlib.Path(mine).exists()
