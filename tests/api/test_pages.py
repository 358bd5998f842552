"""What `vae_jax.report` describes of a study, and what it does where something is missing."""

import numpy as np
import pytest
from support import tiny

from vae_jax.api import pages
from vae_jax.core import errors
from vae_jax.figures.report import content, explorer, page
from vae_jax.study import planning, study
from vae_jax.study.config import FIELDS

pytestmark = pytest.mark.usefixtures("one_run_at_a_time")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study.run(tiny(), folder, sweeps=[("objective.beta", ["0", "1", "4"]), ("seed", ["0", "1"])])
    return folder


def test_the_models_of_the_first_seed_are_described_with_the_test_images(workdir):
    described = pages.describe(workdir, planning.loader())
    assert [model["run"] for model in described["models"]] == explorer.chosen(workdir) == [0, 2, 4]
    assert described["images"].shape == (359, 8, 8, 1) and len(described["labels"]) == 359
    assert described["fields"]["objective.beta"]["default"] == 1.0


def test_every_column_of_the_table_is_explained(workdir):
    shown = content.study(workdir, pages.describe(workdir, planning.loader()))["columns"]
    helps = {column["key"]: column["help"] for column in shown}
    assert helps["elbo"].endswith("Higher is better.") and "(nats" in helps["rate"]
    assert helps["train_elbo"] == f"Training split. {helps['elbo']}"
    assert helps["elbo_se"] == "Standard error over draws of elbo."
    assert helps["objective.beta"] == FIELDS["objective.beta"].doc
    assert [key for key, text in helps.items() if not text] == []


def test_without_data_the_images_that_evaluation_kept_are_shown(workdir, monkeypatch):
    def gone(**fields):
        raise errors.UserError("no such file")

    monkeypatch.setattr(planning.dataset, "load", gone)
    described = pages.describe(workdir, planning.loader())
    assert described["images"].shape == (16, 8, 8, 1)
    assert explorer.pack(workdir, described)["images"]["count"] == 16


def test_data_that_were_loaded_are_not_loaded_again(tmp_path, monkeypatch):
    """The command that trained a study has them."""
    planned = study.plan(tiny())
    study.execute(planned, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(planning.dataset, "load", None)
        assert pages.describe(tmp_path, planned.load)["images"].shape == (359, 8, 8, 1)


def test_without_models_there_is_a_page_without_an_explorer(workdir, monkeypatch):
    monkeypatch.setattr(pages, "trained_models", type("Nothing", (), {"path": lambda workdir, run: workdir / "none"}))
    html = pages.report(workdir).read_text()
    assert '"explorer":null' in html and 'id="explore-0"' not in html and 'id="results-0"' in html


def test_a_directory_without_results_is_refused_in_one_line(tmp_path):
    with pytest.raises(errors.UserError, match=r"results.csv: no such file"):
        pages.report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_more_weights_than_there_is_room_for_are_thinned_out_or_stored_in_16_bits(workdir, monkeypatch):
    described = pages.describe(workdir, planning.loader())
    monkeypatch.setattr(explorer.packing, "PRECISE", 1000)
    packed = explorer.pack(workdir, described)
    assert not packed["precise"] and any("scale" in array for array in packed["arrays"])
    packed = explorer.pack(workdir, described, room=20_000.0)
    assert [model["beta"] for model in packed["models"]] == [0, 1] and packed["left_out"] == 1


def test_the_model_that_the_page_opens_with_is_not_left_out():
    assert explorer._spread(6, 3) == explorer._spread(6, 3, 2) == [0, 2, 5]
    assert explorer._spread(6, 3, 3) == [0, 3, 5] and explorer._spread(6, 2, 3) == [0, 3]
    assert explorer._spread(6, 2, 1) == [0, 1] and explorer._spread(6, 6, 3) == [0, 1, 2, 3, 4, 5]


def test_a_page_is_no_larger_than_its_limit(workdir, monkeypatch):
    every = len(pages.report(workdir).read_text())
    monkeypatch.setattr(page, "BYTES", every - 2000)
    html = pages.report(workdir).read_text()
    assert len(html) < page.BYTES and '"left_out":1' in html


def test_claims_are_shown_and_something_else_is_refused(workdir):
    path = workdir / "claims.json"
    try:
        path.write_text('[{"statement": "KL packs the codes", "verdict": "holds", "numbers": "1.0"}]')
        assert "KL packs the codes" in pages.report(workdir).read_text()
        path.write_text('{"statement": 1}')
        with pytest.raises(errors.UserError, match=r"claims.json: should be a list of objects"):
            pages.report(workdir)
    finally:
        path.unlink()


def test_statistics_that_models_share_are_stored_once(workdir):
    packed = explorer.pack(workdir, pages.describe(workdir, planning.loader()))
    means = [model["statistics"]["mean"]["array"] for model in packed["models"]]
    assert len(set(means)) == 1
    kernels = [model["encoder"][0]["kernel"]["array"] for model in packed["models"]]
    assert len(set(kernels)) == len(kernels)


def test_the_images_of_the_page_are_those_of_the_codes_beside_them(workdir):
    described = pages.describe(workdir, planning.loader())
    images, which = explorer._images({**described, "images": described["images"][:7]})
    assert which.tolist() == list(range(7)) and np.array_equal(images, described["images"][:7])
