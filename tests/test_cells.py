"""The complete decision by cells: identities, slow oracles, exact witnesses, degenerate domains, and its programs."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fiberscope.certificates import Certificate, check
from fiberscope.domains import Box
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.fibers.cells import decide_by_cells
from fiberscope.network import Network
from fiberscope.programs import Cut, Polyhedron, inner_point, propose_witnesses, strict_solution
from fiberscope.results import Answer, Stopwatch

FREE = Stopwatch(None)


def decide(f, g, box=None, **options):
    """The answer, with whatever it claims replayed: YES by the checker, NO by exact evaluation inside the box."""
    box = Box.everywhere(f.widths[0]) if box is None else box
    outcome = decide_by_cells(f, g, box, FREE, **options)
    if outcome.answer is Answer.YES:
        verdict = check(Certificate.from_json(json.dumps(outcome.certificate)), f, g)
        assert verdict.answer is Answer.YES, verdict.reason
        assert outcome.cells == sum(node.get("leaf") == "equal" for node in outcome.certificate["nodes"])
    elif outcome.answer is Answer.NO:
        assert f.exact(outcome.witness) != g.exact(outcome.witness)
        assert all(a <= x <= b for a, x, b in zip(box.lower.tolist(), outcome.witness, box.upper.tolist(), strict=True))
    return outcome


def maxima(n, count, seed, lift=0.0):
    """Two networks for sum v_k max(0, a_k, b_k), by different three-layer identities; `lift` breaks one."""
    rng = np.random.default_rng(seed)
    a, b = (np.round(8 * rng.standard_normal((count, n))) / 8 for _ in range(2))
    a0, b0, v = (np.round(8 * rng.standard_normal(count)) / 8 for _ in range(3))
    one, none = np.eye(count), np.zeros((count, count))
    f = Network.from_arrays(
        (np.concatenate([a, b]), np.concatenate([a0, b0])),
        (np.block([[one, -one], [none, one]]), np.zeros(2 * count)),
        (np.concatenate([v, v])[None], [0.5]),
    )
    shift = np.zeros(count)
    shift[0] = lift
    g = Network.from_arrays(
        (np.concatenate([a - b, b, -b]), np.concatenate([a0 - b0, b0, -b0])),
        (np.block([[one, one, -one]]), shift),
        (v[None], [0.5]),
    )
    return f, g


# ---- equal functions


def test_vectors(shared):
    path = shared / "vectors" / "fibers.json"
    if not path.is_file():
        pytest.skip("no vectors beside the repository")
    for case in json.loads(path.read_text(encoding="utf-8")):
        f, g = (_stored(case[name]) for name in "AB")
        wanted = Answer.NO if case["verdict"] == "DIFFERENT" else Answer.YES
        for box in (Box.everywhere(f.widths[0]), Box.parse("[-10,10]", f.widths[0])):
            assert decide(f, g, box).answer is wanted, case["name"]


def _stored(data):
    depth = sum(key.startswith("W") for key in data)
    pairs = []
    for k in range(1, depth + 1):
        weight = np.array([[Fraction(v) for v in row] for row in data[f"W{k}"]], dtype=object)
        pairs.append((weight, np.array([Fraction(v) for v in data[f"b{k}"]], dtype=object)))
    return Network.from_arrays(*pairs)


def test_hidden_shift_needs_splits():
    # f = relu(2 relu(x) - relu(y) - 4) + relu(relu(x) - 3 relu(y) - 6), and x moved by one
    f = Network.from_arrays((np.eye(2), [0, 0]), ([[2, -1], [1, -3]], [-4, -6]), ([[1, 1]], [0]))
    g = Network.from_arrays((np.eye(2), [-1, 0]), ([[2, -1], [1, -3]], [-2, -5]), ([[1, 1]], [0]))
    outcome = decide(f, g)
    assert outcome.answer is Answer.YES and outcome.cells > 1
    h = Network.from_arrays((np.eye(2), [-1, 0]), ([[2, -1], [1, -3]], [-2, -4]), ([[1, 1]], [0]))
    assert decide(f, h).answer is Answer.NO


def test_fan_identity():
    # on the orthant relu(u) - relu(u - relu(v)) = min(relu(u), relu(v)) is symmetric in u and v
    u, v = [1.0, -2.0], [-1.0, 3.0]
    nets = []
    for p, q in ((u, v), (v, u)):
        nets.append(Network.from_arrays((np.array([p, q]), [0.5, 1]), ([[1, 0], [1, -1]], [0, 0]), ([[1, -1]], [0])))
    nets[1] = Network.from_arrays((np.array([v, u]), [1, 0.5]), ([[1, 0], [1, -1]], [0, 0]), ([[1, -1]], [0]))
    assert decide(*nets).answer is Answer.YES


@pytest.mark.parametrize(("n", "count"), [(1, 2), (2, 2), (3, 2), (2, 3)])
def test_maxima(n, count):
    f, g = maxima(n, count, seed=n)
    for box in (Box.everywhere(n), Box.nonnegative(n), Box.parse("[-3,2]", n)):
        assert decide(f, g, box).answer is Answer.YES
    for lift in (1.0, 2.0**-40):
        assert decide(f, maxima(n, count, n, lift)[1]).answer is Answer.NO


def test_permuted_and_rescaled_copies_are_one_cell():
    rng = np.random.default_rng(0)
    f = Network.random((5, 8, 8, 8, 2), seed=1)
    layers = [(layer.weight.copy(), layer.bias.copy()) for layer in f.layers]
    for k in range(3):
        order, scale = rng.permutation(8), 2.0 ** rng.integers(-3, 4, 8)
        layers[k] = ((layers[k][0] * scale[:, None])[order], (layers[k][1] * scale)[order])
        layers[k + 1] = ((layers[k + 1][0] / scale)[:, order], layers[k + 1][1])
    outcome = decide(f, Network.from_arrays(*layers))
    assert (outcome.answer, outcome.cells, outcome.nodes) == (Answer.YES, 1, 1)


ONE = [[1.0]]


@pytest.mark.parametrize(
    ("activation", "weights", "biases", "sums", "constant"),
    [
        ("abs", [1, -1], [0, 0], [1, 1], 0),
        ("hard_tanh", [1, 1], [1, -1], [1, -1], -1),
        ("leaky_relu", [1, -1], [0, 0], [1, Fraction(-1, 100)], 0),
        ("clip", [-1, -1], [6, 0], [-1, 1], 6),
    ],
)
def test_activations_as_relus(activation, weights, biases, sums, constant):
    column = np.array(weights, dtype=float)[:, None]
    tilted = np.array([[1.0, -0.5]])
    f = Network.from_arrays((tilted, [0.25]), (ONE, [0.0]), activation=activation)
    g = Network.from_arrays(
        (column @ tilted, np.array(biases) + 0.25 * column[:, 0]), (np.array([sums], dtype=object), [constant])
    )
    assert decide(f, g).answer is Answer.YES
    h = Network.from_arrays(*((layer.weight, layer.bias) for layer in g.layers[:1]), (g.layers[1].weight, [1 / 3]))
    assert decide(f, h).answer is Answer.NO


def test_activation_on_the_outputs():
    f = Network.from_arrays(([[1.0]], [0.0]), activation=["relu"])
    g = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation=["relu", "relu"])
    h = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation=["hard_tanh", "relu"])
    assert decide(f, g).answer is Answer.YES
    assert decide(f, h).answer is Answer.NO
    assert decide(f, h, Box.parse("[-5,1]", 1)).answer is Answer.YES


def test_different_depths():
    f = Network.random((2, 3, 1), seed=3)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in f.layers)
    g = Network.from_arrays((w1, b1), (np.eye(3), np.zeros(3)), (w2, b2))
    assert decide(f, g).answer is Answer.YES


def test_layers_that_only_pass_values_need_no_split():
    # relu(h) = h for h >= 0, and relu(1 - 2 relu(x)) has no sign; all signs follow from what the neurons take
    f = Network.from_arrays(([[1.0]], [0.0]), ([[-2.0]], [1.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [0.0]), ([[3.0]], [0.0]), ([[-0.5]], [1.0]), (ONE, [0.0]))
    h = Network.from_arrays(([[1.0]], [0.0]), ([[4.0]], [0.0]), ([[-0.5]], [1.0]), (ONE, [0.0]))
    assert decide(f, h).nodes == 1
    assert decide(f, g).answer is Answer.NO


# ---- domains


def test_domain_decides():
    # relu(x + y - 1) and x + y - 1 agree only where x + y >= 1
    f = Network.from_arrays(([[1.0, 1.0]], [-1.0]), (ONE, [0.0]))
    g = Network.from_arrays(([[1.0, 1.0]], [-1.0]), activation=["identity"])
    assert decide(f, g).answer is Answer.NO
    assert decide(f, g, Box(np.array([0.5, 0.5]), np.array([np.inf, np.inf]))).answer is Answer.YES
    assert decide(f, g, Box(np.array([0.5, 0.5 - 2**-30]), np.array([np.inf, 3.0]))).answer is Answer.NO


def test_flat_boxes_are_no_loophole():
    f = Network.from_arrays(([[1.0, 1.0]], [0.0]), (ONE, [0.0]))
    g = Network.from_arrays(([[1.0, 2.0]], [0.0]), (ONE, [0.0]))
    assert decide(f, g, Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]))).answer is Answer.NO
    assert decide(f, g, Box(np.array([0.0, 0.0]), np.array([1.0, 0.0]))).answer is Answer.YES
    assert decide(f, g, Box(np.array([3.0, 1.0]), np.array([3.0, 1.0]))).answer is Answer.NO
    assert decide(f, g, Box(np.array([3.0, -3.0]), np.array([3.0, -3.0]))).answer is Answer.YES


def test_more_inputs_than_rank():
    rng = np.random.default_rng(5)
    mix = np.round(rng.standard_normal((2, 9)) * 16) / 16
    f, g = maxima(2, 2, seed=2)
    wide = [
        Network.from_arrays(
            (net.layers[0].weight @ mix, net.layers[0].bias), *((k.weight, k.bias) for k in net.layers[1:])
        )
        for net in (f, g)
    ]
    for box in (Box.everywhere(9), Box.parse("[-1,1]", 9)):
        assert decide(*wide, box).answer is Answer.YES


def test_unread_inputs():
    f = Network.from_arrays((np.array([[1.0, 0.0], [2.0, 0.0]]), [0, 1]), ([[1, -1]], [0]))
    g = Network.from_arrays((np.array([[2.0, 0.0], [1.0, 0.0]]), [1, 0]), ([[-1, 1]], [0]))
    assert decide(f, g, Box.parse("[0,1]", 2)).answer is Answer.YES


def test_a_constant_network():
    f = Network.from_arrays((np.zeros((2, 2)), [1, -1]), ([[2, 3]], [0]))
    g = Network.from_arrays((np.zeros((1, 2)), [0]), ([[5]], [2]))
    assert decide(f, g).answer is Answer.YES
    assert decide(f, Network.from_arrays((np.zeros((1, 2)), [0]), ([[5]], [3]))).answer is Answer.NO


# ---- witnesses


@pytest.mark.parametrize("size", [2.0**-3, 2.0**-20, 2.0**-45])
def test_a_tiny_bump_is_found(size):
    # bump(x, y) = relu(size - |x - 1/3| - |y - 2/7|), far below what floats or samples see
    rows = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    shift = np.array([Fraction(-1, 3), Fraction(1, 3), Fraction(-2, 7), Fraction(2, 7)])
    f = Network.from_arrays((rows, shift), ([[-1, -1, -1, -1]], [size]), ([[1]], [0]))
    g = Network.from_arrays((rows, shift), ([[-1, -1, -1, -1]], [0]), ([[1]], [0]))
    outcome = decide(f, g, Box.parse("[-10,10]", 2))
    assert outcome.answer is Answer.NO
    x, y = outcome.witness
    assert abs(x - Fraction(1, 3)) + abs(y - Fraction(2, 7)) < Fraction(size)


def test_a_kink_that_only_one_has():
    # relu(relu(x) + 1e-9 relu(y - 9)) differs from relu(x) only far out, and only a little
    f = Network.from_arrays((np.eye(2), [0, -1e6]), ([[1, 1e-9]], [0]), (ONE, [0]))
    g = Network.from_arrays(([[1, 0]], [0]), (ONE, [0]))
    assert decide(f, g).answer is Answer.NO


# ---- oracles


def breakpoints(net):
    """All points where a one-input ReLU network may bend, exactly, by cutting intervals layer by layer."""
    points = []
    for k in range(1, net.depth):
        part = Network(net.layers[:k])
        part = part.with_layers([*part.layers[:-1], _plain(part.layers[-1])])
        edges = sorted(set(points))
        probes = [Fraction(0)] if not edges else [edges[0] - 2, edges[0] - 1, *edges, edges[-1] + 1, edges[-1] + 2]
        if not edges:
            probes = [Fraction(0), Fraction(1)]
        for a, b in itertools.pairwise(probes):
            for p, q in zip(part.exact([a]), part.exact([b]), strict=True):
                if p != q:
                    zero = a - p * (b - a) / (q - p)
                    first, last = a == probes[0], b == probes[-1]
                    if (zero >= a or first) and (zero <= b or last):
                        points.append(zero)
    return sorted(set(points))


def _plain(layer):
    from dataclasses import replace

    from fiberscope.activations import activation

    return replace(layer, activation=activation("identity"))


def same_on_the_line(f, g):
    """Both are affine between neighbouring points of the union of their bends and beyond."""
    edges = sorted({*breakpoints(f), *breakpoints(g)}) or [Fraction(0)]
    return all(f.exact([x]) == g.exact([x]) for x in [edges[0] - 1, *edges, edges[-1] + 1])


def small_nets(n, low=-1, high=1):
    def build(numbers, widths):
        left = iter(numbers)
        pairs = []
        for a, b in itertools.pairwise(widths):
            weight = np.array([[next(left) for _ in range(a)] for _ in range(b)], dtype=float)
            pairs.append((weight, np.array([next(left) for _ in range(b)], dtype=float)))
        return Network.from_arrays(*pairs)

    widths = st.sampled_from([(n, 2, 1), (n, 2, 2, 1), (n, 3, 2, 1), (n, 2, 2, 2, 1)])
    return widths.flatmap(
        lambda w: st.lists(
            st.integers(low, high), min_size=sum(a * b + b for a, b in itertools.pairwise(w)), max_size=60
        ).map(lambda numbers: build(numbers, w))
    )


@settings(max_examples=50)
@given(small_nets(1), small_nets(1))
def test_agrees_with_the_line_oracle(f, g):
    assert (decide(f, g).answer is Answer.YES) == same_on_the_line(f, g)


@settings(max_examples=60)
@given(small_nets(2), st.integers(0, 2**32 - 1))
def test_small_changes_agree_with_samples(f, seed):
    # one weight changed: often the function stays, and then not one of many exact points may differ
    rng = np.random.default_rng(seed)
    theta = np.array(f.theta, dtype=float)
    theta[rng.integers(theta.size)] += rng.choice([-1.0, 1.0])
    g = f.with_theta(theta)
    box = Box.parse("[-4,4]", 2)
    outcome = decide(f, g, box)
    assert outcome.answer is not Answer.UNDECIDED
    if outcome.answer is Answer.YES:
        grid = np.stack(np.meshgrid(np.linspace(-4, 4, 65), np.linspace(-4, 4, 65)), -1).reshape(-1, 2)
        assert np.array_equal(f(grid), g(grid))


@pytest.mark.parametrize("seed", range(4))
def test_floats_only_propose(monkeypatch, seed):
    """Linear programs that lie or give up cost time, never the answer."""
    rng = np.random.default_rng(seed)
    honest = Polyhedron.cut

    def lying(self, row, label):
        cut, labels = honest(self, row, label), tuple(rng.permutation(self.labels)[:2].tolist())
        return [None, Cut(None, self, labels), Cut(self, None, labels), Cut(self, self), cut][rng.integers(5)]

    monkeypatch.setattr(Polyhedron, "cut", lying)
    monkeypatch.setattr("fiberscope.fibers.cells.find_witness", lambda *args, **options: None)
    f, g = maxima(2, 2, seed)
    box = Box.parse("[-3,2]", 2)
    assert decide(f, g, box).answer is Answer.YES
    assert decide(f, maxima(2, 2, seed, lift=2.0**-20)[1]).answer is Answer.NO


def test_forgetting_prepared_layers_changes_nothing(monkeypatch):
    f, g = maxima(2, 3, seed=0)
    before = decide(f, g)
    monkeypatch.setattr("fiberscope.fibers.cells._NODES", 3)
    monkeypatch.setattr("fiberscope.certificates.cases._KEPT", 3)
    assert decide(f, g).certificate == before.certificate


# ---- limits and errors


def test_the_clock_stops_exact_programs():
    assert strict_solution([(1, -1), (-1, 1)], Stopwatch(0.0)) == (None, {})


def test_limits():
    f, g = maxima(3, 3, seed=1)
    few = decide(f, g, cells=3)
    assert few.answer is Answer.UNDECIDED and few.cells == 3 and "3 cells proved equal" in few.reason
    late = decide_by_cells(f, g, Box.everywhere(3), Stopwatch(0.0))
    assert late.answer is Answer.UNDECIDED and late.certificate is None


def test_progress_grows():
    seen = []
    f, g = maxima(3, 3, seed=1)
    decide(f, g, progress=lambda share, text: seen.append(share))
    assert seen == sorted(seen) and 0 <= seen[0] and seen[-1] <= 1 + 1e-9 and seen[-1] > seen[0]


def test_errors():
    f = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="2 inputs"):
        decide_by_cells(f, Network.random((3, 3, 1), seed=0), Box.everywhere(2), FREE)
    with pytest.raises(InputError, match="domain"):
        decide_by_cells(f, f, Box.everywhere(3), FREE)
    with pytest.raises(UnsupportedError, match="tanh"):
        decide_by_cells(f, Network.random((2, 3, 1), activation="tanh", seed=0), Box.everywhere(2), FREE)


# ---- programs


rows_of = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.lists(st.integers(-4, 4), min_size=n + 1, max_size=n + 1), min_size=1, max_size=9)
)


@settings(max_examples=100)
@given(rows_of)
def test_strict_solutions_or_proofs(rows):
    point, proof = strict_solution(rows)
    if point is not None:
        assert all(sum(a * x for a, x in zip(row, point, strict=False)) + row[-1] > 0 for row in rows)
    else:
        assert proof and min(proof.values()) > 0
        total = [sum(v * rows[i][c] for i, v in proof.items()) for c in range(len(rows[0]))]
        assert not any(total[:-1]) and total[-1] <= 0


@settings(max_examples=40)
@given(rows_of)
def test_inner_points_exist_where_strict_solutions_do(rows):
    near = inner_point(np.array(rows, dtype=float))
    assert (near is not None) == (strict_solution(rows)[0] is not None)
    if near is not None:
        assert all(np.dot(row[:-1], near) + row[-1] > -1e-9 for row in rows)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_cuts_agree_with_linear_programs(seed, n):
    rng = np.random.default_rng(seed)
    low = np.where(rng.random(n) < 0.7, -1.0, -np.inf)
    high = np.where(rng.random(n) < 0.7, 1.0, np.inf)
    shape = Polyhedron.from_ends(low, high, range(2 * n))
    rows = [side * np.append(np.eye(n)[i], -end) for i in range(n) for side, end in ((1, low[i]), (-1, high[i]))]
    rows = {k: row for k, row in enumerate(rows) if np.isfinite(row).all()}
    for label in range(2 * n, 2 * n + 8):
        row = np.append(rng.standard_normal(n), 1.5 * rng.standard_normal())
        row /= np.abs(row[:n]).max()
        body = np.array(list(rows.values())).reshape(-1, n + 1)
        smallest, largest = (_extreme(way * row, body, n) * way for way in (1.0, -1.0))
        cut = shape.cut(row, label)
        assert (cut.below is not None, cut.above is not None) == (smallest < 0, largest > 0)
        if cut.below is None or cut.above is None:
            target = row if cut.below is None else -row
            held = np.array([rows[k] for k in cut.support]).reshape(-1, n + 1)
            factors = np.linalg.lstsq(held[:, :n].T, target[:n], rcond=None)[0]
            assert np.allclose(factors @ held[:, :n], target[:n]) and (factors > -1e-9).all()
            assert target[n] - factors @ held[:, n] > -1e-9
            shape = cut.below or cut.above
            continue
        above = rng.random() < 0.5
        shape, rows[label] = (cut.above, row) if above else (cut.below, -row)


def test_cuts_through_a_vertex():
    # the walk starts at the corner (0, 0), where all these forms are 0
    square = Polyhedron.from_ends(np.zeros(2), np.ones(2), range(4))
    for row, sides in (([1, 1], (False, True)), ([-1, -1], (True, False)), ([1, -1], (True, True))):
        cut = square.cut(np.array([*row, 0.0]), 4)
        assert (cut.below is not None, cut.above is not None) == sides
        assert set(cut.support) == (set() if all(sides) else {0, 2})


def _extreme(cost, body, n):
    # without presolve, which calls some unbounded programs infeasible
    found = linprog(cost[:n], A_ub=-body[:, :n], b_ub=body[:, n], bounds=(None, None), options={"presolve": False})
    return -np.inf if found.status in (3, 4) else found.fun + cost[n]


def test_proposals_find_a_difference():
    f, g = maxima(2, 2, 0)[0], maxima(2, 2, 0, lift=0.5)[1]
    box = Box.parse("[-3,3]", 2)
    points = propose_witnesses(f, g, box, Stopwatch(20.0), count=2)
    assert 1 <= len(points) <= 2 and all(box.contains(x) for x in points)
    sample = box.sample(2000, np.random.default_rng(0))
    assert np.abs(f(points[0]) - g(points[0])).max() >= np.abs(f(sample) - g(sample)).max() - 1e-6
    assert propose_witnesses(f, g, Box.everywhere(2), FREE) == []


@pytest.mark.parametrize("activation", ["leaky_relu", "hard_tanh", "abs"])
def test_proposals_know_other_activations(activation):
    f = Network.random((2, 4, 1), activation=activation, seed=0)
    g = Network.random((2, 4, 1), activation=activation, seed=1)
    box = Box.parse("[-2,2]", 2)
    sample = box.sample(4000, np.random.default_rng(0))
    x = propose_witnesses(f, g, box, Stopwatch(20.0), count=1)[0]
    assert np.abs(f(x) - g(x)).max() >= np.abs(f(sample) - g(sample)).max() - 1e-6
