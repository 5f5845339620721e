"""Certificates: every move accepted when true, every corruption refused or still true, enclosures sound."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.certificates import Certificate, check
from fiberscope.certificates.differences import difference
from fiberscope.certificates.enclosures import Snapshot
from fiberscope.certificates.matrices import Matrix, combined_rows, first_unequal, nearest
from fiberscope.certificates.moves import MOVES
from fiberscope.certificates.state import affine_layers
from fiberscope.domains import Box
from fiberscope.errors import CertificateError, InputError
from fiberscope.network import Network, Source
from fiberscope.results import Answer
from oracles_certificates import exact_preactivations, holds, rational_points, relu_enclosure

Data = dict[str, Any]
ALL = Box.everywhere(2)
UNIT = Box(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
PLUS = Box(np.array([0.0, 0.0]), np.array([1.0, 2.0]))


def claim(f: Network, g: Network, steps: list[Data], box: Box = ALL, bound: tuple[float, float] | None = None) -> Data:
    return {
        "schema": "fiberscope/certificate/1",
        "kind": "reduction",
        "version": "0.1.0",
        "source": {"digest": f.digest, "sha256": None, "path": "a.onnx"},
        "target": {"digest": g.digest, "sha256": None, "path": "b.onnx"},
        "domain": box.to_dict(),
        "steps": steps,
        "bound": None if bound is None else {"constant": bound[0], "slope": bound[1]},
    }


def nets(*pairs: Any, s: Any = "relu") -> Network:
    return Network.from_arrays(*pairs, activation=s)


Case = tuple[Data, Network, Network]


def case_drop() -> Case:
    f = nets(([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]], [0.5, 1.0, -0.25]), ([[1.0, 0.0, -2.0]], [0.125]), s="tanh")
    g = nets(([[1.0, 2.0], [0.5, 0.25]], [0.5, -0.25]), ([[1.0, -2.0]], [0.125]), s="tanh")
    return claim(f, g, [{"move": "drop", "layer": 0, "neurons": [1]}]), f, g


def case_clear() -> Case:
    f = nets(([[1.0, 2.0], [3.0, -1.0]], [0.5, 1.0]), ([[1.0, 0.0]], [0.125]), s="tanh")
    g = nets(([[1.0, 2.0], [0.0, 0.0]], [0.5, 0.0]), ([[1.0, 0.0]], [0.125]), s="tanh")
    return claim(f, g, [{"move": "clear", "layer": 0, "neurons": [1]}]), f, g


def case_constant_rows() -> Case:
    out = [[1.0, 4.0, 7.0], [0.0, -2.0, 1.0]], [0.125, 1.0]
    f = nets(([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]], [0.5, 1.5, -1.0]), out)
    g = nets(([[1.0, 2.0]], [0.5]), ([[1.0], [0.0]], [6.125, -2.0]))
    return claim(f, g, [{"move": "constant", "layer": 0, "neurons": [1, 2], "values": ["3/2", "0"]}]), f, g


def case_constant_enclosed() -> Case:
    f = nets(([[1.0, 2.0], [1.0, 1.0], [-1.0, 1.0]], [0.5, 3.5, -4.0]), ([[1.0, 4.0, 2.0]], [0.0]), s="hard_tanh")
    g = nets(([[1.0, 2.0]], [0.5]), ([[1.0]], [2.0]), s="hard_tanh")
    steps = [
        {"move": "bound", "method": "interval"},
        {"move": "constant", "layer": 0, "neurons": [2, 1], "values": ["-1", "1"]},
    ]
    return claim(f, g, steps, UNIT), f, g


def case_constant_all() -> Case:
    f = nets(([[-1.0, 0.0], [-1.0, -2.0]], [0.0, -1.0]), ([[1.0, 2.0]], [0.5]))
    g = nets(([[-1.0, -2.0]], [-1.0]), ([[0.0]], [0.5]))
    steps = [
        {"move": "bound", "method": "interval"},
        {"move": "constant", "layer": 0, "neurons": [0, 1], "values": ["0", "0"]},
    ]
    return claim(f, g, steps, PLUS), f, g


def case_merge_relu() -> Case:
    f = nets(([[3.0, 6.0], [1.0, 2.0], [0.0, 1.0], [0.5, 1.0]], [1.5, 0.5, 1.0, 0.25]), ([[3.0, 1.0, 1.0, 4.0]], [0.0]))
    g = nets(([[3.0, 6.0], [0.0, 1.0]], [1.5, 1.0]), ([[4.0, 1.0]], [0.0]))  # 3 + 1/3 + 4/6 and 1
    return claim(f, g, [{"move": "merge", "layer": 0, "pairs": [[1, 0, "1/3"], [3, 0, "1/6"]]}]), f, g


def case_merge_signs() -> Case:
    f = nets(([[3.0, -6.0], [-3.0, 6.0], [3.0, -6.0]], [1.5, -1.5, 1.5]), ([[3.0, 1.0, 0.25]], [0.0]), s="tanh")
    g = nets(([[3.0, -6.0]], [1.5]), ([[2.25]], [0.0]), s="tanh")
    return claim(f, g, [{"move": "merge", "layer": 0, "pairs": [[1, 0, "-1"], [2, 0, "1"]]}]), f, g


def case_merge_even() -> Case:
    f = nets(([[1.0, -2.0], [-2.0, 4.0]], [0.5, -1.0]), ([[3.0, 1.0]], [0.0]), s="abs")
    g = nets(([[1.0, -2.0]], [0.5]), ([[5.0]], [0.0]), s="abs")
    return claim(f, g, [{"move": "merge", "layer": 0, "pairs": [[1, 0, "-2"]]}]), f, g


def case_cascade() -> Case:
    """Duplicates that become visible behind duplicates, and a dead neuron behind ReLU outputs, on all of R^2."""
    f = nets(
        ([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], [0.5, 0.5, 0.0]),
        ([[1.0, 2.0, 1.0], [2.0, 1.0, 1.0], [-1.0, -1.0, -0.5]], [0.0, 0.0, -0.25]),
        ([[1.0, 1.0, 8.0]], [0.0]),
    )
    g = nets(([[1.0, 2.0], [0.0, 1.0]], [0.5, 0.0]), ([[3.0, 1.0]], [0.0]), ([[2.0]], [0.0]))
    steps = [
        {"move": "bound", "method": "interval"},
        {"move": "merge", "layer": 0, "pairs": [[1, 0, "1"]]},
        {"move": "constant", "layer": 1, "neurons": [2], "values": ["0"]},
        {"move": "merge", "layer": 1, "pairs": [[0, 1, "1"]]},
    ]
    return claim(f, g, steps), f, g


def case_fold() -> Case:
    """Three active neurons of rank 2, and a leaky one on its left piece."""
    half = Fraction(1, 2)
    f = nets(
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [5.0, -3.0]], [2.0, 3.0, 2.5, -4.0, 0.0]),
        ([[1.0, 2.0, 3.0, 2.0, 1.0], [0.0, 1.0, -1.0, 4.0, 1.0]], [0.0, 1.0]),
        s=activation("leaky_relu", half),
    )
    # (x+2) + 2 (y+3) + 3 (x+y+5/2) + 2/2 (-x-y-4) = 3x + 4y + 23/2
    # (y+3) - (x+y+5/2) + 4/2 (-x-y-4) = -3x - 2y - 15/2
    # with rows 3x + 3 and x + y + 2: 3x + 4y = -(1/3)(3x) + 4 (x+y), and -3x - 2y = -(1/3)(3x) - 2 (x+y)
    third = Fraction(-1, 3)
    weight = [[Fraction(1), third, Fraction(4)], [Fraction(1), third, Fraction(-2)]]
    g = nets(
        ([[5.0, -3.0], [3.0, 0.0], [1.0, 1.0]], [0.0, 3.0, 2.0]),
        (weight, [Fraction(23, 2) + 1 - 8, Fraction(-15, 2) + 1 + 4 + 1]),
        s=activation("leaky_relu", half),
    )
    steps = [
        {"move": "bound", "method": "interval"},
        {
            "move": "fold", "layer": 0, "neurons": [0, 1, 2, 3], "rows": [["3", "0"], ["1", "1"]],
            "biases": ["3", "2"], "columns": [["-1/3", "4"], ["-1/3", "-2"]],
        },
    ]  # fmt: skip
    return claim(f, g, steps, UNIT), f, g


def case_fold_empty() -> Case:
    """Two active neurons that cancel vanish into the bias."""
    f = nets(([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]], [3.0, 4.0, 0.0]), ([[1.0, -1.0, 1.0]], [0.0]))
    g = nets(([[1.0, -1.0]], [0.0]), ([[1.0]], [-1.0]))
    steps = [
        {"move": "bound", "method": "backward"},
        {"move": "fold", "layer": 0, "neurons": [0, 1], "rows": [], "biases": [], "columns": [[]]},
    ]
    return claim(f, g, steps, UNIT), f, g


def case_fold_second() -> Case:
    """A fold in the second layer, whose inputs are ReLU outputs: nonnegative rows are active at bias 0 exactly."""
    f = nets(
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        ([[1.0, 1.0], [2.0, 2.0], [1.0, -1.0]], [0.1, 0.0, 0.0]),
        ([[1.0, 1.0, 1.0]], [0.0]),
    )
    g = nets(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, -1.0], [1.0, 1.0]], [0.0, 0.0]), ([[1.0, 3.0]], [0.1]))
    steps = [
        {"move": "bound", "method": "interval"},
        {"move": "fold", "layer": 1, "neurons": [0, 1], "rows": [["1", "1"]], "biases": ["0"], "columns": [["3"]]},
    ]
    return claim(f, g, steps), f, g


def case_replace() -> Case:
    f = nets(([[1.0, 2.0], [1.0, 2.125]], [0.5, 0.5]), ([[1.0, -3.0]], [0.0]))
    g = nets(([[1.0, 2.0]], [0.5]), ([[-2.0]], [0.0]))
    steps = [
        {"move": "replace", "layer": 0, "neurons": [1], "rows": [["1", "2"]], "biases": ["1/2"]},
        {"move": "merge", "layer": 0, "pairs": [[1, 0, "1"]]},
    ]
    # |dz| <= 1/8 |x_2| <= 1/8 and the outgoing weight is 3
    return claim(f, g, steps, UNIT, (0.3751, 0.0)), f, g


def case_round() -> Case:
    f = nets(([[1.1, 2.3], [0.7, -0.2]], [0.1, 0.3]), ([[1.7, -0.3]], [0.9]), s="tanh")
    g = Network(tuple(replace(a, weight=a.weight.astype(np.float32), bias=a.bias.astype(np.float32)) for a in f.layers))
    return claim(f, g, [{"move": "round", "dtype": "float32"}], ALL, (1e-6, 1e-6)), f, g


def case_backward() -> Case:
    """Two equal active neurons cancel: substituted back the difference is 0, while intervals only know it is <= 4."""
    f = nets(
        ([[1.0, -1.0], [1.0, -1.0]], [2.0, 2.0]),
        ([[1.0, -1.0], [1.0, 1.0]], [-0.5, 0.0]),
        ([[1.0, 1.0]], [0.0]),
    )
    g = nets(([[1.0, -1.0], [1.0, -1.0]], [2.0, 2.0]), ([[1.0, 1.0]], [0.0]), ([[1.0]], [0.0]))
    steps = [
        {"move": "bound", "method": "backward"},
        {"move": "constant", "layer": 1, "neurons": [0], "values": ["0"]},
    ]
    return claim(f, g, steps, UNIT), f, g


def case_slopes() -> Case:
    """-relu(x + 1/2) + relu(x) <= 1/2 with the default slope 1 below the first neuron, <= 1/4 with slope 1/2."""
    f = nets(
        ([[1.0, 0.0], [1.0, 0.0]], [0.5, 0.0]),
        ([[-1.0, 1.0], [1.0, 1.0]], [-0.3, 0.0]),
        ([[1.0, 1.0]], [0.0]),
    )
    g = nets(([[1.0, 0.0], [1.0, 0.0]], [0.5, 0.0]), ([[1.0, 1.0]], [0.0]), ([[1.0]], [0.0]))
    steps = [
        {"move": "bound", "method": "backward", "slopes": {"1": {"0": {"upper": [0.5, 0.5]}}}},
        {"move": "constant", "layer": 1, "neurons": [0], "values": ["0"]},
    ]
    return claim(f, g, steps, UNIT), f, g


CASES = {name[5:]: make for name, make in sorted(globals().items()) if name.startswith("case_")}


def test_there_is_a_case_for_every_move() -> None:
    used = {step["move"] for make in CASES.values() for step in make()[0]["steps"]}
    assert used == set(MOVES)


@pytest.mark.parametrize("name", CASES)
def test_true_certificates_are_accepted(name: str) -> None:
    data, f, g = CASES[name]()
    verdict = check(Certificate.from_dict(data), f, g)
    assert verdict.answer is Answer.YES, verdict
    assert holds(data, f, g)
    assert verdict.certificate.to_dict() == data
    assert ("lipschitz-difference" in verdict.theorems) == (data["bound"] is not None)


# ---- corruption


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, (*path, key))
    else:
        yield path


def nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, node
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from nodes(value, (*path, key))


def at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


def perturbed(value: Any) -> list[Any]:
    """Other values of the same and of wrong types."""
    out: list[Any] = [None, True, [], {}, "x", -1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e300]
    out += ["0", "1", "-1", "2", "1/2", "inf", "-inf"]
    if isinstance(value, str):
        try:
            q = Fraction(value)
        except (ValueError, ZeroDivisionError):
            out += [value[:-1], value + "0", value.upper(), *MOVES, "interval", "backward", "float16", "everywhere"]
            if len(value) == 64:
                out += [("0" if value[0] != "0" else "1") + value[1:]]
        else:
            out += [str(v) for v in (-q, q + 1, 2 * q, q + Fraction(1, 10**30), q * (1 + Fraction(1, 2**60)))]
            out += [value + "/0", "0x" + value, " " + value, value + ".5", "1e5", "nan", "1" * 5000]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        out += [value + 1, value - 1, value * 2, value * 1.001, value * 0.999, value / 2, -value, 10**30, float(value)]
    return [v for v in out if type(v) is not type(value) or v != value]


def assert_refused_or_true(data: Data, f: Network, g: Network, what: str) -> bool:
    try:
        verdict = check(Certificate.from_dict(data), f, g)
    except CertificateError as exc:
        assert "\n" not in str(exc) and len(str(exc)) < 400, what
        return True
    if verdict.answer is Answer.NO:
        assert "\n" not in verdict.reason and verdict.counterexample, what
        return True
    assert verdict.answer is Answer.YES and holds(data, f, g), what
    return False


@pytest.mark.parametrize("name", CASES)
def test_every_perturbed_leaf_is_refused_or_still_true(name: str) -> None:
    data, f, g = CASES[name]()
    refused = total = 0
    for path in leaves(data):
        for value in perturbed(at(data, path)):
            bad = copy.deepcopy(data)
            at(bad, path[:-1])[path[-1]] = value
            total += 1
            refused += assert_refused_or_true(bad, f, g, f"{path} = {value!r}")
    assert refused > 0.7 * total


@pytest.mark.parametrize("name", CASES)
def test_every_structural_change_is_refused_or_still_true(name: str) -> None:
    data, f, g = CASES[name]()
    for path, node in nodes(data):
        changes: list[Any] = []
        if isinstance(node, dict):
            changes += [{k: v for k, v in node.items() if k != key} for key in node] + [{**node, "extra": 0}]
        if isinstance(node, list):
            changes += [node[:k] + node[k + 1 :] for k in range(len(node))]
            changes += [node[:k] + [node[k]] + node[k:] for k in range(len(node))]
            changes += [node[:k] + [node[k + 1], node[k]] + node[k + 2 :] for k in range(len(node) - 1)]
            changes += [[*node, 0], [*node, "0"], [node]]
        for change in changes:
            bad = copy.deepcopy(data)
            if path:
                at(bad, path[:-1])[path[-1]] = change
            else:
                bad = change
            assert_refused_or_true(bad, f, g, f"{path}: {json.dumps(change)[:200]}")


@pytest.mark.parametrize("name", CASES)
def test_the_networks_cannot_be_exchanged(name: str) -> None:
    data, f, g = CASES[name]()
    for first, second in ((g, f), (f, f), (g, g)):
        assert check(data, first, second).answer is Answer.NO
    for role in ("source", "target"):  # also when the digest is forged
        net, wrong = (f, g) if role == "source" else (g, f)
        forged = copy.deepcopy(data)
        forged[role]["digest"] = wrong.digest
        pair = (wrong, g) if role == "source" else (f, wrong)
        if net.widths != wrong.widths:
            try:
                assert check(forged, *pair).answer is Answer.NO
            except CertificateError:
                pass


@pytest.mark.parametrize("name", CASES)
def test_every_weight_of_the_target_counts(name: str) -> None:
    data, f, g = CASES[name]()
    theta = rationals.fractions(g.theta)
    for k in range(len(theta)):
        other = theta.copy()
        other[k] += Fraction(1, 2**70)
        wrong = g.with_theta(other)
        bad = {**data, "target": {**data["target"], "digest": wrong.digest}}
        assert check(bad, f, wrong).answer is Answer.NO


def test_heads_and_activations_must_agree() -> None:
    data, f, g = case_merge_relu()
    absolute = g.with_layers([replace(g.layers[0], activation=activation("abs")), g.layers[1]])
    for wrong in (replace(g, head="softmax"), absolute):
        bad = {**data, "target": {**data["target"], "digest": wrong.digest}}
        assert check(bad, f, wrong).answer is Answer.NO


def test_file_hashes_must_agree_where_both_are_known() -> None:
    data, f, g = case_drop()
    data["source"]["sha256"] = "ab" * 32
    assert check(data, f, g).answer is Answer.YES
    good, bad = (replace(f, source=Source(path="a.onnx", sha256=h * 32)) for h in ("ab", "cd"))
    assert check(data, good, g).answer is Answer.YES
    assert check(data, bad, g).answer is Answer.NO


@pytest.mark.parametrize(
    ("case", "change", "text"),
    [
        ("drop", lambda d: d["steps"][0].update(neurons=[0, 1, 2]), "one must stay"),
        ("drop", lambda d: d["steps"][0].update(neurons=[1, 1]), "twice"),
        ("drop", lambda d: d["steps"][0].update(neurons=[9]), "neuron 9 does not exist"),
        ("drop", lambda d: d["steps"][0].update(layer=1), "no hidden layer"),
        ("drop", lambda d: d["steps"][0].update(move="delete"), "unknown move"),
        ("drop", lambda d: d["steps"][0].update(why="so"), "unknown key"),
        ("merge_signs", lambda d: d["steps"][0].update(pairs=[[1, 0, "-1"], [1, 2, "-1"]]), "removed twice"),
        ("merge_signs", lambda d: d["steps"][0].update(pairs=[[1, 0, "-1"], [0, 2, "1"]]), "removed and kept"),
        ("merge_signs", lambda d: d["steps"][0].update(pairs=[[1, 0, "0"]]), "other than 0"),
        ("merge_signs", lambda d: d["steps"][0].update(pairs=[[1, 0, "1/0"]]), "denominator"),
        ("merge_signs", lambda d: d["steps"][0].update(pairs=[[1, 0, "9" * 9000]]), "digits"),
        ("fold", lambda d: d["steps"][1].update(rows=[["1"], ["2"]]), "rows has 2 rows of 1"),
        ("fold_empty", lambda d: d["steps"][1].update(neurons=[0, 1, 2]), "one must stay"),
        ("slopes", lambda d: d["steps"][0].update(method="interval"), "slopes"),
        ("slopes", lambda d: d["steps"][0].update(slopes={"1": {"0": {"upper": [0.5]}}}), "expected 2"),
        ("slopes", lambda d: d["steps"][0].update(slopes={"1": {"0": {"upper": [0.5, 1.5]}}}), "[0, 1]"),
        ("slopes", lambda d: d["steps"][0].update(slopes={"1": {"0": {"upper": [-0.5, 0.5]}}}), "[0, 1]"),
        ("slopes", lambda d: d["steps"][0].update(slopes={"1": {"7": {"upper": [0.5, 1]}}}), "neuron 7"),
        ("slopes", lambda d: d["domain"].update(lower=[-1.0]), "ends"),
        ("slopes", lambda d: d["domain"].update(origin="everywhere"), "finite"),
        ("round", lambda d: d.update(bound={"constant": float("inf"), "slope": 0}), "finite number"),
        ("round", lambda d: d.update(schema="fiberscope/certificate/2"), "schema"),
    ],
)
def test_malformed_certificates_say_what_is_wrong(case: str, change: Any, text: str) -> None:
    data, f, g = CASES[case]()
    change(data)
    with pytest.raises(CertificateError, match=text.replace("[", r"\[")):
        check(data, f, g)


def test_a_refusal_names_the_step() -> None:
    data, f, g = case_cascade()
    data["steps"][3]["pairs"] = [[0, 1, "2"]]
    verdict = check(data, f, g)
    assert verdict.reason.startswith("step 3 (merge, layer 1)")
    assert verdict.counterexample == {"step": 3, "move": "merge", "layer": 1}


def test_a_merge_needs_the_rule_of_the_activation() -> None:
    rules = (("tanh", 2, False), ("relu", -1, False), ("square", 2, True), ("abs", -1, True), ("tanh", -1, True))
    for name, e, allowed in rules:
        phi = {"tanh": e, "relu": e, "square": e * e, "abs": abs(e)}[name]
        f = nets(([[1.0, 3.0], [1.0 * e, 3.0 * e]], [0.5, 0.5 * e]), ([[1.0, 1.0]], [0.0]), s=name)
        g = nets(([[1.0, 3.0]], [0.5]), ([[1.0 + phi]], [0.0]), s=name)
        verdict = check(claim(f, g, [{"move": "merge", "layer": 0, "pairs": [[1, 0, str(e)]]}]), f, g)
        assert (verdict.answer is Answer.YES) == allowed


def test_enclosures_follow_neurons_and_are_forgotten_after_approximations() -> None:
    data, f, g = case_cascade()
    late = copy.deepcopy(data)
    late["steps"] = late["steps"][1:2] + late["steps"][:1] + late["steps"][2:]
    assert check(late, f, g).answer is Answer.YES
    unbounded = copy.deepcopy(data)
    del unbounded["steps"][0]
    assert check(unbounded, f, g).answer is Answer.NO
    forgotten = copy.deepcopy(data)
    forgotten["steps"].insert(1, {"move": "round", "dtype": "float64"})
    assert check(forgotten, f, g).answer is Answer.NO


def test_without_its_slopes_the_neuron_is_not_proved_dead() -> None:
    data, f, g = case_slopes()
    del data["steps"][0]["slopes"]
    assert check(data, f, g).answer is Answer.NO
    data, f, g = case_backward()
    data["steps"][0]["method"] = "interval"
    assert check(data, f, g).answer is Answer.NO


# ---- lies told consistently: the target is what the untrue move would lead to


Lie = tuple[Data, Network, Network]


def retold(case: str, steps: list[Data], *pairs: Any) -> Lie:
    data, f, old = CASES[case]()
    g = nets(*pairs, s=[layer.activation for layer in f.layers])
    return claim(f, g, steps, Box.from_dict(data["domain"])), f, g


BOUND = {"move": "bound", "method": "interval"}
ROWS = [[5.0, -3.0], [3.0, 0.0], [1.0, 1.0]]


def fold_step(**change: Any) -> list[Data]:
    steps = copy.deepcopy(case_fold()[0]["steps"])
    steps[1].update(change)
    return steps


LIES: dict[str, Any] = {
    "drop of a neuron that is read": lambda: retold(
        "drop", [{"move": "drop", "layer": 0, "neurons": [0]}],
        ([[3.0, -1.0], [0.5, 0.25]], [1.0, -0.25]), ([[0.0, -2.0]], [0.125]),
    ),
    "clear of a neuron that is read": lambda: retold(
        "clear", [{"move": "clear", "layer": 0, "neurons": [0]}],
        ([[0.0, 0.0], [3.0, -1.0]], [0.0, 1.0]), ([[1.0, 0.0]], [0.125]),
    ),
    "another value of a constant row": lambda: retold(
        "constant_rows", [{"move": "constant", "layer": 0, "neurons": [1, 2], "values": ["3/2", "1"]}],
        ([[1.0, 2.0]], [0.5]), ([[1.0], [0.0]], [13.125, -1.0]),
    ),
    "another value of a constant piece": lambda: retold(
        "constant_enclosed",
        [BOUND, {"move": "constant", "layer": 0, "neurons": [2, 1], "values": ["1", "1"]}],
        ([[1.0, 2.0]], [0.5]), ([[1.0]], [6.0]),
    ),
    "a neuron that moves": lambda: retold(
        "constant_enclosed",
        [BOUND, {"move": "constant", "layer": 0, "neurons": [0], "values": ["1"]}],
        ([[1.0, 1.0], [-1.0, 1.0]], [3.5, -4.0]), ([[4.0, 2.0]], [1.0]),
    ),
    "another column in a fold": lambda: retold(
        "fold", fold_step(columns=[["-1/3", "5"], ["-1/3", "-2"]]), (ROWS, [0.0, 3.0, 2.0]),
        (
            [[Fraction(1), Fraction(-1, 3), Fraction(5)], [Fraction(1), Fraction(-1, 3), Fraction(-2)]],
            [Fraction(23, 2) + 1 - 10, Fraction(-15, 2) + 1 + 4 + 1],
        ),
    ),
    "a fold whose new neuron is not always active": lambda: retold(
        "fold", fold_step(biases=["3", "1"]), (ROWS, [0.0, 3.0, 1.0]),
        (
            [[Fraction(1), Fraction(-1, 3), Fraction(4)], [Fraction(1), Fraction(-1, 3), Fraction(-2)]],
            [Fraction(23, 2) + 1 - 4, Fraction(-15, 2) + 1 + 2 + 1],
        ),
    ),
    "a fold of an unstable neuron": lambda: retold(
        "fold_empty",
        [BOUND, {"move": "fold", "layer": 0, "neurons": [2, 0, 1], "rows": [["1", "-1"]], "biases": ["2"],
                 "columns": [["1"]]}],
        ([[1.0, -1.0]], [2.0]), ([[1.0]], [-3.0]),
    ),
    "a merge of opposite rows as equal ones": lambda: retold(
        "merge_signs", [{"move": "merge", "layer": 0, "pairs": [[1, 0, "1"]]}],
        ([[3.0, -6.0], [3.0, -6.0]], [1.5, 1.5]), ([[4.0, 0.25]], [0.0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_with_the_target_to_match_is_refused(name: str) -> None:
    data, f, g = LIES[name]()
    verdict = check(data, f, g)
    assert verdict.answer is Answer.NO and verdict.reason.startswith("step"), verdict
    assert not holds(data, f, g)


def test_a_merge_compares_the_biases_too() -> None:
    f = nets(([[1.0, 2.0], [1.0, 2.0]], [0.5, 0.25]), ([[1.0, 1.0]], [0.0]))
    g = nets(([[1.0, 2.0]], [0.5]), ([[2.0]], [0.0]))
    verdict = check(claim(f, g, [{"move": "merge", "layer": 0, "pairs": [[1, 0, "1"]]}]), f, g)
    assert verdict.answer is Answer.NO and verdict.reason.startswith("step 0")


def test_enclosures_keep_to_their_neurons() -> None:
    """Neuron 0 is dead and not read; when it is gone, neuron 1 takes its index but not its enclosure."""
    f = nets(([[0.5, 0.0], [1.0, 1.0]], [-4.0, 0.0]), ([[0.0, 2.0]], [1.0]))
    drop = {"move": "drop", "layer": 0, "neurons": [0]}
    dead = {"move": "constant", "layer": 0, "neurons": [0], "values": ["0"]}
    g = nets(([[1.0, 1.0]], [0.0]), ([[0.0]], [1.0]))
    verdict = check(claim(f, g, [BOUND, drop, dead], UNIT), f, g)
    assert verdict.answer is Answer.NO and verdict.counterexample["step"] == 2
    true = nets(([[1.0, 1.0]], [0.0]), ([[2.0]], [1.0]))
    assert check(claim(f, true, [BOUND, dead], UNIT), f, true).answer is Answer.YES


def test_a_cleared_neuron_loses_its_enclosure() -> None:
    """Before it was cleared y0 >= 2 made y1 + y0 - 3 active; at y0 = 0 that neuron is not."""
    last = ([[1.0, 1.0]], [0.0])
    f = nets(([[1.0, 0.0], [0.0, 1.0]], [3.0, 3.0]), ([[0.0, 1.0], [0.0, 1.0]], [0.0, 0.0]), last)
    g = nets(([[0.0, 0.0], [0.0, 1.0]], [0.0, 3.0]), ([[1.0, 1.0], [-1.0, 1.0]], [-3.0, 5.0]), ([[1.0, 1.0]], [-2.0]))
    steps = [
        BOUND,
        {"move": "clear", "layer": 0, "neurons": [0]},
        {
            "move": "fold", "layer": 1, "neurons": [0, 1], "rows": [["1", "1"], ["-1", "1"]],
            "biases": ["-3", "5"], "columns": [["1", "1"]],
        },
    ]  # fmt: skip
    data = claim(f, g, steps, UNIT)
    verdict = check(data, f, g)
    assert verdict.answer is Answer.NO and verdict.counterexample["step"] == 2 and not holds(data, f, g)


# ---- files


def test_files_round_trip_and_are_not_overwritten(tmp_path: Path) -> None:
    data, f, g = case_fold()
    path = tmp_path / "proof.json"
    certificate = Certificate.from_dict(data)
    certificate.write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["proof.json"]
    assert Certificate.read(path).to_dict() == data
    assert check(Certificate.read(path), f, g).answer is Answer.YES
    with pytest.raises(CertificateError, match="exists already"):
        certificate.write(path)
    certificate.write(path, force=True)
    with pytest.raises(CertificateError, match="cannot be written"):
        certificate.write(tmp_path / "no" / "folder.json")
    with pytest.raises(CertificateError, match="cannot be read"):
        Certificate.read(tmp_path / "absent.json")


def test_a_certificate_is_a_copy() -> None:
    data, _, _ = case_drop()
    certificate = Certificate.from_dict(data)
    data["steps"].clear()
    certificate.to_dict()["steps"].clear()
    assert len(certificate.steps) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", "\x00", '{"schema": NaN}', '{"schema": Infinity}', '{"a": 1, "a": 2}', "[" * 100_000,
        '{"a": ' * 100_000, '{"schema": 1e999}', '{"schema": ' + "9" * 10_000 + "}", '{"schema": "\ud800"}',
    ],
)  # fmt: skip
def test_hostile_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(CertificateError) as caught:
        Certificate.from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_keys_may_not_be_repeated() -> None:
    text = json.dumps(case_round()[0])
    Certificate.from_json(text)
    with pytest.raises(CertificateError, match='"bound" appears twice'):
        Certificate.from_json(text[:-1] + ', "bound": null}')


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(CertificateError, match=r"bad\.json"):
        Certificate.read(path)


def test_numbers_in_the_certificate_may_not_be_floats_or_expressions() -> None:
    for bad in (1, 1.5, "1.5", "1e3", "1_0", "٣", "+1", "1/-2", ""):
        data, f, g = case_constant_rows()
        data["steps"][0]["values"][0] = bad
        with pytest.raises(CertificateError, match="rational"):
            check(data, f, g)


# ---- exact matrices


finite = st.floats(allow_nan=False, allow_infinity=False)
entries = st.one_of(
    finite, st.sampled_from([0.0, -0.0, 1.0, 3.0, 5e-324, 1e-310, 1e308, 0.1]), st.fractions(max_denominator=10**6),
    st.sampled_from([Fraction(10) ** 400, -Fraction(10) ** -400]),
)  # fmt: skip
factors = st.one_of(
    st.sampled_from([Fraction(1), Fraction(-1), Fraction(2), Fraction(1, 3), Fraction(1, 2**1030), Fraction(10**310)]),
    st.fractions(max_denominator=10**9).filter(bool),
    finite.filter(bool).map(Fraction),
)


@st.composite
def tables(draw: st.DrawFn, rows: int = 4, columns: int = 3) -> Any:
    values = draw(st.lists(entries, min_size=rows * columns, max_size=rows * columns))
    out = np.empty((rows, columns), dtype=object)
    out.reshape(-1)[:] = [Fraction(v) for v in values]
    return out


def same(matrix: Matrix, array: Any) -> bool:
    m, n = matrix.shape
    return (m, n) == array.shape and all(matrix.entry(i, j) == array[i, j] for i in range(m) for j in range(n))


@given(tables(), st.permutations(range(4)), tables(2))
def test_matrices_hold_the_rationals_they_are_given(array: Any, order: list[int], other: Any) -> None:
    matrix = Matrix.of(array)
    assert same(matrix, array) and same(matrix.T, array.T)
    assert (rationals.fractions(matrix.exact()) == array).all()
    assert (np.sign(matrix.near) == np.sign([[float(np.sign(q)) for q in row] for row in array])).all()
    assert same(matrix.take_rows(order[:3]), array[order[:3]])
    assert same(matrix.take_columns([2, 0]), array[:, [2, 0]])
    assert same(matrix.below(Matrix.of(other)), np.concatenate([array, other]))
    changed = array.copy()
    changed[[3, 1]] = other
    assert same(matrix.with_rows([3, 1], Matrix.of(other)), changed)
    assert matrix.same_as(Matrix.of(array.copy())) and matrix.same_as(Matrix.of(changed)) == (changed == array).all()
    gap = matrix.distance(Matrix.of(changed))
    for (i, j), q in np.ndenumerate(abs(array - changed)):
        assert (gap[i, j] == 0) == (q == 0)
        assert np.isinf(gap[i, j]) or q <= Fraction(gap[i, j]) <= q * (1 + Fraction(1, 2**49)) + Fraction(1, 10**300)


sums = st.lists(st.tuples(st.integers(0, 3), factors), min_size=1, max_size=3)


@given(tables(), st.lists(sums, min_size=1, max_size=3))
def test_combined_rows_are_exact(array: Any, groups: list[list[tuple[int, Fraction]]]) -> None:
    expected = np.array([sum((q * array[i] for i, q in group), array[0] * 0) for group in groups], dtype=object)
    assert same(combined_rows(Matrix.of(array), groups), expected)


@given(tables(), factors, st.integers(0, 2), st.one_of(st.just(Fraction(0)), st.fractions(max_denominator=10**40)))
def test_proportional_rows_are_recognised_exactly(array: Any, e: Fraction, column: int, change: Fraction) -> None:
    array[1] = e * array[0]
    array[1, column] += change * Fraction(1, 2**80)
    assert first_unequal(Matrix.of(array), [(2, 2, Fraction(1)), (1, 0, e)]) == (None if change == 0 else 1)


singles = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(singles, min_size=2, max_size=6), st.integers(1, 2**24), st.integers(1, 2**24))
def test_proportional_floats_are_recognised_without_fractions(row: list[float], top: int, bottom: int) -> None:
    a, b = np.array(row, dtype=np.float64) * top, np.array(row, dtype=np.float64) * bottom
    assert first_unequal(Matrix.of(np.stack([a, b])), [(0, 1, Fraction(top, bottom))]) is None
    b[0] = np.nextafter(b[0], np.inf)
    assert first_unequal(Matrix.of(np.stack([a, b])), [(0, 1, Fraction(top, bottom))]) == 0


@given(tables())
def test_rounding_agrees_with_rationals(array: Any) -> None:
    matrix = Matrix.of(array)
    for dtype in ("float16", "float32", "float64"):
        try:
            expected = rationals.rounded(rationals.fractions(array), dtype)
        except OverflowError:
            with pytest.raises(OverflowError):
                matrix.rounded(dtype)
        else:
            assert (matrix.rounded(dtype).near == expected.astype(np.float64)).all()


def test_sums_and_products_that_two_floats_cannot_hold() -> None:
    column = Matrix.of(np.array([[1.0], [2.0**-60], [2.0**-120], [3 * 2.0**-200]]))
    total = combined_rows(column, [[(i, Fraction(1)) for i in range(4)]])
    assert total.entry(0, 0) == 1 + Fraction(1, 2**60) + Fraction(1, 2**120) + Fraction(3, 2**200)
    b = 1 + 2.0**-52
    rounded = Matrix.of(np.array([[3 * b], [b]]))  # 3 b is no float
    assert first_unequal(rounded, [(0, 1, Fraction(3))]) == 0
    assert combined_rows(rounded, [[(1, Fraction(3))]]).entry(0, 0) == 3 * Fraction(b)


def test_a_tail_breaks_ties_and_counts_as_a_difference() -> None:
    middle = Fraction(1) + Fraction(1, 2**24)  # between two float32
    for tail, expected in ((0, 1.0), (1, 1 + 2.0**-23), (-1, 1.0)):
        matrix = Matrix.of(np.array([[middle + tail * Fraction(1, 2**70)]], dtype=object))
        assert matrix.rounded("float32").near[0, 0] == expected and not matrix.values.size
        assert matrix.is_float == (tail == 0) and matrix.same_as(Matrix.of(matrix.exact()))
        gap = matrix.distance(Matrix.of(np.array([[float(middle)]])))[0, 0]
        assert (gap == 0) == (tail == 0) and gap <= 2.0**-69


def test_nearest_keeps_signs() -> None:
    assert nearest(Fraction(-1, 10**400)) == (-5e-324, False)
    assert nearest(-(Fraction(10) ** 400)) == (-np.inf, False)
    assert nearest(Fraction(3, 4)) == (0.75, True)


# ---- enclosures


RATIONAL = ("relu", "leaky_relu", "hard_tanh", "abs", "square")


@st.composite
def problems(draw: st.DrawFn, names: tuple[str, ...] = RATIONAL) -> tuple[Network, Box]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    widths = [2, *draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)), 2]
    name = draw(st.sampled_from(names))
    scale = 10.0 ** draw(st.sampled_from([-30, -3, 0, 0, 0, 5, 30]))
    pairs = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        weight = rng.standard_normal((n_out, n_in)) * scale * (rng.random((n_out, n_in)) > 0.2)
        bias = rng.standard_normal(n_out) * rng.integers(0, 2)
        if draw(st.booleans()):
            weight = np.round(weight / scale, 1) * scale
        pairs.append((weight, bias))
    if draw(st.booleans()):  # rational weights that are no floats
        pairs = [(rationals.fractions(w) / 3, rationals.fractions(b) / 7) for w, b in pairs]
    low = rng.integers(-3, 2, 2) / draw(st.sampled_from([1, 10]))
    high = low + rng.random(2) * draw(st.sampled_from([0, 1e-12, 1, 1e6]))
    if draw(st.booleans()):
        low, high = np.where(rng.random(2) < 0.3, -np.inf, low), np.where(rng.random(2) < 0.3, np.inf, high)
    return Network.from_arrays(*pairs, activation=name), Box(low, high)


@given(problems(), st.sampled_from(["interval", "backward"]), st.integers(0, 2**32))
@settings(max_examples=150)
def test_enclosures_contain_exact_values(problem: tuple[Network, Box], method: str, seed: int) -> None:
    net, box = problem
    rng = np.random.default_rng(seed)
    slopes = {
        k: {0: {side: rng.random(sum(net.widths[1 : k + 1])) for side in ("lower", "upper")}}
        for k in range(net.depth)
        if method == "backward"
    }
    snapshot = Snapshot(affine_layers(net), box.lower, box.upper, method, slopes)
    ends = [snapshot.layer(k) for k in range(net.depth)]
    for x in rational_points(box, 12, seed):
        for values, (low, high) in zip(exact_preactivations(net, x), ends, strict=True):
            for z, a, b in zip(values, low.tolist(), high.tolist(), strict=True):
                assert a <= z <= b


@given(problems(("relu",)))
def test_intervals_are_sound_and_tight(problem: tuple[Network, Box]) -> None:
    net, box = problem
    snapshot = Snapshot(affine_layers(net), box.lower, box.upper)
    reach = Fraction(1)
    for k, expected in enumerate(relu_enclosure(net, box)):
        low, high = snapshot.layer(k)
        ends = [abs(e) for pair in expected for e in pair if isinstance(e, Fraction)]
        weights = rationals.fractions(net.layers[k].weight)
        reach = reach * max(1, 10 * max(abs(weights).max(), 1)) + max([Fraction(1), *ends])
        for (a, b), mine, yours in zip(expected, low.tolist(), high.tolist(), strict=True):
            assert mine <= a and yours >= b
            for exact, found in ((a, mine), (b, yours)):
                if isinstance(exact, Fraction) and np.isfinite(found):
                    assert abs(exact - Fraction(found)) <= reach * Fraction(10**5, 10**16) * 10**6


def test_arguments_by_signs_are_exact() -> None:
    middle = [[-0.1, -0.3], [0.3, 0.1], [0.0, 0.0]], [0.0, 0.0, 0.1]
    net = nets(([[1.0, -3.0], [0.1, 0.7]], [0.3, -0.1]), middle, ([[1.0] * 3], [0.0]))
    third = Fraction(1, 3)
    for f in (net, net.with_theta(rationals.fractions(net.theta) * third)):
        snapshot = Snapshot(affine_layers(f), ALL.lower, ALL.upper)
        low, high = snapshot.layer(1)
        assert high[0] == 0 and low[0] == -np.inf and low[1] == 0 and high[1] == np.inf
        assert low[2] <= f.layers[1].bias[2] <= high[2] and high[2] - low[2] <= 1e-16


def test_backward_is_never_looser_and_sees_cancellation() -> None:
    _, f, _ = case_backward()
    boxes = affine_layers(f), UNIT.lower, UNIT.upper
    plain, tight = (Snapshot(*boxes, method).layer(1) for method in ("interval", "backward"))
    assert (tight[0] >= plain[0]).all() and (tight[1] <= plain[1]).all()
    assert plain[1][0] == pytest.approx(3.5) and tight[1][0] == pytest.approx(-0.5, abs=1e-12)


def test_the_chord_is_the_best_line_above_a_relu() -> None:
    """relu(z) <= (z + 1) 2/3 on [-1, 2] bounds relu(z) - (2/3) (z + 3) by 2/3 - 2; intervals give 2/3."""
    f = nets(([[1.0], [1.0]], [0.0, 3.0]), ([[1.0, -2 / 3]], [0.0]), ([[1.0]], [0.0]))
    low, high = Snapshot(affine_layers(f), np.array([-1.0]), np.array([2.0]), "backward").layer(1)
    assert high[0] == pytest.approx(2 / 3 - 2)
    assert low[0] == pytest.approx(-1 / 3 - 2)  # relu(z) >= z, the default slope as 2 > 1


# ---- differences


SIZES = st.sampled_from([0.0, 1e-9, 1e-3, 1.0])


@given(problems(), st.sampled_from(["interval", "backward"]), st.integers(0, 2**32), SIZES)
@settings(max_examples=150)
def test_difference_bounds_hold_at_exact_points(
    problem: tuple[Network, Box], method: str, seed: int, size: float
) -> None:
    f, box = problem
    rng = np.random.default_rng(seed)
    change = size * rng.standard_normal(f.parameter_count) * (rng.random(f.parameter_count) < 0.5)
    g = f.with_theta(rationals.add(f.theta, change))
    constant, slope = difference(affine_layers(f), affine_layers(g), box.lower, box.upper, method)
    if size == 0:
        assert (constant, slope) == (0.0, 0.0)
    if box.bounded:
        assert slope == 0
    if not (np.isfinite(constant) and np.isfinite(slope)):
        return
    for x in rational_points(box, 12, seed):
        allowed = Fraction(constant) + Fraction(slope) * max(map(abs, x))
        assert all(abs(a - b) <= allowed for a, b in zip(f.exact(x), g.exact(x), strict=True))


def test_difference_of_one_layer_is_what_the_formula_says() -> None:
    f, g = nets(([[1.0, 2.0]], [0.0])), nets(([[1.5, 2.0]], [0.25]))
    for box, expected in ((PLUS, (0.5 + 0.25, 0.0)), (ALL, (0.25, 0.5))):
        found = difference(affine_layers(f), affine_layers(g), box.lower, box.upper, "interval")
        assert found == pytest.approx(expected, rel=1e-12)


def test_dead_neurons_carry_no_difference() -> None:
    f = nets(([[1.0, 1.0], [1.0, 0.0]], [-4.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    g = nets(([[1.0, 1.5], [1.0, 0.0]], [-4.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    assert difference(affine_layers(f), affine_layers(g), UNIT.lower, UNIT.upper, "interval") == (0.0, 0.0)


def test_a_tanh_bound_on_all_inputs_holds_at_samples() -> None:
    data, f, g = case_round()
    small, large = ({**data, "bound": {"constant": v, "slope": v}} for v in (1e-9, 1e-5))
    assert check(small, f, g).answer is Answer.NO and check(large, f, g).answer is Answer.YES
    x = np.random.default_rng(0).standard_normal((1000, 2)) * 3
    assert np.abs(f(x) - g(x)).max() > 1e-9


# ---- size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hundreds_of_planted_duplicates(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    base = Network.random((40, 60, 30, 5), seed=rng, dtype=dtype)
    source = np.concatenate([np.arange(60), rng.integers(0, 60, 200)])
    power = np.concatenate([np.ones(60), 2.0 ** rng.integers(-3, 4, 200)]).astype(dtype)
    low, mid = base.layers[0], base.layers[1]
    wide = rng.standard_normal((30, 260)).astype(dtype)
    f = base.with_layers([
        replace(low, weight=low.weight[source] * power[:, None], bias=low.bias[source] * power),
        replace(mid, weight=wide), base.layers[2],
    ])  # fmt: skip
    merged = np.zeros((30, 60), dtype=object) + Fraction(0)
    for i, j in enumerate(source.tolist()):
        merged[:, j] += rationals.fractions(wide[:, i]) * Fraction(float(power[i]))
    g = base.with_layers([low, replace(mid, weight=merged), base.layers[2]])
    pairs = [[i, int(source[i]), str(Fraction(float(power[i])))] for i in range(60, 260)]
    data = claim(f, g, [{"move": "merge", "layer": 0, "pairs": pairs}], Box.everywhere(40))
    assert check(data, f, g).answer is Answer.YES
    data["steps"][0]["pairs"][77][2] = str(Fraction(data["steps"][0]["pairs"][77][2]) * 2)
    verdict = check(data, f, g)
    assert verdict.answer is Answer.NO and f"neuron {60 + 77} " in verdict.reason


def test_products_that_underflow_are_not_forgotten() -> None:
    # at x = 1e300 the second-layer neuron has 1e-200 * 1e100 - 1e-110 > 0: calling it dead is false
    first, last = ([[1e-200], [0.5]], [0.0, 1.0]), [0.0]
    f = Network.from_arrays(first, ([[1e-200, 0.0], [1e-200, 1.0]], [-1e-110, 0.0]), ([[1e200, 1.0]], last))
    g = Network.from_arrays(first, ([[1e-200, 1.0]], [0.0]), ([[1.0]], last))
    assert f.exact([1e300]) != g.exact([1e300])
    claim = {
        "schema": "fiberscope/certificate/1", "kind": "reduction", "version": "1",
        "source": {"digest": f.digest, "sha256": None}, "target": {"digest": g.digest, "sha256": None},
        "domain": {"lower": [1e299], "upper": [1e300]}, "bound": None,
        "steps": [
            {"move": "bound", "method": "backward"}, {"move": "constant", "layer": 1, "neurons": [0], "values": ["0"]},
        ],
    }  # fmt: skip
    assert check(claim, f, g).answer is Answer.NO


# ---- as objects


def test_certificates_are_values() -> None:
    data, f, _ = case_round()
    first = Certificate.from_dict(data)
    for again in (Certificate.from_json(first.to_json()), Certificate(data), copy.deepcopy(first)):
        assert again == first and hash(again) == hash(first)
    assert first != Certificate.from_dict(case_drop()[0]) and first != data
    data["kind"] = "poem"
    assert first.data["kind"] == "reduction"
    with pytest.raises(CertificateError, match="kind"):
        Certificate(data)


@pytest.mark.parametrize("value", [None, 3, [1], b"{}", "{}", Path("a.json")])
def test_what_is_no_certificate_is_refused_in_one_line(value: Any) -> None:
    f = nets(([[1.0, 2.0]], [0.0]))
    with pytest.raises(CertificateError, match=r"is of type .*Certificate.read reads a file"):
        check(value, f, f)
    if not isinstance(value, str | bytes):
        with pytest.raises(CertificateError, match="expected JSON text"):
            Certificate.from_json(value)
    if not isinstance(value, str | bytes | Path):
        with pytest.raises(CertificateError, match="give the name of a file"):
            Certificate.read(value)
        with pytest.raises(CertificateError, match="give the name of a file"):
            Certificate.from_dict(case_drop()[0]).write(value)


def test_results_are_refused_with_a_hint_at_their_certificate() -> None:
    data, f, g = case_drop()
    verdict = check(data, f, g)
    with pytest.raises(CertificateError, match="a Verdict is no certificate; give its .certificate"):
        check(verdict, f, g)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="^g is .*fs.load"):
        check(data, f, "g.onnx")  # type: ignore[arg-type]


def test_what_certificates_say_is_claimed() -> None:
    """Articles and plurals are right, and a bound is rounded up."""
    data, f, g = case_drop()
    assert str(Certificate(data)) == "certificate of a reduction: equal, 1 move"
    assert str(Certificate({**data, "steps": data["steps"] * 2})).endswith("equal, 2 moves")
    data, f, g = case_round()
    data["bound"] = {"constant": 100.01, "slope": 100.01}
    assert str(Certificate(data)).startswith("certificate of a reduction: |f - g| <= 101 + 101 |x|")
    assert "within 101 + 101 |x|_inf of each other" in check(data, f, g).reason
