"""Drawn data sets: their factors travel with the images, through every split."""

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data import dataset


@pytest.mark.parametrize(("name", "fields", "size"), [("faces", {"count": 200}, 32), ("sprites", {}, 16)])
def test_the_factors_of_every_split_draw_its_images(name, fields, size):
    found = dataset.load(name, **fields)
    assert found.spec.shape == (size, size, 1) and found.spec.levels == 255
    assert found.splits.keys() == {"train", "test", "valid"}
    for split in found.splits.values():
        drawn = np.asarray(found.renderer(split.factors[:7]))
        np.testing.assert_allclose(split.pixels[:7] / 255, drawn, atol=0.5 / 255 + 1e-6)
        assert split.factors.shape[1] == len(found.factors)


def test_sizes_channels_and_seeds():
    found = dataset.load("faces", count=40, size=24, channels=3, seed=3)
    assert found.spec.shape == (24, 24, 3)
    assert np.asarray(found.renderer(found.splits["test"].factors)).shape == (8, 24, 24, 3)
    assert found.digest != dataset.load("faces", count=40, size=24, channels=3, seed=4).digest


def test_labels_are_a_chosen_factor():
    glasses = dataset.load("faces", count=100, label="glasses")
    assert all((split.labels == split.factors[:, 5]).all() for split in glasses.splits.values())
    hair = dataset.load("faces", count=100).splits["train"]
    assert (hair.labels == np.minimum(np.floor(hair.factors[:, 0] * 5), 4)).all()
    # The label moves no split.
    assert all(
        (glasses.splits[name].pixels == split.pixels).all()
        for name, split in dataset.load("faces", count=100).splits.items()
    )
    x = dataset.load("sprites", label="x").splits["train"]
    assert (x.labels == x.factors[:, 3]).all()


def test_the_first_images_of_a_grid_are_not_alike():
    """Figures and metrics that take the first test images take them from all over the grid."""
    factors = dataset.load("sprites").splits["test"].factors[:64]
    assert all(len(np.unique(column)) >= 3 for column in factors.T)


def test_a_gap_holds_in_every_split():
    for split in dataset.load("faces", count=300, gap=(0.3, 0.7)).splits.values():
        hair = split.factors[:, 0]
        assert ((hair < 0.3) | (hair >= 0.7)).all()


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("faces", {"label": "hat"}, "unknown factor 'hat'"),
        ("faces", {"gap": (0.3,)}, r"data.gap=\(0.3,\): should be two hair lengths"),
        ("faces", {"gap": (0.7, 0.3)}, "data.gap="),
        ("faces", {"channels": 2}, "data.channels=2: should be 1"),
        ("faces", {"size": 8}, "size"),
        ("sprites", {"size": 300}, "size"),
    ],
)
def test_what_cannot_be_drawn_is_refused(name, fields, said):
    with pytest.raises(errors.UserError, match=said):
        dataset.load(name, **fields)
