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
        ({"kind": "polynomial", "terms": [{"coefficient": 1}]}, None, "cannot be read"),
        ({"kind": "sum", "parts": [{"kind": "linear", "beta": [1]}], "factors": [1, 2]}, None, "2 factors"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(given: Any, dimension: int | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        target_of(given, dimension)


def test_networks_as_targets() -> None:
    rng = np.random.default_rng(1)
    first, last = rng.normal(size=(4, 3)), rng.normal(size=(1, 4))
    net = Network.from_arrays((first, np.zeros(4)), (last, np.zeros(1)), activation="relu")
    assert teacher_of(net)(POINTS) == pytest.approx(net(POINTS)[:, 0], abs=1e-12)
    with pytest.raises(InputError, match="biases"):
        teacher_of(Network.from_arrays((first, np.ones(4)), (last, np.zeros(1)), activation="relu"))
    with pytest.raises(InputError, match="one hidden ReLU layer"):
        teacher_of(Network.from_arrays((first, np.zeros(4)), (last, np.zeros(1)), activation="tanh"))
    with pytest.raises(InputError, match="one output"):
        teacher_of(Network.from_arrays((first, np.zeros(4)), (rng.normal(size=(2, 4)), np.zeros(2)), activation="relu"))
