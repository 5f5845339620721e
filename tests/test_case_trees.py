"""Certificates of kind "cases": the checker accepts proofs, names what is wrong, and never proves a false claim."""

import copy
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fiberscope.certificates import Certificate, check
from fiberscope.certificates.cases import exact_intervals
from fiberscope.domains import Box
from fiberscope.errors import CertificateError
from fiberscope.fibers.cells import decide_by_cells
from fiberscope.network import Network
from fiberscope.results import Answer, Stopwatch


def hidden_shift():
    """relu(2 relu(x) - relu(y) - 4) + relu(relu(x) - 3 relu(y) - 6), and the same with x moved by one."""
    f = Network.from_arrays((np.eye(2), [0, 0]), ([[2, -1], [1, -3]], [-4, -6]), ([[1, 1]], [0]))
    g = Network.from_arrays((np.eye(2), [-1, 0]), ([[2, -1], [1, -3]], [-2, -5]), ([[1, 1]], [0]))
    return f, g


def maximum():
    """max(0, x, 1 - 2 y): relu(relu(x) - relu(b)) + relu(b), and relu(relu(x - b) + b) with b as two neurons."""
    f = Network.from_arrays(([[1, 0], [0, -2]], [0, 1]), ([[1, -1], [0, 1]], [0, 0]), ([[1, 1]], [0]))
    g = Network.from_arrays(([[1, 2], [0, -2], [0, 2]], [-1, 1, -1]), ([[1, 1, -1]], [0]), ([[1]], [0]))
    return f, g


PAIRS = {"shift": hidden_shift(), "maximum": maximum()}
BOX = Box.parse("[-9,9]", 2)


def proof_of(f, g, box=BOX):
    outcome = decide_by_cells(f, g, box, Stopwatch(None))
    assert outcome.answer is Answer.YES
    return outcome.certificate


PROOFS = {name: proof_of(*pair) for name, pair in PAIRS.items()}


def claim(f, g, nodes, box=BOX):
    return {
        "schema": "fiberscope/certificate/1", "kind": "cases", "version": "1",
        "source": {"digest": f.digest, "sha256": None}, "target": {"digest": g.digest, "sha256": None},
        "domain": box.to_dict(), "nodes": nodes,
    }  # fmt: skip


def cut(net, layer, neuron, at, below, above):
    return {"split": {"net": net, "layer": layer, "neuron": neuron, "at": at}, "below": below, "above": above}


EQUAL = {"leaf": "equal"}


def empty(**multipliers):
    return {"leaf": "empty", "multipliers": {name[1:]: value for name, value in multipliers.items()}}


# ---- accepted


@pytest.mark.parametrize("name", PAIRS)
def test_proofs_are_accepted(name):
    verdict = check(Certificate.from_json(json.dumps(PROOFS[name])), *PAIRS[name])
    assert verdict.answer is Answer.YES and verdict.theorems == ("case-tree",)
    assert sum(node.get("leaf") == "empty" for node in PROOFS[name]["nodes"]) > 0


def test_a_proof_by_hand():
    # |x| = relu(x) + relu(-x); abs is split at 0, where x >= 0 decides both ReLUs. One leaf would do as well.
    f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation="abs")
    g = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    box = Box.everywhere(1)
    assert check(claim(f, g, [EQUAL], box), f, g).answer is Answer.YES
    assert check(claim(f, g, [cut("f", 0, 0, "0", 1, 2), EQUAL, EQUAL], box), f, g).answer is Answer.YES
    nodes = [cut("g", 0, 1, "5/3", 1, 2), EQUAL, EQUAL]  # any threshold makes a partition
    assert check(claim(f, g, nodes, box), f, g).answer is Answer.YES
    # x <= 1 and x >= 2: inequality 2 is 1 - x >= 0, inequality 3 is x - 2 >= 0; they add up to -1
    nodes = [cut("f", 0, 0, "1", 1, 2), cut("f", 0, 0, "2", 3, 4), EQUAL, EQUAL, empty(_2="1", _3="1")]
    assert check(claim(f, g, nodes, box), f, g).answer is Answer.YES


