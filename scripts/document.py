"""Write the pages of docs/ that come from declarations in the code; a test holds them to it.

python -m scripts.document
"""

import pathlib
from collections.abc import Callable

from vae_jax.core import schema
from vae_jax.evaluation import metrics
from vae_jax.study.config import GROUPS

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = """# Config fields

Written by `python -m scripts.document` from the declarations in the code. Each is set in a config file
(`config.objective.beta = 4.0`), on the command line (`--config.objective.beta=4`), or swept
(`--sweep=objective.beta=0.5,1,2`, or `add({"objective.beta": 0.5})` in the config's own sweep). Runs that differ only
in fields marked *traced*, in `name` or in `seed` share one compiled program.
"""


def config_page() -> str:
    """docs/config.md: a table for each group of fields."""
    parts = [CONFIG]
    for group, declared in GROUPS.items():
        rows = [_row(field) for field in schema.fields(declared, group)]
        head = ["| field | default | what it is | allowed |", "|---|---|---|---|"]
        parts.append(
            "\n".join([f"## {group or 'Study'}", "", (declared.__doc__ or "").partition("\n")[0], "", *head, *rows, ""])
        )
    return "\n".join(parts)


KINDS = {str: "text", tuple: "tuple", bool: "true or false", int: "whole number", float: "number"}


def _row(field: schema.Field) -> str:
    default = f"`{str(field.default).replace(' ', '')}`" if field.default not in ("", ()) else "empty"
    each = "each " if field.kind is tuple else ""
    allowed = f", {each}{field.allowed}" if field.allowed else ""
    doc = field.doc + (" *Traced.*" if field.traced else "")
    return f"| `{field.key}` | {default} | {doc} | {KINDS[field.kind]}{allowed} |"


PAGES: dict[str, Callable[[], str]] = {"docs/config.md": config_page, "docs/metrics.md": metrics.page}


def main() -> None:
    for path, page in PAGES.items():
        (ROOT / path).write_text(page())
        print(path)


if __name__ == "__main__":
    main()
