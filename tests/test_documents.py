"""Pages of docs/ that come from declarations in the code are those that the code would write now."""

import pytest
from support import ROOT

from scripts import document
from vae_jax.study.config import FIELDS


@pytest.mark.parametrize("path", document.PAGES)
def test_the_page_is_up_to_date(path):
    assert (ROOT / path).read_text() == document.PAGES[path](), "python -m scripts.document writes it"


def test_every_field_is_in_the_table():
    page = document.config_page()
    for key, field in FIELDS.items():
        assert f"| `{key}` | " in page
        assert field.doc in page
