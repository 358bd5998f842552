"""Event files of a study, read back by TensorBoard itself."""

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from vae_jax.core import errors
from vae_jax.figures import tensorboard
from vae_jax.storage import run_directory, tables

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000010802000000"
)  # the header of a picture of 2x1 pixels in RGB


@pytest.fixture
def workdir(tmp_path, studies):
    """A small study with one picture, as training leaves it."""
    studies.write_study(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "samples.png").write_bytes(PNG)
    run_directory.record(tmp_path, [*run_directory.FILES, "figures/samples.png"])
    return tmp_path


def read(workdir, folder: str) -> EventAccumulator:
    events = EventAccumulator(str(workdir / "tensorboard" / folder))
    return events.Reload()


def test_each_run_has_its_curves_and_final_metrics(workdir):
    tensorboard.write(workdir)
    rows = tables.read_csv(workdir / "results.csv")
    folders = {path.name for path in (workdir / "tensorboard").iterdir()}
    assert folders == {f"{row['run']:04d}_{row['name']}_seed{row['seed']}" for row in rows[:-1]} | {"0012_pca", "figures"}
    row = next(row for row in rows if row["name"] == "vae" and row["seed"] == 1)
    events = read(workdir, f"{row['run']:04d}_vae_seed1")
    lines = [line for line in run_directory.read_metrics(workdir) if line["run"] == row["run"]]
    for column, tag in (("train_loss", "train/loss"), ("valid_rate", "valid/rate")):
        assert [(event.step, event.value) for event in events.Scalars(tag)] == [
            (line["epoch"], pytest.approx(line[column], rel=1e-6)) for line in lines
        ]
    (final,) = events.Scalars("final/elbo")
    assert (final.step, final.value) == (3, pytest.approx(row["elbo"], rel=1e-6))
    assert "step" not in events.Tags()["scalars"]


def test_what_is_infinite_is_left_out(workdir):
    tensorboard.write(workdir)
    scalars = read(workdir, "0000_ae_seed0").Tags()["scalars"]
    assert "final/distortion" in scalars and "final/rate" not in scalars


def test_settings_are_hyperparameters(workdir):
    tensorboard.write(workdir)
    content = read(workdir, "0000_ae_seed0").summary_metadata
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    assert start.hparams["objective.beta"].number_value == 0
    assert start.hparams["name"].string_value == "ae"
    # The table has the columns of all runs, whichever file it reads first.
    of_all = [
        metadata.parse_experiment_plugin_data(
            read(workdir, folder).summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
        )
        for folder in ("0000_ae_seed0", "0012_pca")
    ]
    assert of_all[0] == of_all[1]
    assert {"objective.beta", "seed"} <= {info.name for info in of_all[0].hparam_infos}
    assert "final/rate" in {info.name.tag for info in of_all[0].metric_infos}


def test_figures_are_images(workdir):
    tensorboard.write(workdir)
    (image,) = read(workdir, "figures").Images("samples")
    assert (image.width, image.height, image.encoded_image_string) == (2, 1, PNG)


def test_written_again_they_are_the_same_files_and_restart_removes_them(workdir):
    paths = tensorboard.write(workdir)
    before = [path.read_bytes() for path in paths]
    assert tensorboard.write(workdir) == paths
    assert [path.read_bytes() for path in paths] == before
    run_directory.clear(workdir)
    assert not any(path.is_file() for path in (workdir / "tensorboard").rglob("*"))


def test_a_file_of_somebody_else_is_not_replaced(workdir):
    folder = workdir / "tensorboard" / "0000_ae_seed0"
    folder.mkdir(parents=True)
    (folder / tensorboard.FILE).write_text("mine")
    with pytest.raises(errors.UserError, match="no study recorded writing it"):
        tensorboard.write(workdir)
    assert (folder / tensorboard.FILE).read_text() == "mine"
    assert len(list((workdir / "tensorboard").rglob("*"))) == 2


def test_a_name_cannot_leave_the_folder(workdir):
    tables.write_csv(workdir / "results.csv", [{"run": 0, "name": "../../a b", "seed": 0, "elbo": 1.0}])
    assert tensorboard.write(workdir)[0].parent == workdir / "tensorboard" / "0000_.._.._a_b_seed0"


def test_without_tensorboardx_it_is_refused(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.UserError, match="pip install tensorboardX"):
        tensorboard.write(workdir)
