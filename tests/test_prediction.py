"""Recovery on invariant manifolds: dimensions, sample counts, numbers of manifolds, hypotheses."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants import smallest_sim
from fiberscope.invariants.manifolds.lattice import two_layer_lattice
from fiberscope.invariants.manifolds.rules import class_rules
from fiberscope.invariants.recovery.ranking.prediction import predict_recovery
from fiberscope.network import Network
from fiberscope.results import Rigor

TARGET = json.loads((Path(__file__).parent / "data" / "recovery.json").read_text())["ground_truth"]["fig4_target"]


def fig4(name="tanh"):
    w = [[Fraction(str(v)) for v in row] for row in TARGET["W"]]
    return Network.from_arrays((w, [0, 0, 0]), ([[1, 1, 1]], None), activation=name)


def test_the_target_of_figure_4():
    found = predict_recovery(fig4(), 9)
    assert found.rigor is Rigor.GENERIC
    assert (found.smallest, found.samples, found.parameters, found.unconstrained) == (21, 22, 63, 64)
    assert found.optimistic.value == TARGET["O_f"]["fc"] and found.needed == (3,)
    assert [row.dimension for row in found.rows] == [7 * r for r in range(1, 10)]
    assert [row.contains for row in found.rows] == [r >= 3 for r in range(1, 10)]
    assert [row.samples for row in found.rows] == [None, None, *(7 * r + 1 for r in range(3, 10))]
    assert [row.status for row in found.rows] == ["no"] * 2 + ["theorem"] * 6 + ["unconstrained"]
    assert found.at(21) is None and found.at(22).groups == 3 and found.at(30).groups == 4 and found.at(64).groups == 9
    assert [predict_recovery(fig4(), m).parameters for m in TARGET["widths"]] == TARGET["M_fc"]


def test_all_ways_to_say_the_widths():
    net = fig4()
    first = predict_recovery(net, 9).to_dict()
    assert predict_recovery(net, (9,)).to_dict() == predict_recovery(net, (5, 9, 1)).to_dict() == first
    for wrong in ((4, 9, 1), (9, 9), 0, (5, 9, 2)):
        with pytest.raises(InputError):
            predict_recovery(net, wrong)


def test_hypotheses_are_checked():
    def held(found, text):
        return next(a for a in found.assumes if a.statement.startswith(text))

    found = predict_recovery(fig4(), 9)
    assert held(found, "no narrower").holds and held(found, "the activation is analytic").holds
    assert not held(found, "the samples").checked and not held(found, "training reaches").checked
    assert not any("Taylor" in a.statement for a in found.assumes)
    two = Network.from_arrays(([[1, 2]], [1]), ([[1], [2]], None), activation="softplus")
    assert [(r.dimension, r.samples, r.status) for r in predict_recovery(two, 2).rows] == [
        (5, 6, "theorem"), (10, 11, "unconstrained"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
def test_activations_with_kinks_have_no_criterion(name):
    row = activation(name, 0.25) if name == "leaky_relu" else activation(name)
    found = predict_recovery(fig4(row), 4)
    assert found.samples is None and found.unconstrained is None and found.at(10**9) is None and found.smallest == 21
    assert all(r.samples is None for r in found.rows)
    assert [r.status for r in found.rows if r.contains] == ["no criterion"] * 2
    assumed = next(a for a in found.assumes if a.statement.startswith("the activation is analytic"))
    assert assumed.checked and assumed.holds is False
    assert "is a criterion from" not in str(found) and "no criterion" in str(found)
    json.loads(found.to_json())


def test_a_kink_that_no_sample_sees():
    """1,000 samples are fitted exactly by networks that differ from the target: n > D is no criterion for relu."""
    x = np.random.default_rng(0).uniform(-1, 1, (1000, 1))
    target = Network.from_arrays(([[1.0], [0.0]], [0.25, 0.0]), ([[1.0, 0.0]], None), activation="relu")
    other = Network.from_arrays(([[1.0], [1.0]], [0.25, -2.0]), ([[1.0, 5.0]], None), activation="relu")
    assert np.array_equal(target(x), other(x)) and not np.array_equal(target([[3.0]]), other([[3.0]]))
    assert predict_recovery(target, 2).at(1000) is None


def test_the_zero_function_has_nothing_to_interpolate():
    zero = Network.from_arrays(([[1.0, 2]], [0.5]), ([[0.0]], None), activation="tanh")
    found = predict_recovery(zero, 3)
    assert (found.needed, found.smallest, found.samples) == ((0,), 0, None)
    assert [(r.dimension, r.samples) for r in found.rows] == [(4, 5), (8, 9), (12, 13)]
    assert "nothing to interpolate" in str(found) and "n = 1 " not in str(found)
    assert predict_recovery(zero, 3, output_bias=True).samples == 2


def test_too_narrow():
    found = predict_recovery(fig4(), 2)
    assert found.smallest is None and found.samples is None and found.at(10**6) is None
    assert not any(row.contains for row in found.rows) and "needs" in str(found)


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "erf", "sigmoid"])
def test_counts_are_those_of_the_lattice(name):
    row = activation(name)
    rules = class_rules(row)
    target = Network.from_arrays(([[1, 2]], [1]), ([[1]], None), activation=row)
    for m in (1, 2, 4, 5):
        lattice = two_layer_lattice(m, 4, 0, signs=rules.signs, null=rules.null)
        classes = Counter()
        for kind in lattice.types:
            classes[len(kind.sizes)] += kind.count
        found = predict_recovery(target, m)
        assert [r.count for r in found.rows] == [classes[r] for r in range(1, m + 1)]
        assert {t.dimension for t in lattice.types if t.sizes} == {r.dimension for r in found.rows}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["tanh", "erf", "gaussian", "softplus", "gelu"]))
def test_the_smallest_manifold_is_that_of_the_embedded_target(seed, name):
    """Embed a target by copies and signs: the smallest invariant manifold of the wide network is the predicted one."""
    rng = np.random.default_rng(seed)
    row = activation(name)
    k = int(rng.integers(1, 4))
    w = rng.integers(-3, 4, (k, 2)) + np.array([[0.25, 0.5], [0.5, 0.75], [0.75, 0.25]])[:k]  # no two up to sign
    b, a = rng.integers(-2, 3, k).astype(float), rng.integers(1, 4, (1, k)).astype(float)
    target = Network.from_arrays((w, b), (a, None), activation=row)
    source = np.concatenate([np.arange(k), rng.integers(0, k, 3)])
    share = np.bincount(source, minlength=k)
    e = rng.choice([-1.0, 1.0], k + 3) if row.parity else np.ones(k + 3)
    back = e if row.parity == "odd" else np.ones(k + 3)
    # multiples of the shares, so that the halves and thirds are exact
    scaled = a * np.prod(share)
    target = Network.from_arrays((w, b), (scaled, None), activation=row)
    wide = Network.from_arrays(
        (w[source] * e[:, None], b[source] * e), ((scaled[:, source] / share[source]) * back, None), activation=row
    )
    predicted = predict_recovery(target, k + 3)
    assert predicted.needed == (k,) and predict_recovery(wide, k + 3).smallest == predicted.smallest
    # the output bias is one more parameter of the network, and frozen here
    assert smallest_sim(wide).dimension == predicted.smallest + 1
    assert smallest_sim(wide).dimension == predict_recovery(wide, k + 3, output_bias=True).smallest


def test_what_is_not_proved_is_not_claimed():
    """A sigmoid and its opposite are one class with a constant left over: a narrower form is not excluded."""
    net = Network.from_arrays(([[1, 2], [-1, -2]], [1, -1]), ([[1, 1]], None), activation="sigmoid")
    found = predict_recovery(net, 3)
    assert found.needed == (2,) and [row.status for row in found.rows] == ["not found", "theorem", "unconstrained"]
    assert next(a for a in found.assumes if a.statement.startswith("no narrower")).checked is False
    assert "no more than" in str(predict_recovery(net, 1))


def test_redundant_targets_need_no_more():
    w = np.array([[1.0, 2], [1, 2], [-1, -2], [0, 0], [3, 1]])
    net = Network.from_arrays((w, [1, 1, -1, 0, 2]), ([[1, 2, 1, 5, 0]], None), activation="tanh")
    found = predict_recovery(net, 5)
    assert found.needed == (1,) and found.smallest == 4
    nothing = Network.from_arrays(([[1.0, 1.0]], [0.0]), ([[0.0]], None), activation="softplus")
    assert predict_recovery(nothing, 3).needed == (1,)  # softplus is never silent


def test_deep_targets():
    rng = np.random.default_rng(0)
    net = Network.from_arrays(
        (rng.standard_normal((2, 3)), rng.standard_normal(2)), (rng.standard_normal((3, 2)), rng.standard_normal(3)),
        (rng.standard_normal((1, 3)), None), activation="tanh",
    )  # fmt: skip
    found = predict_recovery(net, (4, 5))
    assert found.needed == (2, 3) and found.smallest == 3 * 2 + 2 + 2 * 3 + 3 + 3
    assert [row.status for row in found.rows] == ["theorem", "unconstrained"]
    assert found.parameters == 3 * 4 + 4 + 4 * 5 + 5 + 5
    narrow = predict_recovery(net, (1, 9), budget=5.0)
    assert narrow.smallest is None and [row.status for row in narrow.rows] == ["not found"]
    assert next(a for a in narrow.assumes if a.statement.startswith("the activation is analytic")).holds


def test_what_is_written():
    found = predict_recovery(fig4(), 30)
    frame = found.to_frame()
    assert {len(column) for column in frame.values()} == {30} and frame["dimension"][2] == 21
    document = json.loads(found.to_json())
    assert document["optimistic"] == 21 and document["theorems"][0] == "sim-recovery" and len(document["rows"]) == 30
    assert str(found).count("\n") < 40 and "criterion" in str(found)
    with pytest.raises(ScopeError):
        predict_recovery(Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], None), activation="sin"), 3)