def test_the_tightest_split_of_a_direction_counts():
    # relu(relu(x) - 2 relu(-x)) = relu(x), seen once the sign of x is known; a later, wider split does not lose it
    f = Network.from_arrays(([[1], [-1]], [0, 0]), ([[1, -2]], [0]), ([[1]], [0]))
    g = Network.from_arrays(([[1]], [0]), ([[1]], [0]))
    box = Box.everywhere(1)
    assert "output 0" in check(claim(f, g, [EQUAL], box), f, g).reason
    nodes = [
        cut("f", 0, 0, "0", 1, 2), cut("g", 0, 0, "3", 3, 4), cut("g", 0, 0, "-3", 5, 6),
        EQUAL, empty(_2="1", _3="1"), empty(_2="1", _3="1"), EQUAL,
    ]  # fmt: skip
    assert check(claim(f, g, nodes, box), f, g).answer is Answer.YES
    nodes[0] = cut("f", 0, 0, "1", 1, 2)
    assert "node 3: output 0" in check(claim(f, g, nodes, box), f, g).reason


def test_ends_of_the_domain_are_inequalities():
    # relu(x + y) = x + y where x >= 1 (inequality 0) and y >= -1 (inequality 2); the split is inequality 4
    f = Network.from_arrays(([[1.0, 1.0]], [0.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0, 1.0]], [0.0]), activation=["identity"])
    box = Box(np.array([1.0, -1.0]), np.array([np.inf, 4.0]))
    nodes = [cut("f", 0, 0, "0", 1, 2), empty(_0="1", _2="1", _4="1"), EQUAL]
    assert check(claim(f, g, nodes, box), f, g).answer is Answer.YES
    nodes[1] = empty(_0="1", _1="1", _4="1")
    with pytest.raises(CertificateError, match="input 0 does not have"):
        check(claim(f, g, nodes, box), f, g)


