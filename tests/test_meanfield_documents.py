"""Targets from words and documents are the functions they name; everything else is refused in one line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError
from fiberscope.meanfield.targets.documents import target_of, teacher_of
from fiberscope.network import Network

POINTS = np.random.default_rng(0).normal(size=(20, 3))
X, Y, Z = POINTS.T


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("norm:2", np.hypot(X, Y)), ("norm:3", np.linalg.norm(POINTS, axis=1)), ("abs", abs(X)),
        ("l1:2", abs(X) + abs(Y)), ("relu", np.maximum(X, 0)), ("linear:0.6,-0.8", 0.6 * X - 0.8 * Y),
        ("index:tanh", np.tanh(X)), ("index:relu", np.maximum(X, 0)),
    ],
)  # fmt: skip
def test_words(text: str, values: np.ndarray) -> None:
    found = target_of(text, 3)
    assert found.dimension == 3
    assert found(POINTS) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize(
    ("document", "values"),
    [
        ({"kind": "linear", "beta": [1, 2, 3]}, X + 2 * Y + 3 * Z),
        ({"kind": "constant", "value": 2.5, "dimension": 3}, np.full(20, 2.5)),
        ({"kind": "teacher", "weights": [2, -1], "directions": [[1, 1, 0], [0, 0, -1]]},
         2 * np.maximum(X + Y, 0) - np.maximum(-Z, 0)),
        ({"kind": "norm", "dimension": 3, "subspace": 1}, abs(X)),
        ({"kind": "polynomial", "terms": [{"coefficient": 2, "exponents": [1, 1, 0]},
                                          {"coefficient": -1, "exponents": [0, 0, 3]}]}, 2 * X * Y - Z**3),
        ({"kind": "single-index", "direction": [0, 2, 0], "function": "tanh"}, np.tanh(2 * Y)),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1, 0, 0]}, {"kind": "norm", "dimension": 3,
                                                                          "subspace": 1}], "factors": [3, -2]},
         3 * X - 2 * abs(X)),
    ],
)  # fmt: skip
def test_documents(document: dict[str, Any], values: np.ndarray) -> None:
    for given in (document, json.dumps(document)):
        assert target_of(given, 3)(POINTS) == pytest.approx(values, abs=1e-11)


@pytest.mark.parametrize(
    ("given", "dimension", "words"),
    [
        ("norm:2", None, "does not say its dimension"), ("norm:4", 3, "between 1 and 3"), ("norm:x", 3, "between"),
        ("norm", 3, "between"), ("linear:a", 3, "give numbers"), ("linear:1,2,3,4", 3, "4 coordinates"),
        ("cube", 3, "norm:K"), ("index:nosuch", 3, "nosuch"), ("{", 3, "no JSON"), ('{"beta": [1]}', 1, "kind"),
        ({"kind": "linear"}, None, "beta missing"), ({"kind": "linear", "beta": [1], "gamma": 1}, None, "gamma"),
        ({"kind": "linear", "beta": [1, 2]}, 3, "dimension 2, and 3"),
        ({"kind": "polynomial", "terms": [{"coefficient": 1}]}, None, "exponents missing"),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1]}], "factors": [1, 2]}, None, "2 factors"),
        ("norm:²", 3, "between 1 and 3"), ("norm:" + "9" * 5000, 3, "between 1 and 3"), ("norm:2", 3.5, "whole number"),
        ("norm:2", 0, "at least 1"), ("linear:inf", 3, "finite"), ("norm:2", 10**12, "smaller dimension"),
        ("linear:1", 10**12, "smaller dimension"), ("index:tanh", 10**12, "smaller dimension"),
        ("l1:900000", 10**6, "smaller dimension"),
        ({"kind": "polynomial", "terms": [{"coefficient": 1, "exponents": [1.5]}]}, None, "whole number"),
        ({"kind": "polynomial", "terms": [{"coefficient": "x", "exponents": [1]}]}, None, "coefficient: 'x'"),
        ({"kind": "polynomial", "terms": [{"coefficient": 1, "exponents": [1], "sign": 2}]}, None, "sign unknown"),
        ({"kind": "polynomial", "terms": [{"coefficient": 1, "exponents": [True]}]}, None, "finite number"),
        ({"kind": "polynomial", "terms": [3]}, None, "term 1"), ({"kind": "polynomial", "terms": []}, None, "terms"),
        ({"kind": "polynomial", "terms": 3}, None, "terms: 3"),
        ({"kind": "norm", "dimension": 3.9, "subspace": 1}, None, "dimension: 3.9"),
        ({"kind": "norm", "dimension": 3, "subspace": 1.9}, None, "subspace: 1.9"),
        ({"kind": "norm", "dimension": "x", "subspace": 1}, None, "dimension: 'x'"),
        ({"kind": "norm", "dimension": 3, "subspace": 4}, None, "1 <= dH <= d"),
        ({"kind": "norm", "dimension": 10**9, "subspace": 10**9}, None, "smaller dimension"),
        ({"kind": "norm", "dimension": 10**400, "subspace": 1}, None, "finite number"),
        ({"kind": "constant", "value": 1, "dimension": 10**12}, None, "smaller dimension"),
        ({"kind": "linear", "beta": [1.0], "factors": [2]}, None, "factors unknown"),
        ({"kind": "linear", "beta": ["a", 0]}, None, "beta, entry 1: 'a'"),
        ({"kind": "linear", "beta": [[1], [2, 3]]}, None, "entry 1"), ({"kind": "linear", "beta": []}, None, "beta"),
        ('{"kind": "linear", "beta": [1e400]}', None, "entry 1: inf"),
        ('{"kind": "linear", "beta": [NaN]}', None, "entry 1: nan"),
        ('{"kind": "linear", "beta": [1' + "0" * 400 + "]}", None, "finite number"),
        ('{"kind": "linear", "beta": [1], "beta": [2]}', None, "'beta' twice"),
        ('{"kind": "linear", "beta": ' + "[" * 100_000, None, "nested too deeply"),
        ({"kind": "teacher", "weights": [1, 1], "directions": [[1, 2], [1]]}, None, "lengths 1, 2"),
        ({"kind": "teacher", "weights": [1, 1], "directions": [1, 2]}, None, "row 1"),
        ({"kind": "single-index", "direction": [1, 0], "function": 3}, None, "name of an activation"),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1]}], "factors": ["x"]}, None, "factors, entry 1"),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1]}], "factors": 3}, None, "factors: 3"),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1]}], "factor": [3]}, None, "factor unknown"),
        ({"kind": "sum", "parts": ["linear"]}, None, "'linear'"), ({"kind": "sum", "parts": []}, None, "parts"),
        (["linear"], None, "an object with a kind"), ({"kind": ["linear"]}, None, "of kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(given: Any, dimension: int | None, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        target_of(given, dimension)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_monomial_that_is_named_twice_counts_twice() -> None:
    terms = [{"coefficient": c, "exponents": e} for c, e in ((2, [1, 0, 0]), (0.5, [0, 2, 0]), (3, [1, 0, 0]))]
    assert target_of({"kind": "polynomial", "terms": terms})(POINTS) == pytest.approx(5 * X + 0.5 * Y**2, abs=1e-12)


def test_sums_nested_without_end_are_refused() -> None:
    document: dict[str, Any] = {"kind": "linear", "beta": [1]}
    for _ in range(500):
        document = {"kind": "sum", "parts": [document]}
    with pytest.raises(InputError, match="nested too deeply"):
        target_of(document)


def test_large_dimensions_that_fit_are_served() -> None:
    assert target_of("norm:3", 100_000).second_moment == pytest.approx(3e-5)


def test_networks_as_targets() -> None:
    rng = np.random.default_rng(1)
    first, last = rng.normal(size=(4, 3)), rng.normal(size=(1, 4))
    net = Network.from_arrays((first, np.zeros(4)), (last, np.zeros(1)), activation="relu")
    assert teacher_of(net)(POINTS) == pytest.approx(net(POINTS)[:, 0], abs=1e-12)
    with pytest.raises(InputError, match="biases"):
        teacher_of(Network.from_arrays((first, np.ones(4)), (last, np.zeros(1)), activation="relu"))
    with pytest.raises(InputError, match="one hidden ReLU layer"):
        teacher_of(Network.from_arrays((first, np.zeros(4)), (last, np.zeros(1)), activation="tanh"))
    with pytest.raises(InputError, match="go through relu"):
        heads = (first, np.zeros(4)), (last, np.zeros(1))
        teacher_of(Network.from_arrays(*heads, activation=("relu", "relu")))
    with pytest.raises(InputError, match="go through softmax"):
        teacher_of(Network.from_arrays((first, np.zeros(4)), (last, np.zeros(1)), activation="relu", head="softmax"))
    with pytest.raises(InputError, match="one output"):
        teacher_of(Network.from_arrays((first, np.zeros(4)), (rng.normal(size=(2, 4)), np.zeros(2)), activation="relu"))
