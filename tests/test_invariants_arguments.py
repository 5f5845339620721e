"""Arguments of the invariants' rooms that cannot be used are refused in one line; plausible ones are taken."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fiberscope as fs
from fiberscope import models
from fiberscope.errors import InputError
from fiberscope.invariants import recovery
from fiberscope.results import Result

NAN = float("nan")
TANH = fs.Network.from_arrays(
    ([[1.0, 2.0], [1.0, 2.0], [0.5, -1.0]], [0.1, 0.1, 0.3]), ([[1.0, 2.0, 3.0]], [0.0]), activation="tanh"
)
SMALL = fs.Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [0.0]), activation="tanh")
GLU = models.glu(2, 2, 2)
X = np.linspace(-2.0, 2.0, 12)[:, None]
Y = 3 * np.tanh(X[:, 0] - 0.5)
PAIR = "W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = W2[:,1]"
CELL: dict[str, Any] = {"samples": [6], "widths": [1], "seeds": 1, "steps": 5}


def call(name: str, *args: Any, **options: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    return getattr(fs if hasattr(fs, name) else recovery, name), args, options


WRONG = [
    # what is no network, and how to make one
    *((call(name, wrong, *rest, **options), "fs.load")
      for name, rest, options in (
          ("smallest_sim", (), {}), ("predict_recovery", (5,), {}), ("embed", ([4],), {}), ("model_rank", (), {}),
          ("phase_diagram", (), CELL), ("condensation", (), {}), ("locate", (SMALL,), {}),
      )
      for wrong in (None, 3, np.zeros((2, 2)))),
    (call("conserved", "model.onnx"), r"fs\.load\('model\.onnx'\)"),
    # seeds, switches, options
    *((call(name, *args, **{**options, "seed": seed}), "whole number >= 0")
      for name, args, options in (
          ("orbit", (TANH,), {}), ("conserved", ((2, 3, 1),), {}), ("is_invariant", (PAIR, TANH), {}),
          ("model_rank", (TANH,), {}), ("recover", ((X, Y), (1,)), {}), ("embed", (TANH, [4]), {}),
          ("condensation", (TANH,), {}),
      )
      for seed in (-1, 1.5, "a", None)),
    *((call(name, *args, **{**options, "output_bias": wrong}), "True or False")
      for name, args, options in (
          ("sims", ((2, 3, 1),), {}), ("model_rank", (TANH,), {}), ("predict_recovery", (TANH, 5), {}),
          ("recover", ((X, Y), (1,)), {}), ("phase_diagram", (SMALL,), CELL), ("embed", (TANH, [4]), {}),
      )
      for wrong in (None, "no", 2)),
    (call("orbit", TANH, method="flw"), "did you mean 'flow'"),
    (call("embed", TANH, [4], how="spilt"), "did you mean 'split'"),
    (call("recover", (X, Y), (1,), noise="bci"), "did you mean 'bic'"),
    (call("model_rank", TANH, method="sdv"), "did you mean 'svd'"),
    (call("diagonal", [[1.0]], [1.0], mode="flw"), "did you mean 'flow'"),
    # widths, counts and numbers
    *((call(name, *args), "whole number")
      for wrong in (None, "2", [2.5], [NAN], [[2]], [])
      for name, args in (("sims", (wrong,)), ("recover", ((X, Y), wrong)), ("embed", (TANH, wrong)))),
    *((call("predict_recovery", SMALL, wrong), "whole number") for wrong in (None, "5", 2.5, NAN, [[5]])),
    *((call("strata", wrong, 1, 1), "whole number") for wrong in (None, "3", 2.5, NAN, True)),
    (call("strata", 201, 1, 1), "up to 200"),
    *((call("sims", (2, 3, 1), limit=wrong), "limit") for wrong in (None, "a", 1.5, -1)),
    *((call("smallest_sim", TANH, wrong), "tolerance") for wrong in (-1, NAN, "x", [1])),
    *((call("recover", (X, Y), (1,), **{name: wrong}), name)
      for name, wrong in (("starts", 1.5), ("flows", "x"), ("scale", NAN), ("floor", "x"), ("wide", 1.5))),
    *((call("diagonal", [[1.0]], [1.0], mode="flow", tolerance=wrong), "tolerance") for wrong in (0, -1, NAN, "x")),
    *((call("diagonal", [[1.0]], [1.0], depth=wrong), "depth") for wrong in (2.5, "2", None)),
    *((call("phase_diagram", SMALL, **{**CELL, name: wrong}), name)
      for name, wrong in (("samples", 6), ("samples", "6"), ("widths", None), ("scales", 1e-3), ("scales", ["x"]),
                          ("seeds", 1.5), ("tests", 1.5), ("cap", "x"), ("path", 3), ("workers", 1.5))),
    *((call("condensation", [TANH], orbits=False, **{name: wrong}), name[:-1])
      for name, wrong in (("tolerances", 0.1), ("tolerances", ["x"]), ("labels", 3), ("labels", "a"))),
    # data and parameters
    *((call("recover", wrong, (1,)), "pair") for wrong in (None, 3, "ab", (X,), (X, Y, Y), TANH)),
    (call("recover", (X, "y"), (1,)), "targets"),
    (call("recover", (X * 1j, Y), (1,)), "inputs"),
    (call("diagonal", [[1, 2], [3]], [1, 2]), "different lengths"),
    (call("orbit", GLU, [NAN] * GLU.size), "theta"),
    (call("is_invariant", PAIR, TANH, theta=[NAN] * 13), "theta"),
    (call("is_invariant", np.full((1, 13), NAN), TANH), "finite"),
    (call("conserved", (2, 3, 1), theta="x"), "theta"),
    (call("embed", TANH, [4], labels=[[0, 1, 2, 2.5]]), "labels"),
    (call("embed", TANH, [4], labels=[0, 1, 2, 2]), "labels"),
    (call("embed", TANH, [4], alpha=NAN), "alpha"),
    (call("embed", TANH, [4], alpha=[1]), "alpha"),
    # blocks
    *((call("orbit", TANH, frozen=wrong), "there are W1, b1, W2, b2") for wrong in (["b9"], "b9", [1], None)),
    (call("condensation", TANH, frozen="b9"), "there are W1, b1, W2, b2"),
    (call("is_invariant", PAIR, TANH, frozen=["b9"]), "there are W1, b1, W2, b2"),
    *((call("is_invariant", PAIR, TANH, frozen=wrong), "frozen") for wrong in ([99], [-1], [1.5], None)),
    # what says nothing about this kind of model is not left aside silently
    (call("conserved", TANH, activation="relu"), "has its own"),
    (call("conserved", TANH, activation="tanh"), "has its own"),
    (call("conserved", GLU, activation="tanh"), "has its own"),
    (call("conserved", GLU, bias=False), "bias"),
    (call("conserved", TANH, inputs=(2,)), "inputs"),
    (call("conserved", (2, 3, 1), inputs=(2,)), "inputs"),
    (call("conserved", TANH, None), "dynamics"),
    (call("orbit", TANH, inputs=(2,)), "inputs"),
    (call("orbit", GLU, at="generic", inputs=(2,)), "inputs"),
    (call("orbit", TANH, progress=3), "progress"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: None)
def test_one_line_says_what_is_wrong(wrong: Any, words: str) -> None:
    function, args, options = wrong
    with pytest.raises(InputError, match=words) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_plausible_arguments_mean_the_same() -> None:
    assert fs.sims(np.array([2, 3, 1])).count == fs.sims([2, 3, 1]).count == 24
    assert fs.conserved(np.array([2, 3, 1])).count == fs.conserved((2, 3, 1), activation="relu").count == 3
    assert fs.predict_recovery(SMALL, np.int64(5)).widths == fs.predict_recovery(SMALL, (1, 5, 1)).widths == (5,)
    assert fs.smallest_sim(TANH, np.float32(0.5)).to_json() == fs.smallest_sim(TANH, Fraction(1, 2)).to_json()
    assert fs.orbit(TANH, frozen="b2").ambient == fs.orbit(TANH, frozen=["b2"]).ambient == 12
    named = fs.is_invariant("W1[0] = W1[1]", TANH, frozen=["W1", "b1"])
    assert named and named.answer is fs.is_invariant("W1[0] = W1[1]", TANH, frozen=range(9)).answer
    assert fs.embed(TANH, [4], alpha="1/3").network.digest == fs.embed(TANH, [4], alpha=Fraction(1, 3)).network.digest
    one = fs.diagonal([[1.0]], [1.0], mode="flow", scales=0.5)
    assert [f.scale for f in one.flows] == ["0.5"]
    assert fs.strata(np.int64(3), 1, 1).to_json() == fs.strata(3, 1, 1).to_json()


def test_which_parameters_are_trained_is_said() -> None:
    """A network that is given trains its output biases, one that is assumed does not; the text says which."""
    assert "trained: weights, hidden biases and output biases" in str(fs.model_rank(TANH))
    assert "trained: weights and hidden biases, no output biases" in str(fs.model_rank(TANH, output_bias=False))
    assert "trained: weights and hidden biases, no output biases" in str(fs.predict_recovery(SMALL, 5))
    assert "trained: weights, no biases" in str(fs.recover((X, Y), (1,), bias=False, starts=2, flows=0))
    found = fs.phase_diagram(SMALL, **CELL, output_bias=True)
    assert "trained: weights, hidden biases and output biases" in str(found) and "1 seed a cell" in str(found)
    assert found.to_dict()["trained"].startswith("weights, hidden")
    shifted = fs.Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [1.0]), activation="tanh")
    text = str(fs.phase_diagram(shifted, **CELL))
    assert "(output_bias)" in text and "pass output_bias" not in text


def results() -> dict[str, Callable[[], Result]]:
    return {
        "orbit": lambda: fs.orbit(TANH), "sims": lambda: fs.sims((2, 3, 1)),
        "smallest_sim": lambda: fs.smallest_sim(TANH), "conserved": lambda: fs.conserved((2, 3, 1)),
        "is_invariant": lambda: fs.is_invariant(PAIR, TANH),
        "model_rank": lambda: fs.model_rank(TANH), "predict": lambda: fs.predict_recovery(SMALL, 5),
        "recover": lambda: fs.recover((X, Y), (1,), starts=4, flows=1), "embed": lambda: fs.embed(TANH, [4]),
        "strata": lambda: fs.strata(3, 1, 1), "diagonal": lambda: fs.diagonal([[2.0, 1.0]], [2.0], mode="flow"),
        "phase": lambda: fs.phase_diagram(SMALL, **CELL), "condensation": lambda: fs.condensation(TANH, orbits=False),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(results()))
def test_results_travel_and_leave_nothing_behind(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    state = np.random.get_state()[1].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = results()[name]()
    text = found.to_json()
    for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert str(other) == str(found) and other.to_json() == text
    assert hash(found) == hash(found) and "<pre>" in found._repr_html_()
    assert np.random.get_state()[1].tolist() == state and capfd.readouterr() == ("", "")
    assert not any(math.isnan(v) for v in _numbers(found.to_dict()))


def _numbers(data: Any) -> list[float]:
    if isinstance(data, dict):
        return [v for inner in data.values() for v in _numbers(inner)]
    if isinstance(data, list):
        return [v for inner in data for v in _numbers(inner)]
    return [data] if isinstance(data, float) else []