# ---- refused, with the reason


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([EQUAL], "output 0 is not the same"),
        ([cut("f", 0, 0, "0", 1, 2), EQUAL, EQUAL], "node 2: output 0|node 1: output 0"),
        ([cut("f", 0, 0, "0", 1, 2), empty(_2="1"), EQUAL], "node 1: the multiplied inequalities do not add up"),
        ([cut("f", 0, 0, "0", 1, 2), empty(_0="1", _1="1"), empty(_0="1", _1="1")], "positive constant"),
        ([cut("f", 0, 0, "0", 1, 2), empty(_2="-1"), empty(_2="1")], "not positive"),
        ([cut("f", 0, 0, "0", 1, 2), empty(_2="0"), empty(_2="0")], "not positive"),
        ([cut("f", 0, 0, "0", 1, 2), empty(), empty()], "no multipliers"),
        ([cut("f", 0, 1, "0", 1, 2), empty(_2="1"), empty(_2="1")], "node 0: neuron 1 of layer 0 of f is constant"),
        ([cut("f", 0, 1, "1", 1, 2), empty(_2="1"), EQUAL], "node 0: neuron 1 of layer 0 of f is constant"),
        ([cut("g", 1, 0, "0", 1, 2), EQUAL, EQUAL], "neuron 0 of layer 1 of g is not affine"),
    ],
)
def test_refusals(nodes, reason):
    # f = relu(x), its second neuron constant 0; g = x + relu(relu(x) - 1)
    f = Network.from_arrays(([[1.0], [0.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    g = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 0.0], [0.0, 1]], [-1.0, 0]), ([[1.0, 1.0]], [0.0]))
    verdict = check(claim(f, g, nodes, Box.parse("[-1,1]", 1)), f, g)
    assert verdict.answer is Answer.NO
    assert any(part in verdict.reason for part in reason.split("|")), verdict.reason


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([cut("f", 0, 0, "0", 1, 1), EQUAL], "another node"),
        ([cut("f", 0, 0, "0", 0, 1), EQUAL], "a later node"),
        ([cut("f", 0, 0, "0", 1, 3), EQUAL, EQUAL], "a later node"),
        ([EQUAL, EQUAL], "1 nodes have no parent"),
        ([cut("f", 0, 2, "0", 1, 2), EQUAL, EQUAL], "no neuron 2"),
        ([cut("f", 2, 0, "0", 1, 2), EQUAL, EQUAL], "layer 2"),
        ([cut("f", 0, 0, "0", 1, 2), empty(_3="1"), EQUAL], "no inequality 3"),
        ([], "nonempty"),
        ([cut("h", 0, 0, "0", 1, 2), EQUAL, EQUAL], '"f" or "g"'),
        ([cut("f", 0, 0, "0.5", 1, 2), EQUAL, EQUAL], "rational"),
        ([cut("f", -1, 0, "0", 1, 2), EQUAL, EQUAL], "index"),
        ([{"leaf": "unknown"}], '"equal" or "empty"'),
        ([{"leaf": "empty"}], "multipliers"),
        ([{**EQUAL, "multipliers": {}}], "unknown key"),
        ([{"leaf": "empty", "multipliers": {"01": "1"}}], "no index"),
    ],
)
def test_malformed(nodes, message):
    f = Network.from_arrays(([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    with pytest.raises(CertificateError, match=message):
        check(claim(f, f, nodes, Box.everywhere(1)), f, f)


def test_a_flat_domain_is_not_empty():
    # on x = 1 the inequalities x - 1 >= 0 and 1 - x >= 0 add up to 0, but nothing may be concluded
    f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [1.0]))
    box = Box(np.array([1.0]), np.array([1.0]))
    with pytest.raises(CertificateError, match="input 0 does not have"):
        check(claim(f, g, [empty(_0="1", _1="1")], box), f, g)
    nodes = [cut("f", 0, 0, "1", 1, 2), empty(_2="1"), empty(_2="1")]
    assert "constant on the cell" in check(claim(f, g, nodes, box), f, g).reason


def test_other_networks_and_heads():
    f, g = PAIRS["shift"]
    assert "digest" in check(PROOFS["shift"], g, f).reason
    soft = Network(g.layers, "softmax")
    assert "head" in check(claim(f, soft, PROOFS["shift"]["nodes"]), f, soft).reason
    wide = Network.from_arrays((np.eye(2), [0, 0]))
    assert check(claim(f, wide, [EQUAL]), f, wide).answer is Answer.NO
    smooth = Network.random((2, 2, 1), activation="tanh", seed=0)
    assert "piecewise linear" in check(claim(f, smooth, [EQUAL]), f, smooth).reason


@pytest.mark.parametrize(
    ("activation", "low", "high", "image"),
    [
        ("relu", None, None, (0, None)),
        ("relu", -3, -1, (0, 0)),
        ("relu", -3, 2, (0, 2)),
        ("abs", -3, 2, (0, 3)),
        ("abs", -3, None, (0, None)),
        ("abs", 1, 2, (1, 2)),
        ("hard_tanh", None, 0, (-1, 0)),
        ("hard_tanh", None, None, (-1, 1)),
        ("leaky_relu", None, 3, (None, 3)),
        ("identity", -1, None, (-1, None)),
    ],
)
def test_interval_arithmetic(activation, low, high, image):
    ends = np.array([-np.inf if low is None else low]), np.array([np.inf if high is None else high])
    net = Network.from_arrays(([[1.0]], [0.0]), ([[-2.0]], [1.0]), activation=activation)
    taken, preactivations = exact_intervals(net, Box(*ends))
    assert preactivations[0] == [(low, high)] and taken[1] == [image]
    assert preactivations[1] == [tuple(None if v is None else 1 - 2 * v for v in reversed(image))]


# ---- corruption


def refused(data, f, g):
    try:
        return check(data, f, g).answer is not Answer.YES
    except CertificateError:
        return True


@pytest.mark.parametrize("name", PAIRS)
def test_every_single_corruption_is_refused(name):
    f, g = PAIRS[name]
    nodes = PROOFS[name]["nodes"]
    for k, node in enumerate(nodes):
        for changed in _corruptions(nodes, k, node):
            assert refused(claim(f, g, changed), f, g), (k, node, changed[k] if k < len(changed) else None)


def _corruptions(nodes, k, node):
    """The tree with node k wrong in one way that cannot be right (an empty cell may well be one of equality)."""

    def with_node(new):
        out = copy.deepcopy(nodes)
        out[k] = new
        return out

    yield nodes[:k] + nodes[k + 1 :]
    yield [*nodes[: k + 1], node, *nodes[k + 1 :]]
    if node.get("leaf") == "empty":
        yield with_node(empty())
        for name, value in node["multipliers"].items():
            for wrong in (f"-{value}", "0", "1000003"):
                yield with_node({**node, "multipliers": {**node["multipliers"], name: wrong}})
            yield with_node({**node, "multipliers": {n: v for n, v in node["multipliers"].items() if n != name}})
            yield with_node({**node, "multipliers": {**node["multipliers"], "99": value}})
    elif "split" in node:
        for side, other in (("below", "above"), ("above", "below")):
            if nodes[node[side]].get("leaf") == "empty":
                yield with_node({**node, side: node[other], other: node[side]})
            yield with_node({**node, side: node[other]})
            yield with_node({**node, side: k})
            yield with_node({**node, side: len(nodes)})
        yield with_node({**node, "split": {**node["split"], "neuron": 7}})
        yield with_node({**node, "split": {**node["split"], "layer": 7}})
        yield with_node({n: v for n, v in node.items() if n != "below"})
    else:
        yield with_node(empty(_0="1", _1="1"))
        yield with_node(empty(_4="1"))


BASE = {name: json.dumps(proof["nodes"]) for name, proof in PROOFS.items()}


@settings(max_examples=100)
@given(st.sampled_from(sorted(PAIRS)), st.data())
def test_no_corruption_proves_a_false_claim(name, data):
    """g is changed so that the claim is false; then no change of the tree whatever may be accepted."""
    f, g = PAIRS[name]
    theta = np.array(g.theta, dtype=float)
    theta[data.draw(st.integers(0, theta.size - 1))] += data.draw(st.sampled_from([2.0**-30, 1.0, -1.0]))
    h = g.with_theta(theta)
    assume(decide_by_cells(f, h, BOX, Stopwatch(None)).answer is Answer.NO)
    nodes = json.loads(BASE[name])
    assert refused(claim(f, h, nodes), f, h)
    for _ in range(data.draw(st.integers(1, 4))):
        _mutate(nodes, data)
    assert refused(claim(f, h, nodes), f, h)


def _mutate(nodes, data):
    """One random change of any part of a tree, well-formed as JSON."""
    draw = data.draw
    k = draw(st.integers(0, len(nodes) - 1))
    node, kind = nodes[k], draw(st.sampled_from(["leaf", "number", "index", "drop", "swap", "exchange"]))
    number = st.sampled_from(["0", "1", "-1", "1/2", "3", "-7/5", "1/1073741824"])
    if kind == "leaf":
        names = [str(i) for i in draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))]
        nodes[k] = draw(
            st.sampled_from([EQUAL, {"leaf": "empty", "multipliers": {name: draw(number) for name in names}}])
        )
    elif kind == "number" and "split" in node:
        node["split"]["at"] = draw(number)
    elif kind == "number" and "multipliers" in node:
        node["multipliers"][str(draw(st.integers(0, 9)))] = draw(number)
    elif kind == "index" and "split" in node:
        part = draw(st.sampled_from(["neuron", "layer", "below", "above"]))
        (node if part in node else node["split"])[part] = draw(st.integers(0, 9))
    elif kind == "drop":
        nodes.pop(k)
        nodes or nodes.append(dict(EQUAL))
    elif kind == "swap" and "split" in node:
        node["below"], node["above"] = node["above"], node["below"]
    elif kind == "exchange":
        j = draw(st.integers(0, len(nodes) - 1))
        nodes[j], nodes[k] = nodes[k], nodes[j]
