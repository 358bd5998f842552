"""`report.html`: studies on one page that needs no network, with their trained models to play with.

    page.write(["runs/ablations"], [described])     # `api.pages.report` describes the models first

The scripts are plain JavaScript, one file for each part of the page, and are put into it as they are; the page's
Content-Security-Policy admits exactly them. Texts of users are escaped by the template, and `<` in the data.
"""

import base64
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vae_jax.figures import draw
from vae_jax.figures.report import content, explorer, packing
from vae_jax.storage import run_directory

HERE = pathlib.Path(__file__).parent
NAME = "report.html"
BYTES = 5_000_000  # of a study: models and images are left out of a larger page, down to two models
# In the order in which they are run: each uses those before it.
SCRIPTS = (
    "networks", "base", "table", "chart", "plots", "pictures", "plane", "models", "sliders", "drawing", "line", "main",
)  # fmt: skip


def write(workdirs: Sequence[str | os.PathLike], described: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Write the page of these studies into the first one's directory; returns its path.

    Args:
      workdirs: of evaluated studies.
      described: for each study a dict, every entry of which may be missing:
        `models`: dicts with `run` and what `evaluation.portable.describe` gives, plain NumPy; of a network that is told
          beta also `betas`, the least and the largest that it was trained for;
        `images` [n, *shape] float32 in units of 1, `labels` [n], `factors` [n, factors], `factor_names`: the test split;
        `columns`: {column: what it means}; `main`: the columns that are shown at first;
        `fields`: {config name: {"doc", "default"}}.

    Raises:
      UserError: a directory without readable results.
    """
    folders = [pathlib.Path(workdir) for workdir in workdirs]
    studies = [content.study(folder, about) for folder, about in zip(folders, described, strict=True)]
    pictures = [figures(folder) for folder in folders]
    for study, folder, about, drawn in zip(studies, folders, described, pictures, strict=True):
        study["explorer"] = explorer.pack(folder, about, float(BYTES - _taken(study, drawn)))
    path = folders[0] / NAME
    run_directory.record(folders[0], [NAME])
    with run_directory.atomic_write(path, encoding="utf-8") as file:
        file.write(_render(studies, pictures))
    return path


def figures(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The drawn figures of a study: name, caption and data URL."""
    found = []
    for name, function in [*draw.FIGURES.items(), *draw.ANIMATIONS.items()]:
        for ending in ("gif",) if function in draw.ANIMATIONS.values() else ("png",):
            if (path := workdir / "figures" / f"{name}.{ending}").is_file():
                found.append((path, name.replace("_", " "), (function.__doc__ or "").partition("\n")[0]))
    urls = packing.pictures([path for path, _, _ in found])
    return [{"name": name, "caption": caption, "url": url} for (_, name, caption), url in zip(found, urls, strict=True)]


def _taken(study: Mapping[str, Any], drawn: Sequence[Mapping[str, str]]) -> int:
    """Bytes of the page beside the models and images: its own files, the data, what the template writes too, figures."""
    own = sum(path.stat().st_size for path in HERE.iterdir() if path.suffix in (".js", ".css", ".jinja"))
    written = [study, study["config"], study["header"], study["claims"]]
    return own + sum(len(json.dumps(each)) for each in written) + sum(len(picture["url"]) for picture in drawn)


def _render(studies: list[dict], pictures: list[list[dict]]) -> str:
    import jinja2

    script = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = (HERE / "style.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps({"studies": studies}, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return environment.get_template("report.html.jinja").render(
        studies=studies, pictures=pictures, policy=policy, script=script, style=style, data=data
    )


def _hash(source: str) -> str:
    """As a Content-Security-Policy names the source that it admits."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
