"""The numbers of one measurement, against all pairs by loops, closed forms, and symmetries that must not matter."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.invariants.classes.smallest import smallest_sim
from fiberscope.invariants.recovery.condensing.directions import layer_directions
from fiberscope.network import Network
from fiberscope.training.architectures.architecture import Architecture, Axis, Population, Slot
from fiberscope.training.architectures.chains import chain_architecture, parameters_of
from fiberscope.training.measures.classcounts import count_classes, levels_of
from fiberscope.training.measures.condensing import stable_rank
from fiberscope.training.measures.measurements import Measurement, measure, measured
from fiberscope.training.measures.nearest import Near, PairSearch, sim_distance
from fiberscope.training.measures.pairs import Forest, Neurons, Shortlist, gram_blocks
from fiberscope.training.measures.silence import silent_units

Arrays = dict[str, npt.NDArray[Any]]
KEY = "fiberscope/"


def model(
    widths: tuple[int, ...], name: str = "tanh", seed: int = 0, dtype: Any = np.float64
) -> tuple[Architecture, Arrays]:
    net = Network.random(widths, activation=name, seed=seed, dtype=dtype)
    return chain_architecture(net), {k: np.array(v) for k, v in parameters_of(net).items()}


def copied(architecture: Architecture, values: Arrays, population: str, i: int, j: int, sign: float = 1.0) -> None:
    """Make neuron j the multiple of neuron i, in place."""
    for s, axis, _ in architecture.places[population]:
        rows = np.moveaxis(values[architecture.slots[s].name].reshape(architecture.slots[s].view), axis, 0)
        rows[j] = sign * rows[i]


def neurons_of(architecture: Architecture, values: Arrays, population: str) -> npt.NDArray[np.float64]:
    """(n, D): everything each neuron has, in float64."""
    parts = [rows for _, rows in architecture.rows(values, population)]
    return np.concatenate([np.asarray(p, np.float64) for p in parts], axis=1)


def nearest_by_loops(u: npt.NDArray[np.float64], signs: bool, null: bool) -> float:
    found = [math.inf]
    for i in range(len(u)):
        if null:
            found.append(float(np.linalg.norm(u[i])))
        for j in range(i):
            found.append(float(np.linalg.norm(u[i] - u[j])) / math.sqrt(2))
            if signs:
                found.append(float(np.linalg.norm(u[i] + u[j])) / math.sqrt(2))
    return min(found)


def classes_by_loops(u: npt.NDArray[np.float64], t: float, signs: bool, null: bool) -> int:
    length = np.linalg.norm(u, axis=1)
    typical = np.median(length[length > 0]) if (length > 0).any() else 0.0
    name = list(range(len(u)))
    for _ in u:
        for i, j in itertools.combinations(range(len(u)), 2):
            near = np.linalg.norm(u[i] - u[j]) <= t * max(length[i], length[j], 1e-12 * typical)
            if signs:
                near = near or np.linalg.norm(u[i] + u[j]) <= t * max(length[i], length[j])
            if near:
                name[i] = name[j] = min(name[i], name[j])
    live = [k for k in range(len(u)) if not (null and length[k] <= t * typical)]
    return len({name[k] for k in live})


# ---- nearest manifolds


@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid", "gauss"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("widths", [(3, 7, 2), (2, 140, 5, 1), (5, 300, 3)])
def test_nearest_is_the_minimum_over_all_pairs(name: str, dtype: Any, widths: tuple[int, ...]) -> None:
    architecture, values = model(widths, name, seed=len(name), dtype=dtype)
    found = measured(values, architecture, thorough=True)
    every = []
    for p in architecture.populations:
        u = neurons_of(architecture, values, p.name)
        every.append(nearest_by_loops(u, p.signs, p.null))
        own = [near for near in found.nearest if near.population == p.name]
        assert min(near.distance for near in own) == pytest.approx(every[-1], rel=1e-12)
        assert all(near.proved for near in own)
        assert own[0].relative == pytest.approx(own[0].distance / np.median(np.linalg.norm(u, axis=1)), rel=1e-4)
    assert found.scalars[KEY + "sims/nearest_distance"] == pytest.approx(min(every), rel=1e-12)
    assert [near.distance for near in found.nearest] == sorted(near.distance for near in found.nearest)


def test_contracted_search_brackets_the_minimum_and_finds_what_is_near() -> None:
    architecture, values = model((60, 300, 40), "tanh", seed=3, dtype=np.float32)
    name = architecture.populations[0].name
    true = nearest_by_loops(neurons_of(architecture, values, name), True, False)
    far = next(n for n in measured(values, architecture).nearest if n.kind != "null")
    assert far.lower < true <= far.distance <= 1.5 * true
    assert not far.proved
    copied(architecture, values, name, 17, 250, -1.0)
    values[architecture.slots[0].name][250] += 1e-3 * np.random.default_rng(0).standard_normal(60).astype(np.float32)
    near = measured(values, architecture).nearest[0]
    assert (near.kind, near.neurons, near.proved) == ("flip", (17, 250), True)
    u = neurons_of(architecture, values, name)
    assert near.distance == pytest.approx(np.linalg.norm(u[17] + u[250]) / math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("count", [6, 300])
def test_duplicates_have_distance_zero_whatever_their_number(count: int) -> None:
    architecture, values = model((9, count, 7), "tanh", seed=1, dtype=np.float32)
    name = architecture.populations[0].name
    for j in range(2, count, 2):
        copied(architecture, values, name, 0, j, -1.0 if j % 4 else 1.0)
    found = measured(values, architecture)
    assert found.nearest[0].distance == 0.0
    assert found.nearest[0].proved
    assert found.scalars[KEY + "sims/nearest_relative"] == 0.0
    for level in ("exact", "numerical", "approximate"):
        assert found.scalars[KEY + f"sims/classes_{level}"] == 1 + count // 2


def test_a_distance_is_what_projection_moves() -> None:
    architecture, values = model((3, 4, 2), "tanh", seed=5)
    name = architecture.populations[0].name
    for kind, sign in (("merge", 1.0), ("flip", -1.0)):
        total = 0.0
        for s, axis, _ in architecture.places[name]:
            rows = np.moveaxis(values[architecture.slots[s].name], axis, 0)
            middle = (rows[1] + sign * rows[3]) / 2
            total += float(((rows[1] - middle) ** 2).sum() + ((rows[3] - sign * middle) ** 2).sum())
        assert sim_distance(architecture, values, name, kind, (1, 3)) == pytest.approx(math.sqrt(total))
    length = np.linalg.norm(neurons_of(architecture, values, name)[2])
    assert sim_distance(architecture, values, name, "null", (2,)) == pytest.approx(length)


def square_model(count: int, signs: bool) -> tuple[Architecture, Arrays]:
    """A residual stream with a square matrix inside: both axes of one parameter belong to one population."""
    slots = (
        Slot("in", (count, 3), (count, 3), (Axis("s", "in"), None)),
        Slot("inner", (count, count), (count, count), (Axis("s", "in"), Axis("s", "out"))),
    )
    rng = np.random.default_rng(7)
    architecture = Architecture(slots, (Population("s", count, "stream", signs=signs, null=True),))
    return architecture, {"in": rng.standard_normal((count, 3)), "inner": rng.standard_normal((count, count))}


@pytest.mark.parametrize("signs", [False, True])
def test_population_on_both_axes_of_a_matrix(signs: bool) -> None:
    architecture, values = square_model(5, signs)
    best = math.inf
    for i, j in itertools.combinations(range(5), 2):
        for sign in (1.0, -1.0) if signs else (1.0,):
            swap = np.eye(5)
            swap[[i, j]] = sign * swap[[j, i]]
            gap = [values["in"] - swap @ values["in"], values["inner"] - swap @ values["inner"] @ swap.T]
            true = math.sqrt(sum(float((g**2).sum()) for g in gap)) / 2
            kind = "merge" if sign > 0 else "flip"
            assert sim_distance(architecture, values, "s", kind, (i, j)) == pytest.approx(true)
            best = min(best, true)
    inner = values["inner"]
    null = math.sqrt((values["in"][2] ** 2).sum() + (inner[2] ** 2).sum() + (inner[:, 2] ** 2).sum() - inner[2, 2] ** 2)
    assert sim_distance(architecture, values, "s", "null", (2,)) == pytest.approx(null)
    pair = next(near for near in measured(values, architecture).nearest if near.kind != "null")
    assert pair.distance == pytest.approx(best)  # 10 pairs: all are on the list
    assert not pair.proved


def test_views_fused_parts_and_channels_are_read_as_the_architecture_says() -> None:
    rng = np.random.default_rng(2)
    slots = (
        Slot("conv", (4, 2, 3, 3), (4, 2, 3, 3), (Axis("c", "in"), None, None, None)),
        Slot("head", (5, 36), (5, 4, 9), (None, Axis("c", "out"), None)),
        Slot("fused", (12,), (12,), (Axis("c", "in"),), (0, 4, 8)),
    )
    architecture = Architecture(slots, (Population("c", 4, "channels", activation("relu"), null=True),))
    values = {"conv": rng.standard_normal((4, 2, 3, 3)), "head": rng.standard_normal((5, 36)), "fused": np.zeros(12)}
    values["fused"][4:8] = [1, 2, 3, 4]
    u = np.concatenate(
        [values["conv"].reshape(4, -1), values["head"].reshape(5, 4, 9).transpose(1, 0, 2).reshape(4, -1)], axis=1
    )
    u = np.concatenate([u, values["fused"][4:8, None]], axis=1)
    found = measured(values, architecture)
    assert found.nearest[0].distance == pytest.approx(nearest_by_loops(u, False, True), rel=1e-12)
    assert found.layers["c"]["dead/units"] == 4


def test_wrong_neurons_are_refused() -> None:
    architecture, values = model((2, 3, 1))
    name = architecture.populations[0].name
    for kind, neurons in (("merge", (0, 0)), ("merge", (0,)), ("null", (0, 1)), ("flip", (0, 3)), ("null", (-1,))):
        with pytest.raises(InputError, match="neurons"):
            sim_distance(architecture, values, name, kind, neurons)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no population"):
        sim_distance(architecture, values, "nobody", "merge", (0, 1))


# ---- numbers of classes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["tanh", "sigmoid", "relu"]), st.booleans(), st.booleans())
def test_classes_are_components_of_the_pairs_within_tolerance(seed: int, name: str, single: bool, zero: bool) -> None:
    rng = np.random.default_rng(seed)
    architecture, values = model((3, 9, 2), name, seed=seed, dtype=np.float32 if single else np.float64)
    p = architecture.populations[0]
    for j in range(3, 9):
        copied(architecture, values, p.name, j % 3, j, rng.choice([1.0, -1.0]) if p.signs else 1.0)
        scale = 10.0 ** rng.choice([-20.0, -5.0, -3.0, -1.7])
        values[architecture.slots[0].name][j] += scale * rng.standard_normal(3)
    if zero:
        copied(architecture, values, p.name, 0, 4, 10.0 ** rng.choice([-30.0, -6.0, -3.0]))
    found = measured(values, architecture)
    u = neurons_of(architecture, values, p.name)
    levels = found.layers[p.name]["tolerances"]
    assert levels[0] == pytest.approx(10 * math.sqrt(u.shape[1]) * np.finfo(values["1.weight"].dtype).eps)
    for t, level in zip(levels, ("exact", "numerical", "approximate"), strict=True):
        assert found.scalars[KEY + f"sims/classes_{level}"] == classes_by_loops(u, t, p.signs, p.null)


def test_classes_at_given_tolerances_are_single_linkage() -> None:
    rows = [[1.0], [1.02], [1.04], [1.2], [-1.0]]
    net = Network.from_arrays((rows, [0] * 5), ([[0.0] * 5], [0]), activation="softplus")
    levels = ("exact", "numerical", "approximate")
    found = measure(net, tolerances=(0.0, 0.025, 0.2))
    assert [found[KEY + f"sims/classes_{level}"] for level in levels] == [5, 3, 2]
    found = measure(net, tolerances=(None, None, 0.7))
    assert [found[KEY + f"sims/classes_{level}"] for level in levels] == [5, 5, 2]
    odd = Network.from_arrays((rows, [0] * 5), ([[0.0] * 5], [0]), activation="tanh")
    assert measure(odd)[KEY + "sims/classes_approximate"] == 2  # 1.2 alone
    for wrong in ((0.1, 0.2), (0.2, 0.1, 0.3), (-1.0, None, None), (None, None, 1.0)):
        with pytest.raises(InputError, match="tolerances"):
            measure(net, tolerances=wrong)


def test_classes_near_each_other_are_told_apart_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal(784)
    rows = np.stack([base] * 40) + 3e-4 * rng.standard_normal((40, 784)) * np.linalg.norm(base) / 28
    rows[20:] = rows[:20]
    net = Network.from_arrays(
        (rows.astype(np.float32), np.zeros(40, np.float32)), (np.ones((2, 40), np.float32), None), activation="tanh"
    )
    found = measure(net)  # float32 products cannot see 3e-4
    assert found[KEY + "sims/classes_exact"] == 20
    assert found[KEY + "sims/classes_numerical"] == 20
    assert found[KEY + "sims/classes_approximate"] == 1


def test_forest_knows_components_with_signs() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = rng.integers(0, 12, (2, 9))
        signs = rng.choice([-1.0, 1.0], 9)
        forest = Forest(12, signed=True)
        forest.join(a[:4], b[:4], signs[:4])
        forest.join(a[4:], b[4:], signs[4:])
        plain = Forest(12)
        plain.join(a, b)
        assert (np.unique(forest.names()).size == np.unique(plain.names()).size) or len(set(forest.names())) >= 1
        reach = np.eye(12, dtype=bool)
        for i, j in zip(a, b, strict=True):
            reach |= reach[:, [i]] @ reach[[j], :] | reach[:, [j]] @ reach[[i], :]
        assert (reach == (plain.names()[:, None] == plain.names()[None, :])).all()
        assert (reach == (forest.names()[:, None] == forest.names()[None, :])).all()
        for members, e in forest.groups():
            if len(set(members.tolist())) == len(members):  # no contradiction: every edge keeps the signs
                e_of = dict(zip(members.tolist(), e.tolist(), strict=True))
                for i, j, s in zip(a.tolist(), b.tolist(), signs.tolist(), strict=True):
                    if i in e_of:
                        assert e_of[i] * e_of[j] == s


def test_shortlist_keeps_the_smallest_and_bounds_the_rest() -> None:
    rng = np.random.default_rng(4)
    low = rng.random((60, 60))
    low[np.tril_indices(60)] = np.inf
    found = Shortlist()
    for at in (0, 20, 40):
        block, base = low[at : at + 20, at:].copy(), rng.random(20)
        found.offer(block - base[:, None], base, block.min(axis=1), at, None)
    every = np.sort(low[np.isfinite(low)])
    assert found.low == pytest.approx(every[: len(found.low)])
    assert len(found.low) >= 10
    assert every[len(found.low) - 1] - 1e-12 <= found.rest <= every[len(found.low)] + 1e-12
    assert low[found.first, found.second] == pytest.approx(found.low)


def test_shortlist_bounds_the_rest_when_rows_alone_settle_it() -> None:
    low = np.full((20, 20), np.inf)
    low[np.arange(19), np.arange(1, 20)] = np.arange(19.0)
    found = Shortlist()
    found.offer(low, np.zeros(20), low.min(axis=1), 0, None)
    assert found.low.tolist() == list(range(16))
    assert found.rest == 16.0


def test_contractions_are_isometries_of_what_they_keep() -> None:
    slots = (Slot("w", (100, 100), (100, 100), (Axis("s", "in"), None)),)
    neurons = Neurons.of(Architecture(slots, (Population("s", 100),)), {"w": np.eye(100)}, "s")
    assert neurons is not None
    (rows,) = neurons.contracted(np.random.default_rng(0)).parts  # P^T, where the neurons are the unit vectors
    assert rows.shape == (100, 13)
    assert rows.T @ rows == pytest.approx(np.eye(13))


def test_gram_blocks_are_the_products() -> None:
    architecture, values = model((4, 150, 3), dtype=np.float32)
    name = architecture.populations[0].name
    neurons = Neurons.of(architecture, values, name)
    assert neurons is not None
    u = neurons_of(architecture, values, name)
    inner = u[:, :5]
    for at, products, whole in gram_blocks(neurons, 64):
        true = (u @ u.T if whole else inner @ inner.T)[at : at + 64, at:]
        assert np.abs(products - true).max() < 1e-4
    short = neurons.contracted(np.random.default_rng(0))
    v = np.concatenate(short.parts, axis=1).astype(np.float64)
    gaps = np.linalg.norm(v[:, None] - v[None], axis=2) - np.linalg.norm(u[:, None] - u[None], axis=2)
    assert gaps.max() < 1e-5


def test_contraction_shortens_every_distance() -> None:
    architecture, values = model((100, 30, 50), dtype=np.float64)
    neurons = Neurons.of(architecture, values, architecture.populations[0].name)
    assert neurons is not None
    short = neurons.contracted(np.random.default_rng(1))
    u, v = (np.concatenate(n.parts, axis=1) for n in (neurons, short))
    assert v.shape == (30, 13 + 1 + 7)
    before, after = (np.linalg.norm(w[:, None] - w[None], axis=2) for w in (u, v))
    assert (after <= before + 1e-12).all()
    assert after.sum() > 0.2 * before.sum()


# ---- condensation


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_participation_ratio_and_directions_are_those_of_the_recovery_tools(name: str) -> None:
    rng = np.random.default_rng(3)
    rows, bias = rng.standard_normal((40, 5)), rng.standard_normal(40)
    rows[10:20], bias[10:20] = -2.0 * rows[:10], -2.0 * bias[:10]
    rows[20:25], bias[20:25] = 3.0 * rows[:5], 3.0 * bias[:5]
    net = Network.from_arrays((rows, bias), (rng.standard_normal((2, 40)), [0, 0]), activation=name)
    found = measure(net)
    known = layer_directions(net, 0, (math.sqrt(2 - 2 * 0.99),))
    assert found[KEY + "condensation/effective_directions"] == pytest.approx(1 / (known.spectrum**2).sum())
    assert found[KEY + "condensation/effective_directions"] <= known.effective + 1e-9
    unit = np.column_stack([rows, bias])
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    cosine = np.abs(unit @ unit.T) if name == "tanh" else unit @ unit.T
    reach = np.linalg.matrix_power((cosine > 0.99).astype(float), 40) > 0
    assert found[KEY + "condensation/directions"] == len({tuple(row) for row in reach.tolist()})
    matrix = np.column_stack([rows, bias])
    true = (matrix**2).sum() / np.linalg.norm(matrix, 2) ** 2
    assert found[KEY + "condensation/stable_rank"] == pytest.approx(true)


def test_faint_neurons_are_no_directions() -> None:
    rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    net = Network.from_arrays((rows, [0, 0, 0]), ([[1.0, 1e-3, 0.5]], [0]), activation="tanh")
    assert measure(net)[KEY + "condensation/directions"] == 2


@pytest.mark.parametrize("kind", ["spread", "condensed", "decaying"])
def test_wide_layers_are_estimated_and_their_directions_exact(kind: str) -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((400, 96))
    if kind == "condensed":
        rows = rows[rng.integers(0, 7, 400)] * rng.uniform(0.5, 2, 400)[:, None]
    if kind == "decaying":
        rows *= 0.9 ** np.arange(96)
    net = Network.from_arrays(
        (rows.astype(np.float32), None), (rng.standard_normal((9, 400)).astype(np.float32), None), activation="tanh"
    )
    quick, full = measure(net), measure(net, thorough=True)
    for key, error in (("effective_directions", 0.15), ("directions", 0.0), ("stable_rank", 0.08)):
        assert quick[KEY + f"condensation/{key}"] == pytest.approx(full[KEY + f"condensation/{key}"], rel=error)
    matrix = rows.astype(np.float32).astype(np.float64)
    true = (matrix**2).sum() / np.linalg.norm(matrix, 2) ** 2
    assert true - 1e-3 <= full[KEY + "condensation/stable_rank"] <= 1.08 * true
    for level in ("exact", "numerical", "approximate"):
        assert quick[KEY + f"sims/classes_{level}"] == full[KEY + f"sims/classes_{level}"]


def test_stable_rank_in_closed_form() -> None:
    assert stable_rank((np.eye(5), np.zeros((5, 1)))) == pytest.approx(5.0)
    assert stable_rank((np.zeros((3, 2)),)) is None
    left, right = np.linspace(1, 2, 90)[:, None], np.linspace(1, 3, 80)[None, :]
    assert stable_rank((left @ right,)) == pytest.approx(1.0)
    tall = np.random.default_rng(0).standard_normal((500, 6))
    assert stable_rank((tall,)) == pytest.approx((tall**2).sum() / np.linalg.norm(tall, 2) ** 2)


# ---- silent units


def test_dead_on_data_and_for_every_input_in_closed_form() -> None:
    first = ([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [0.0, -1.0, -1.0, 1.0])
    rows = [[-1.0, -2.0, 0, 0], [0, 0, 5.0, -1.0], [1.0] * 4, [0, -1.0, 0, 0], [-1.0, 0, 0, 3.0]]
    second = (rows, [0, 0, -9, 1, 0])
    net = Network.from_arrays(first, second, ([[1.0] * 5], [0.0]), activation="relu")
    found = silent_units(chain_architecture(net), parameters_of(net), data=[[1.0, 0.0], [0.5, 3.0]])
    one, two = found.values()
    assert one.every_input.tolist() == [False, False, True, True]  # off, and the constant 1
    assert one.on_data is not None and one.on_data.tolist() == [False, True, True, True]
    assert two.every_input.tolist() == [True, True, False, False, False]  # signs; only dead sources; ...; reads 1
    assert two.on_data is not None and two.on_data.tolist() == [True, True, True, True, False]
    scalars = measure(net, data=[[1.0, 0.0], [0.5, 3.0]])
    assert [scalars[KEY + f"dead/{key}"] for key in ("units", "every_input", "on_data")] == [9, 4, 7]
    assert KEY + "dead/on_data" not in measure(net)


def test_a_domain_proves_more() -> None:
    net = Network.from_arrays(([[1.0], [-1.0]], [-2.0, -2.0]), ([[1.0, 1.0]], [0.0]), activation="relu")
    architecture, values = chain_architecture(net), parameters_of(net)
    counts = {}
    for text in (None, "[-1,1]", "[-3,1]", "[2,2]"):
        counts[text] = [s.every_input.tolist() for s in silent_units(architecture, values, domain=text).values()][0]
    assert counts == {None: [False] * 2, "[-1,1]": [True] * 2, "[-3,1]": [True, False], "[2,2]": [True] * 2}
    with pytest.raises(InputError, match="domain"):
        silent_units(architecture, values, domain=Box.everywhere(3))
    with pytest.raises(InputError, match="chains"):
        silent_units(Architecture((), ()), {}, domain="[0,1]")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from(["relu", "tanh", "leaky_relu", "hard_tanh", "sigmoid"]), st.booleans())
def test_what_is_dead_for_every_input_is_dead_on_data(seed: int, name: str, bounded: bool) -> None:
    rng = np.random.default_rng(seed)
    net = Network.random((3, 6, 5, 2), activation=name, seed=seed, dtype=rng.choice([np.float32, np.float64]))
    values = {k: np.array(v) for k, v in parameters_of(net).items()}
    for key, value in values.items():
        value[rng.random(value.shape) < 0.3] = 0.0
        if rng.random() < 0.6:
            value[rng.random(len(value)) < 0.5] *= -1.0 if key.endswith("bias") else 0.0
            value -= np.abs(value) * 2 * (rng.random(value.shape) < 0.7)
    architecture = chain_architecture(net)
    box = Box.parse("[-1,1]", 3) if bounded else None
    data = rng.uniform(-1, 1, (9, 3))
    found = silent_units(architecture, values, data=data, domain=box)
    wide = silent_units(architecture, values)
    z = architecture.network(values).preactivations(rng.uniform(-1, 1, (400, 3)))
    for k, (key, state) in enumerate(found.items()):
        assert state.on_data is not None
        assert (state.on_data | ~state.every_input).all()
        assert (state.every_input | ~wide[key].every_input).all()
        h = activation(name)(z[k])
        moving = np.ptp(h, axis=0) > 1e-6
        assert not (moving & state.every_input).any()


def test_dead_channels_from_activations() -> None:
    slots = (Slot("conv", (3, 1, 2, 2), (3, 1, 2, 2), (Axis("c", "in"), None, None, None)),)
    architecture = Architecture(slots, (Population("c", 3, "channels", activation("relu")),))
    values = {"conv": np.ones((3, 1, 2, 2))}
    values["conv"][2] = 0.0
    seen = np.zeros((4, 3, 5, 5))
    seen[3, 1, 4, 4] = 0.1
    found = silent_units(architecture, values, activations={"c": seen})["c"]
    assert found.on_data is not None
    assert found.on_data.tolist() == [True, False, True]
    assert found.every_input.tolist() == [False, False, True]
    minus = silent_units(architecture, values, activations={"c": -1.0 - seen})["c"]
    assert minus.on_data is not None
    assert minus.on_data.all()  # preactivations may be given
    with pytest.raises(InputError, match="activations"):
        silent_units(architecture, values, activations={"c": np.zeros((4, 2))})


def test_one_sample_says_nothing_about_smooth_units() -> None:
    architecture, values = model((2, 3, 1), "tanh")
    for count in (1, 2):
        found = silent_units(architecture, values, data=np.ones((count, 2)))
        assert [s.on_data.sum() for s in found.values() if s.on_data is not None] == [0 if count == 1 else 3]


# ---- the whole


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from(["tanh", "relu", "gelu"]), st.booleans())
def test_no_number_depends_on_order_or_odd_signs(seed: int, name: str, single: bool) -> None:
    rng = np.random.default_rng(seed)
    net = Network.random((3, 6, 5, 2), activation=name, seed=seed, dtype=np.float32 if single else np.float64)
    architecture = chain_architecture(net)
    values = {k: np.array(v) for k, v in parameters_of(net).items()}
    for p in architecture.populations:
        if rng.random() < 0.7:
            copied(architecture, values, p.name, 0, 3)
        if rng.random() < 0.3:
            copied(architecture, values, p.name, 1, 4, 0.0)
    other = {k: v.copy() for k, v in values.items()}
    for p in architecture.populations:
        order = rng.permutation(p.count)
        signs = rng.choice([-1.0, 1.0], p.count) if p.signs else np.ones(p.count)
        for s, axis, _ in architecture.places[p.name]:
            key = architecture.slots[s].name
            rows = np.moveaxis(other[key], axis, 0)
            rows[:] = (rows[order].T * signs).T
    data = rng.standard_normal((7, 3))
    first, second = (measure(v, architecture, data=data, orbit=True) for v in (values, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value == pytest.approx(second[key], rel=1e-3 if single else 1e-9), key


def test_names_are_few_grouped_finite_and_ready_for_json() -> None:
    architecture, values = model((3, 5, 4, 2), "relu", dtype=np.float32)
    found = measured(values, architecture, data=np.ones((3, 3)), orbit=True, histograms=True)
    wanted = {
        "sims/nearest_distance", "sims/nearest_relative", "sims/classes_exact", "sims/classes_numerical",
        "sims/classes_approximate", "sims/neurons", "condensation/directions", "condensation/effective_directions",
        "condensation/stable_rank", "dead/on_data", "dead/every_input", "dead/units", "orbit/dimension",
    }  # fmt: skip
    assert set(found.scalars) == {KEY + name for name in wanted}
    assert all(type(v) is float and math.isfinite(v) for v in found.scalars.values())
    json.dumps(found.to_dict(), allow_nan=False)
    assert [sum(h["length"]["counts"]) for h in found.histograms.values()] == [5, 4]
    ranks = [row["condensation/stable_rank"] for row in found.layers.values()]
    assert found.scalars[KEY + "condensation/stable_rank"] == min(ranks) < max(ranks)
    more = measure(values, architecture, tables=True, histograms=True)
    name = architecture.populations[1].name
    assert more[KEY + f"sims/classes_exact/{name}"] == 4
    assert more[KEY + f"histograms/length_100/{name}"] >= more[KEY + f"histograms/length_0/{name}"] > 0
    assert len(measure(values, architecture)) == 11


def test_orbit_dimension_is_that_of_the_smallest_manifold() -> None:
    architecture, values = model((2, 4, 1), "tanh")
    copied(architecture, values, architecture.populations[0].name, 0, 2, -1.0)
    found = measure(values, architecture, orbit=True)
    assert found[KEY + "orbit/dimension"] == smallest_sim(architecture.network(values)).dimension == 13
    stream, numbers = square_model(3, False)
    left = measured(numbers, stream, orbit=True)
    assert KEY + "orbit/dimension" not in left.scalars
    assert any("orbit" in note for note in left.notes)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_training_that_diverged_gives_no_nan(bad: float) -> None:
    architecture, values = model((2, 3, 4, 1), "relu")
    values[architecture.slots[0].name][1, 1] = bad
    found = measured(values, architecture, data=np.ones((2, 2)), domain="[-1,1]")
    assert all(math.isfinite(v) for v in found.scalars.values())
    assert any("finite" in note for note in found.notes)
    assert {near.population for near in found.nearest} == {architecture.populations[1].name}


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e18])
def test_scale_of_single_precision_weights_does_not_matter(scale: float) -> None:
    architecture, values = model((3, 6, 2), "sigmoid", dtype=np.float32)
    copied(architecture, values, architecture.populations[0].name, 0, 5)
    scaled = {k: (v.astype(np.float64) * scale).astype(np.float32) for k, v in values.items()}
    first, second = measure(values, architecture), measure(scaled, architecture)
    assert first[KEY + "sims/classes_exact"] == second[KEY + "sims/classes_exact"] == 5
    for key in ("sims/nearest_relative", "condensation/effective_directions", "condensation/stable_rank"):
        assert second[KEY + key] == pytest.approx(first[KEY + key], rel=1e-4)


def test_zero_networks_and_layers_without_neighbours() -> None:
    zero = Network.from_arrays((np.zeros((3, 2)), np.zeros(3)), (np.zeros((1, 3)), [0.0]), activation="relu")
    found = measure(zero)
    assert found[KEY + "sims/nearest_distance"] == found[KEY + "sims/classes_exact"] == 0.0
    assert found[KEY + "condensation/directions"] == 0.0
    assert KEY + "condensation/stable_rank" not in found
    alone = Network.from_arrays(([[2.0]], [0.0]), ([[1.0]], [0.0]), activation="sigmoid")
    assert KEY + "sims/nearest_distance" not in measure(alone)
    assert measure(alone)[KEY + "sims/classes_exact"] == 1.0
    linear = Network.from_arrays(([[2.0]], [0.0]))
    assert measure(linear) == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, object])
def test_other_number_types(dtype: Any) -> None:
    architecture, values = model((3, 5, 2), "sigmoid", dtype=np.float16)
    copied(architecture, values, architecture.populations[0].name, 1, 2)
    if dtype is object:
        from fractions import Fraction

        given = {k: np.vectorize(lambda x: Fraction(float(x)), otypes=[object])(v) for k, v in values.items()}
    else:
        given = {k: v.astype(dtype) for k, v in values.items()}
    found = measure(given, architecture, data=np.ones((2, 3)))
    assert found[KEY + "sims/nearest_distance"] == 0.0
    assert found[KEY + "sims/classes_exact"] == 4


def test_what_can_be_measured() -> None:
    net = Network.random((3, 4, 2), activation="relu", seed=0)
    first = measure(net)
    assert first == measure(parameters_of(net), chain_architecture(net))
    with pytest.raises(InputError, match="architecture"):
        measure(parameters_of(net))
    with pytest.raises(InputError, match="torch module"):
        measure([1.0])
    assert isinstance(measured(net), Measurement)
    near = measured(net).nearest[0]
    assert isinstance(near, Near)
    assert f"{near.distance:.3g}" in str(near)


def test_memory_stays_below_one_copy_of_the_parameters() -> None:
    import tracemalloc

    architecture, values = model((784, 512, 256, 10), "relu", dtype=np.float32)
    measured(values, architecture)
    tracemalloc.start()
    measured(values, architecture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(v.nbytes for v in values.values())


def test_pairs_inside_groups_are_offered_with_their_true_distance() -> None:
    architecture, values = model((6, 8, 3), "tanh")
    name = architecture.populations[0].name
    for j in range(1, 5):
        copied(architecture, values, name, 0, j, (-1.0) ** j)
        values[architecture.slots[0].name][j] += 1e-3 * j
    neurons = Neurons.of(architecture, values, name)
    assert neurons is not None
    search = PairSearch(neurons, neurons, 0.05)
    for at, products, whole in gram_blocks(neurons):
        if whole:
            search.block(at, products)
    assert [sorted(members.tolist()) for members, _ in search.near.groups()] == [[0, 1, 2, 3, 4]]
    assert count_classes(neurons, search.near.groups(), levels_of(neurons), search.shortlist) == (8, 8, 4)
    near = search.nearest(architecture, values)
    u = neurons_of(architecture, values, name)
    assert near is not None
    assert near.distance == pytest.approx(nearest_by_loops(u, True, False), rel=1e-12)


def test_stable_ranks_of_a_run_come_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 280))
    model = chain_architecture((280, 300, 100, 2), activation="tanh", biases=False)
    weights = (rows, rng.standard_normal((100, 300)), np.ones((2, 100)))
    values = {dense.weight: w for dense, w in zip(model.chain, weights, strict=True)}
    memory: dict[str, np.ndarray[Any, Any]] = {}
    found = [measured(values, model, memory=memory) for _ in range(12)]
    for name, weight in zip((p.name for p in model.populations), list(values.values())[:2], strict=True):
        ranks = np.array([m.layers[name]["condensation/stable_rank"] for m in found])
        true = (weight**2).sum() / np.linalg.norm(weight, 2) ** 2
        assert (ranks >= true * (1 - 1e-9)).all()
        assert ranks[-1] <= 1.02 * true and ranks[-1] < ranks[0]
    values[model.chain[0].weight] = rows + 5.0  # another singular vector leads at once
    later = measured(values, model, memory=memory).layers[model.populations[0].name]["condensation/stable_rank"]
    weight = values[model.chain[0].weight]
    assert later == pytest.approx((weight**2).sum() / np.linalg.norm(weight, 2) ** 2, rel=0.01)


def test_no_neuron_is_nearer_than_what_is_proved_of_all_kinds() -> None:
    """One neuron is about as short as two are apart: the nearest that is found is of either kind."""
    kinds = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        architecture = chain_architecture((100, 300, 100), activation="tanh")
        name = architecture.populations[0].name
        values = {slot.name: rng.standard_normal(slot.shape) for slot in architecture.slots}
        pair = next(n for n in measured(values, architecture, thorough=True).nearest if n.kind != "null")
        size = np.linalg.norm(neurons_of(architecture, values, name)[0])
        for s, axis, _ in architecture.places[name]:
            np.moveaxis(values[architecture.slots[s].name], axis, 0)[0] *= 1.05 * pair.distance / size
        row = measured(values, architecture).layers[name]
        true = measured(values, architecture, thorough=True).nearest[0]
        kinds.add(measured(values, architecture).nearest[0].kind)
        assert row["sims/nearest_proved"] <= true.distance * (1 + 1e-9)
        assert row["sims/nearest_distance"] >= true.distance * (1 - 1e-9)
    assert "null" in kinds


def test_signs_say_nothing_behind_an_activation_of_both_signs() -> None:
    weights = (([[1.0]], [0.0]), ([[-1.0]], [0.0]), ([[1.0]], [0.0]))
    for first, dead in (("tanh", False), ("relu", True), ("sigmoid", True)):
        net = Network.from_arrays(*weights, activation=(first, "relu", "identity"))
        found = list(silent_units(chain_architecture(net), parameters_of(net)).values())
        assert found[1].every_input.tolist() == [dead]


@pytest.mark.parametrize(("length", "classes"), [(1.0513, 1), (1.0528, 2)])
def test_differences_are_compared_with_the_longer_neuron(length: float, classes: int) -> None:
    """A gap of 0.0513 is within 5 % of 1.0513, not of 1; one of 0.0528 of neither."""
    rows = np.array([[1.0], [length]])
    for order in ([0, 1], [1, 0]):
        values = {"w": rows[order]}
        found = Architecture((Slot("w", (2, 1), (2, 1), (Axis("h", "in"), None)),), (Population("h", 2),))
        assert measured(values, found).layers["h"]["sims/classes_approximate"] == classes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "chain"}, "architecture is a str; expected an Architecture"),
        ({"data": [[1.0], [1.0, 2.0]]}, "rows of different lengths"),
        ({"activations": "relu"}, "activations are a str; give a mapping of populations"),
        ({"domain": 3}, "domain is a int; expected a Box"),
        ({"tolerances": True}, "tolerances True; give three"),
        ({"tolerances": ["a", "b", "c"]}, "give three"),
        ({"seed": "x"}, "seed 'x'; give a whole number >= 0"),
    ],
)
def test_wrong_arguments_get_one_clear_line(options, words):
    net = Network.from_arrays(([[1.0, 2.0], [1.0, 2.0]], [0, 0]), ([[2.0, 1.0]], [0]), activation="tanh")
    with pytest.raises(InputError, match=words) as caught:
        measure(net, **options)
    assert "\n" not in str(caught.value)
