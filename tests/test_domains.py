"""Boxes: what is accepted, what is refused with which words, and sampling."""

import copy
import json
import pickle

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


def test_lists_are_read_and_what_is_no_number_is_named():
    assert Box([0, 0], (1, np.float32(0.5))).upper.tolist() == [1.0, 0.5]
    with pytest.raises(InputError, match="lower ends of a domain: .*'a'.* is no number"):
        Box("a", [1])
    with pytest.raises(InputError, match="upper ends of a domain: rows of different lengths"):
        Box([0], [[1], [1, 2]])
    with pytest.raises(InputError, match=r"lower ends of a domain have shape \(2, 2\)"):
        Box([[0, 1], [0, 1]], [1, 1, 1, 1])  # pairs per input would be read as four inputs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Nonnegative", "did you mean 'nonnegative'"),
        ("everywere", "did you mean 'everywhere'"),
        ("no/such.json", "'everywhere', 'nonnegative', 'file' or the path of a JSON file"),
        ("", "--domain is empty"),
        ("file", "known to its network only"),
        ("[[0,1],[0,1]]", r"Box\(lower, upper\)"),
        (None, "domain None is no text"),
        ([0, 1], r"domain \[0, 1\] is no text; give Box\(lower, upper\), '\[lo,hi\]'"),
    ],
)
def test_messages_name_what_can_be_written(text, words):
    with pytest.raises(InputError, match=words):
        Box.parse(text, 2)


@pytest.mark.parametrize("n", [-1, 2.0, "2", None, True])
def test_number_of_inputs_is_a_whole_number(n):
    for make in (Box.everywhere, Box.nonnegative, lambda count: Box.parse("[0,1]", count)):
        with pytest.raises(InputError, match="number of inputs: .*give a whole number >= 0"):
            make(n)


def test_a_path_object_is_read(tmp_path):
    (tmp_path / "box.json").write_text('{"lower": ["-inf", 0], "upper": [1, "inf"]}')
    box = Box.parse(tmp_path / "box.json", 2)
    assert box == Box.parse(str(tmp_path / "box.json"), 2) == Box([-np.inf, 0], [1, np.inf])
    with pytest.raises(InputError, match="this is a folder"):
        Box.parse(tmp_path, 2)


def test_boxes_are_equal_as_sets():
    box = Box.parse("[0,1]", 2)
    assert box == Box([0, 0], [1, 1]) and hash(box) == hash(Box([-0.0, 0], [1, 1]))
    assert box != Box([0, 0], [1, 2]) and box != "[0,1]" and box != Box([0], [1])


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda box: pickle.loads(pickle.dumps(box))])
def test_copies_are_frozen_too(again):
    box = Box([0.0], [1.0], "mine")
    twin = again(box)
    assert twin == box and twin.origin == "mine" and not twin.lower.flags.writeable


def test_points_of_another_shape_are_refused():
    box = Box([0, 0], [1, 1])
    for point in ([0.5], 0.5, [0, 0, 0], [[0, 0]]):
        with pytest.raises(InputError, match="the domain has 2 inputs"):
            box.contains(point)


def test_samples_of_the_widest_box_are_finite_and_a_seed_is_enough():
    box = Box([-1.7e308], [1.7e308])
    points = box.sample(100, 0)
    assert np.isfinite(points).all() and all(box.contains(p) for p in points)
    assert np.array_equal(points, box.sample(100, np.random.default_rng(0)))
    with pytest.raises(InputError, match="seed 'a'"):
        box.sample(1, "a")
    with pytest.raises(InputError, match="number of points: -1"):
        box.sample(-1, 0)


@pytest.mark.parametrize(
    "data", [{}, None, [], {"lower": [0]}, {"lower": ["x"], "upper": [0]}, {"lower": 0, "upper": 1}]
)
def test_broken_dictionaries_are_refused(data):
    with pytest.raises(InputError, match="domain"):
        Box.from_dict(data)
