"""Labels find places: apart from each other, off the markers, inside the axes."""

import itertools

import numpy as np
import pytest

from vae_jax.figures import placement, style
from vae_jax.figures.placement import Label


def plane(points):
    figure = style.new_figure(6, 5, "plane")
    axes = figure.add_subplot(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    axes.plot(*np.transpose(points), "o", markersize=4)
    style.settle(figure)
    return figure, axes


def boxes(axes):
    renderer = placement.renderer_of(axes.figure)
    return [placement.box_of(text, renderer) for text in axes.texts]


@pytest.mark.parametrize("count", [1, 8, 50])
def test_labels_touch_neither_each_other_nor_a_marker(count):
    points = np.random.default_rng(0).random((count, 2))
    figure, axes = plane(points)
    labels = [Label(x, y, f"label {number}", needed=number < 8) for number, (x, y) in enumerate(points)]
    written = placement.place(axes, labels, points)
    assert len(written) >= min(count, 20)
    window, markers = axes.get_window_extent(), axes.transData.transform(points)
    for box in boxes(axes):
        assert window.x0 <= box[0] and box[2] <= window.x1 and window.y0 <= box[1] and box[3] <= window.y1
        assert not placement.inside(box, markers, 0)
    for one, other in itertools.combinations(boxes(axes), 2):
        assert not placement.overlap(one, other)
    del figure


def test_labels_avoid_lines_where_they_can():
    line = np.array([(0.0, 0.5), (1.0, 0.5)])
    _, axes = plane(line)
    placement.place(axes, [Label(0.5, 0.5, "on the line")], line, [line])
    (box,) = boxes(axes)
    assert not placement.inside(box, placement.samples(axes, [line]), 0)


def test_what_finds_no_place_is_left_out_unless_it_is_needed():
    points = np.array(list(itertools.product(np.linspace(0, 1, 40), repeat=2)))  # no room between them
    _, axes = plane(points)
    labels = [Label(0.5, 0.5, "needed"), Label(0.4, 0.4, "not needed", needed=False)]
    placement.place(axes, labels, points)
    assert [text.get_text() for text in axes.texts] == ["needed"]


@pytest.mark.parametrize("places", [[0.5] * 6, [0.0, 0.01, 0.02, 0.9], [0.97, 0.98, 0.99, 1.0]])
def test_ends_are_moved_apart_and_stay_inside(places):
    moved = placement.spaced(np.array(places), 0.05)
    assert (np.diff(moved) > 0.05 - 1e-6).all() and moved.min() >= -1e-9 and moved.max() <= 1 + 1e-9


def test_ends_that_are_apart_stay_where_they_are():
    np.testing.assert_array_equal(placement.spaced(np.array([0.1, 0.5, 0.9]), 0.05), [0.1, 0.5, 0.9])
