"""Tables of parts: what was added from outside is known by its file, and missed by it."""

import runpy

import pytest

from vae_jax.core import errors, registry


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRIES", {})
    return registry.Registry("shape", {"round": 1})


@pytest.fixture
def added(shapes, tmp_path):
    """A file outside the package adds a part."""
    file = tmp_path / "mine.py"
    file.write_text("from vae_jax.core.registry import REGISTRIES\n\nREGISTRIES['shape']['square'] = 4\n")
    runpy.run_path(str(file))
    return file


def test_a_table_is_a_dict(shapes):
    assert (shapes["round"], list(shapes), shapes.origin) == (1, ["round"], {})
    with pytest.raises(errors.UserError, match=r"unknown shape 'rund': did you mean round\?"):
        shapes["rund"]


def test_what_was_added_has_its_file(shapes, added):
    assert registry.added() == {"shape": {"square": str(added)}}
    registry.check(registry.added(), "runs/x")
    del shapes["square"]
    assert registry.added() == {}


def test_a_change_is_noticed(shapes):
    seen = [registry.changes()]
    for change in (lambda: shapes.update(flat=3), lambda: shapes.__setitem__("flat", 4), lambda: shapes.__delitem__("flat")):
        change()
        seen.append(registry.changes())
    assert len(set(seen)) == len(seen)
    assert registry.changes() == seen[-1]


def test_what_is_missing_is_said_with_its_file(shapes, added):
    recorded = registry.added()
    del shapes["square"]
    with pytest.raises(errors.UserError) as caught:
        registry.check(recorded, "runs/x")
    assert str(caught.value) == f"runs/x: unknown shape 'square'; {added} added it: --config={added}"


@pytest.mark.parametrize("recorded", [None, [], 3, {}, {"shape": 3}, {"colour": {"red": "colours.py"}}])
def test_what_was_not_loaded_or_is_no_record_is_not_looked_at(shapes, recorded):
    registry.check(recorded, "runs/x")
