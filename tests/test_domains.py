"""Boxes: what is accepted, what is refused with which words, and sampling."""

import json

import numpy as np
import pytest

from fiberscope.domains import Box
from fiberscope.errors import InputError


def test_words_and_pairs():
    assert Box.parse("everywhere", 3).is_everything
    assert Box.parse("nonnegative", 2).lower.tolist() == [0, 0]
    box = Box.parse("[-1, 2]", 2)
    assert box.lower.tolist() == [-1, -1] and box.upper.tolist() == [2, 2]


def test_json_file(tmp_path):
    path = tmp_path / "box.json"
    path.write_text(json.dumps({"lower": [0, 1], "upper": [1, 2]}))
    assert Box.parse(str(path), 2).upper.tolist() == [1, 2]
    with pytest.raises(InputError, match="has 2 inputs; the network has 3"):
        Box.parse(str(path), 3)
    path.write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        Box.parse(str(path), 2)


@pytest.mark.parametrize("text", ["[1]", "[0,1", "[a,b]", "[1,2,3]", "nowhere.json"])
def test_bad_text(text):
    with pytest.raises(InputError):
        Box.parse(text, 2)


@pytest.mark.parametrize(
    ("lower", "upper"), [([1.0], [0.0]), ([np.nan], [1.0]), ([np.inf], [np.inf]), ([0.0, 0.0], [1.0])]
)
def test_empty_or_broken_boxes_are_refused(lower, upper):
    with pytest.raises(InputError, match="domain"):
        Box(np.array(lower), np.array(upper))


def test_samples_lie_inside_also_where_unbounded():
    box = Box(np.array([0.0, -np.inf, 2.0, -np.inf]), np.array([1.0, np.inf, np.inf, -3.0]))
    points = box.sample(500, np.random.default_rng(0))
    assert points.shape == (500, 4)
    assert all(box.contains(p) for p in points)
    assert points[:, 1].min() < 0 < points[:, 1].max()


def test_dictionary_round_trip_with_infinities():
    box = Box.nonnegative(2)
    back = Box.from_dict(json.loads(json.dumps(box.to_dict())))
    assert back.lower.tolist() == box.lower.tolist() and back.upper.tolist() == box.upper.tolist()


def test_arrays_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        Box.everywhere(1).lower[0] = 0
