"""The notebook of the documents runs outside the checkout, and the outputs that it shows are those of a run."""

import base64
import io
import re

import nbclient
import nbformat
import numpy as np
from PIL import Image
from support import QUICK, ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def texts(notebook) -> list[str]:
    """What each cell of code prints and returns, without progress, pictures and the widths of columns."""
    shown = []
    for cell in notebook.cells:
        outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        printed = [output.text if output.output_type == "stream" else described(output.data) for output in outputs]
        shown.append(" ".join("".join(printed).split()))
    return shown


def described(data) -> str:
    return "picture" if "image/png" in data else data["text/plain"]


def test_stored_outputs_are_those_of_a_run(tmp_path, monkeypatch, request):
    stored, run = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook makes its directory
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no settings of the user
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as if it were installed
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(request.config.cache.mkdir("compiled")))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    for name, value in QUICK.items():  # another order of sums, as on another processor
        monkeypatch.setenv(name, value)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(run, timeout=300, kernel_name="python3", resources=folder).execute()
    for now, before in zip(texts(run), texts(stored), strict=True):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", before)
        numbers, shown = ([float(number) for number in NUMBER.findall(text)] for text in (now, before))
        # Numbers are shown with one decimal, and another processor may round the last one the other way.
        np.testing.assert_allclose(numbers, shown, rtol=0, atol=0.11)


def test_it_is_stored_small_and_clean():
    """No times, nothing on standard error, no path of the machine that ran it, every cell run in order."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 500_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(cell.metadata for cell in notebook.cells)
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert not re.search(r"\d s\b|/\w+/", "".join(texts(notebook)))


def test_it_needs_the_package_alone():
    """Only public names of `vae_jax`, and nothing of the checkout."""
    source = "\n".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, flags=re.MULTILINE))
    assert imported == {"pathlib", "tempfile", "numpy", "IPython", "PIL", "sklearn", "vae_jax"}
    used = set(re.findall(r"vae_jax\.(\w+)", source))
    assert {"curves", "default_config", "draw", "evaluate", "frame", "load", "run"} <= used


def test_pictures_are_not_dark():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    outputs = [
        output.data["image/png"] for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    pictures = [Image.open(io.BytesIO(base64.b64decode(output))).convert("L") for output in outputs]
    assert len(pictures) >= 10
    for picture in pictures:
        low, high = picture.getextrema()
        assert low < 50 and high > 180
