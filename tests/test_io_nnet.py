"""NNet text files: normalisation folded exactly, the input box, drop-in writing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiberscope.errors import FormatError, InputError
from fiberscope.io import load, save
from fiberscope.network import Network

TEXT = """// a comment
// another
2,2,1,3,
2,3,1,
0
-1.0,0.5,
1.0,2.5,
0.25,1.0,10.0,
3.0,2.0,5.0,
1.0,0.0,
0.0,-1.0,
2.0,2.0,
0.5,
0.0,
-1.0,
1.0,-1.0,0.5,
0.125,
"""


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "a.nnet"
    place.write_text(TEXT)
    return place


def by_hand(x1: Fraction, x2: Fraction) -> Fraction:
    """The same network in the order a reader of the format evaluates it."""
    y1, y2 = (x1 - Fraction(1, 4)) / 3, (x2 - 1) / 2
    z = [y1 + Fraction(1, 2), -y2, 2 * y1 + 2 * y2 - 1]
    h = [max(v, Fraction(0)) for v in z]
    return (h[0] - h[1] + h[2] / 2 + Fraction(1, 8)) * 5 + 10


@given(st.fractions(-5, 5), st.fractions(-5, 5))
def test_the_normalisation_is_folded_exactly(tmp_path_factory, a, b):
    place = tmp_path_factory.mktemp("n") / "a.nnet"
    place.write_text(TEXT)
    assert load(place).exact([a, b]) == (by_hand(a, b),)


def test_what_was_folded_is_said_and_the_box_is_offered(path):
    net = load(path)
    assert net.layers[0].folded and net.layers[1].folded
    assert net.source.box.lower.tolist() == [-1.0, 0.5]
    assert net.source.box.upper.tolist() == [1.0, 2.5]
    assert net.source.parameter_count == 13
    assert net.source.dtype == "float64"
    assert any("not clipped" in note for note in net.source.notes)
    assert [a.tolist() for a in net.layers[1].own] == [[[1.0, -1.0, 0.5]], [0.125]]


def test_a_trivial_normalisation_folds_nothing(path):
    plain = TEXT.replace("0.25,1.0,10.0,", "0,0,0").replace("3.0,2.0,5.0,", "1,1,1")
    path.write_text(plain)
    net = load(path)
    assert net.folded == ()
    assert net.layers[0].weight.dtype == np.float64
    assert net.exact([1, 2]) == (Fraction(1, 8) + Fraction(3, 2) + Fraction(5, 2),)


def without_first_row(layer):
    frame = replace(layer.frame, out_scale=layer.frame.out_scale[1:], out_shift=layer.frame.out_shift[1:])
    return replace(layer, weight=layer.weight[1:], bias=layer.bias[1:], frame=frame)


def without_first_column(layer):
    frame = replace(layer.frame, in_scale=layer.frame.in_scale[1:], in_shift=layer.frame.in_shift[1:])
    return replace(layer, weight=layer.weight[:, 1:], frame=frame)


def test_a_copy_keeps_comments_box_and_normalisation(path, tmp_path):
    net = load(path)
    first, second = net.layers
    smaller = net.with_layers([without_first_row(first), without_first_column(second)])
    save(smaller, tmp_path / "b.nnet", drop_in=True)
    text = (tmp_path / "b.nnet").read_text().splitlines()
    assert text[:2] == TEXT.splitlines()[:2]
    assert text[2:4] == ["2,2,1,2,", "2,2,1,"]
    assert text[4:9] == TEXT.splitlines()[4:9]
    again = load(tmp_path / "b.nnet")
    assert again.same_as(smaller)
    assert again.source.box.lower.tolist() == [-1.0, 0.5]


def test_weights_that_fit_only_folded_are_refused(path, tmp_path):
    net = load(path)
    first = net.layers[0]
    moved = net.with_layers([replace(first, weight=np.full((3, 2), Fraction(1, 7))), net.layers[1]])
    with pytest.raises(InputError, match="is no float64"):
        save(moved, tmp_path / "b.nnet")


def test_only_relu_networks_can_be_written(tmp_path):
    with pytest.raises(InputError, match="this one has tanh"):
        save(Network.random((2, 3, 1), activation="tanh", seed=0), tmp_path / "a.nnet")
    with pytest.raises(InputError, match="this one has softmax"):
        save(Network(Network.random((2, 3, 2), seed=0).layers, "softmax"), tmp_path / "a.nnet")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2,3,1,\n", "2,3,1,1,\n", "need 3 sizes"),
        ("2,3,1,\n", "2,-3,1,\n", "whole numbers >= 1"),
        ("2,3,1,\n", "2,3000000,1,\n", "declares 12,000,001 parameters"),
        ("2,2,1,3,", "nan,2,1,3,", "whole numbers"),
        ("3.0,2.0,5.0,", "3.0,0.0,5.0,", "range 1 is 0"),
        ("3.0,2.0,5.0,", "3.0,2.0,", "line 9: 2 numbers; expected 3"),
        ("1.0,0.0,\n", "1.0,x,\n", "line 10: .*expected numbers"),
        ("0.5,\n0.0,", "0.5,0.0,\n0.0,", "line 13: 2 numbers; expected 1"),
        ("0.125,\n", "", "ends after line"),
        ("0.125,\n", "nan,\n", r"layer 2: bias\[0\] is nan"),
        ("0.125,\n", "0.125,\n7,\n", "more lines"),
        ("-1.0,0.5,\n", "3.0,0.5,\n", "input box: domain is empty"),
        ("0.25,1.0,10.0,", "inf,1.0,10.0,", "must be finite"),
    ],
)
def test_damaged_files_name_the_line(path, old, new, words):
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(FormatError, match=words):
        load(path)


def test_real_files(shared):
    files = sorted((shared / "models").rglob("*.nnet"))
    refused = []
    for place in files:
        try:
            net = load(place)
        except FormatError as exc:
            assert "sizes" in str(exc)
            refused.append(place.name)
            continue
        assert net.source.parameter_count == sum(a * b + b for a, b in zip(net.widths, net.widths[1:], strict=False))
        assert net.source.box is not None
    assert refused == ["controller_airplane.nnet", "controller_single_pendulum.nnet"]
    assert len(files) - len(refused) >= 100


def test_a_real_normalisation_agrees_with_plain_floats(shared, tmp_path):
    place = shared / "models/acasxu_nnet/nnet/ACASXU_run2a_1_1_batch_2000.nnet"
    lines = [s.split(",") for s in place.read_text().splitlines() if not s.startswith("//")]
    mean, spread = (np.array([float(v) for v in lines[k] if v]) for k in (5, 6))
    net = load(place)
    x = net.source.box.sample(50, np.random.default_rng(0))
    h = (x - mean[:5]) / spread[:5]
    for k, layer in enumerate(net.layers):
        weight, bias = layer.own
        h = h @ weight.T + bias
        h = np.maximum(h, 0) if k < 6 else h
    np.testing.assert_allclose(net(x), h * spread[5] + mean[5], rtol=1e-9)
    save(net, tmp_path / "b.nnet", drop_in=True)
    assert load(tmp_path / "b.nnet").same_as(net)
