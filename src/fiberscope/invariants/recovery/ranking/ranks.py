"""The model rank: how many directions the tangent space of functions has at a parameter, and at finitely many inputs.

rank_f(theta) = dim span {d f / d theta_i} and, at inputs X, rank of the matrix of these derivatives at X. Where the two
agree, data at X determine the problem linearised at theta, a *local* statement (arXiv 2406.18035): ranks are lower
semicontinuous, so parameters near theta may have larger ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_choice, as_count, as_exact, as_finite, as_switch
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Residues
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.ranking.derivatives import (
    kept_columns,
    last_activation,
    network_rows,
    trained_columns,
    widest_gap,
)
from fiberscope.invariants.recovery.ranking.results import EmpiricalRank, LocalRecovery, ModelRank, trained_parts
from fiberscope.invariants.recovery.ranking.tangents import NeuronGroups, neuron_groups, shape_of, tangent_rank
from fiberscope.invariants.recovery.ranking.tied import DiagonalProduct, MatrixProduct, TiedNetwork
from fiberscope.models.chains import chain_family
from fiberscope.models.model import Model
from fiberscope.network import Network
from fiberscope.results import Rigor, counted

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Ranked = Network | TiedNetwork | MatrixProduct | DiagonalProduct | Model
Method = Literal["auto", "exact", "svd"]

_LARGEST = 6000
_LATTICE = 1500
"""Rows of the exact derivatives of a polynomial network; beyond, residues at random points."""
_SPARE = 20


def model_rank(
    model: Ranked, *, at: npt.ArrayLike | None = None, method: Method = "auto", bias: bool = True,
    output_bias: bool = True, seed: int = 0,
) -> ModelRank:  # fmt: skip
    """The dimension of the span of all parameter derivatives of f at theta.

    rank_f(theta) = dim span {d f(.; theta) / d theta_i}. Exact over Q for two-layer networks, tied or not, with one of
    the activations in `tangents.EXACT_ROWS` (p C + D sum_c rank A_c if untied: C classes of neurons equal up to sign,
    D weights each, p outputs, A_c the outgoing weights), for products of matrices and of coordinates, and for networks
    with polynomial activations. Everything else by singular values at random inputs, with their gap; for
    activations that are not analytic (piecewise linear ones) that is a lower bound: random inputs may miss regions.

    Args:
        model: a `Network`, a `TiedNetwork` (convolutions), `MatrixProduct`, `DiagonalProduct`, or a `Model` with `at`.
        at: parameters (M,) instead of the model's own.
        method: "exact" or "svd" insist on one.
        bias: whether hidden biases of a `Network` are trained.
        output_bias: whether its last bias is; like `bias` yes by default, as everywhere a network is given. Where it is
            assumed (`recover`, `predict_recovery`, `phase_diagram`) it has no output biases unless they are asked for.
        seed: of random inputs; exact ranks do not depend on it.

    Raises:
        InputError: for anything else, a `Model` without `at`, or more than 6,000 parameters by singular values.
        ScopeError: if "exact" is asked for where no exact method is known, or theta belongs to folded layers.

    Complexity: O(N d) for two-layer networks with generic weights; O(M^3) for singular values.
    Source: arXiv 2406.18035, Definition 4; the exact rank is proved in `tangents`.

    >>> net = Network.from_arrays(([[1, 2], [-1, -2], [0, 1]], None), ([[1, 1, 0]], None), activation="tanh")
    >>> model_rank(net, bias=False, output_bias=False).rank  # two classes, one of them with a = 0: 2 + 1 * 2
    4
    """
    as_choice(method, "method", ("auto", "exact", "svd"))
    bias, output_bias, seed = as_switch(bias, "bias"), as_switch(output_bias, "output_bias"), as_count(seed, "seed")
    model = _placed(model, at)
    found = _rank(model, at, method, bias, output_bias, seed)
    return replace(found, trained=trained_parts(bias, output_bias)) if isinstance(model, Network) else found


def _rank(model: Ranked, at: npt.ArrayLike | None, method: Method, bias: bool, output_bias: bool,
          seed: int) -> ModelRank:  # fmt: skip
    if method != "svd":
        try:
            found = _exact(model, at, bias, output_bias, seed)
        except ScopeError:
            if method == "exact":
                raise
            found = None
        if found is not None:
            return found
        if method == "exact":
            raise ScopeError("no exact rank is known for this model; use method='svd'")
    return _numerical(model, at, bias, output_bias, seed)


def _placed(model: Ranked, at: npt.ArrayLike | None) -> Ranked:
    if isinstance(model, Network):
        model.require_own_parameters("a model rank")
        return model if at is None else model.with_theta(at)
    if isinstance(model, Model):
        if at is None:
            raise InputError("a Model has no parameters of its own: give `at`, shape (M,)")
        if np.shape(at) != (model.size,):
            raise InputError(f"parameters of shape {np.shape(at)}; the model has {model.size}")
        as_finite(at, "at")
        return model
    if not isinstance(model, TiedNetwork | MatrixProduct | DiagonalProduct):
        raise InputError(
            f"model of type {type(model).__name__}; expected a Network (fs.load makes one), TiedNetwork, "
            "product or Model"
        )
    if at is not None:
        raise InputError("this model holds its parameters; `at` is for Network and Model")
    return model


# ---- exact ranks


def _exact(model: Ranked, at: npt.ArrayLike | None, bias: bool, output_bias: bool, seed: int) -> ModelRank | None:
    if isinstance(model, Model):
        if not model.polynomial:
            return None
        found = _residue_rank(model.family, np.asarray(at), seed)
        return replace(found, note="; ".join(text for text in (found.note, model.note) if text))
    if isinstance(model, MatrixProduct):
        return _matrix_rank(model)
    if isinstance(model, DiagonalProduct):
        zeros = (model.factors == 0).sum(axis=0)
        rank = int((zeros <= 1).sum())
        text = f"coordinates with at most one zero factor: {rank} of {zeros.size}"
        return ModelRank(rank, model.parameters, "formula", Rigor.EXACT, formula=text)
    if isinstance(model, Network):
        two = model.depth == 2 and model.layers[1].activation.name == "identity"
        if two and shape_of(model.layers[0].activation) is not None:
            return _tied_rank(TiedNetwork.of(model, bias=bias, output_bias=output_bias))
        return _polynomial_rank(model, bias, output_bias, seed)
    if isinstance(model, TiedNetwork) and shape_of(model.activation) is not None:
        return _tied_rank(model)
    return None


def _tied_rank(net: TiedNetwork) -> ModelRank:
    groups = neuron_groups(net)
    rank = tangent_rank(net, groups)
    return ModelRank(
        rank, net.parameters, "classes", Rigor.EXACT, classes=groups.members, quiet=groups.quiet,
        formula=_formula(net, groups), theorems=("model-rank",),
    )  # fmt: skip


def _formula(net: TiedNetwork, groups: NeuronGroups) -> str:
    count = len(groups.members)
    active = sum(bool((net.outer[:, list(block)] != 0).any()) for block in groups.members)
    quiet = f", {counted(len(groups.quiet), 'neuron')} without inputs" if groups.quiet else ""
    if net.untied:
        return (
            f"classes of neurons: {count}, with outgoing weights: {active}, {net.per_neuron} incoming weights each"
            f"{quiet}"
        )
    return f"classes of windows: {count}, plus the rank of the derivatives by {net.tied} tied weights{quiet}"


def _matrix_rank(model: MatrixProduct) -> ModelRank:
    """Sum over layers of (rise of rank of what stands to the left) times rank of what stands to the right.

    The image of the derivative is sum_k Im(left_k) (x) Row(right_k) with Im(left_k) growing and Row(right_k) shrinking
    in k, so a basis adapted to both flags gives sum_k (l_k - l_(k-1)) r_k; for two factors p q - (p - r_A)(q - r_B).
    """
    total, before, parts = 0, 0, []
    for k in range(len(model.factors)):
        left, right = (rationals.rank(v) for v in model.around(k))
        total += (left - before) * right
        parts.append(f"({left} - {before}) {right}")
        before = left
    return ModelRank(total, model.parameters, "formula", Rigor.EXACT, formula=" + ".join(parts) + f" = {total}")


def _polynomial_rank(net: Network, bias: bool, output_bias: bool, seed: int) -> ModelRank | None:
    """Networks with polynomial activations: f has degree D in x, so the points k >= 0 of sum <= D determine it."""
    degree = 1
    for layer in net.layers:
        row = layer.activation
        if row.name not in ("identity", "square", "polynomial"):
            return None
        degree *= {"identity": 1, "square": 2}.get(row.name, len(row.parameters) - 1)
    d, p = net.widths[0], net.widths[-1]
    if math.comb(d + degree, d) * p <= _LATTICE:
        points = np.array(list(_lattice(d, degree)), dtype=np.float64).reshape(-1, d)
        rows = kept_columns(net, network_rows(net, points, exact=True), bias, output_bias)
        text = f"rank over Q at the {len(points)} points that determine a polynomial of degree {degree}"
        return ModelRank(rationals.rank(rows), rows.shape[1], "lattice", Rigor.EXACT, formula=text)
    if degree > 8:
        return None
    family = chain_family(net.widths, [layer.activation for layer in net.hidden], output=last_activation(net))
    columns = trained_columns(net, bias, output_bias)
    return _residue_rank(family, net.theta, seed, columns)


def _lattice(d: int, degree: int) -> Any:
    return (k for k in product(range(degree + 1), repeat=d) if sum(k) <= degree) if d <= 6 else _compositions(d, degree)


def _compositions(d: int, degree: int) -> Any:
    if d == 0:
        yield ()
        return
    for first in range(degree + 1):
        for rest in _compositions(d - 1, degree - first):
            yield (first, *rest)


def _residue_rank(family: Any, theta: npt.ArrayLike, seed: int, columns: Array | None = None) -> ModelRank:
    ring = Residues()
    rng = np.random.default_rng(seed)
    point = Nilpotent(ring, {0: ring.array(rationals.exact_array(theta)).reshape(1, -1)})
    found = family.fields(point, family.draw(ring, rng, family.size + _SPARE), FormalJets(ring, seed)).real
    rows = found if columns is None else found[:, columns]
    rank = rationals.rank_mod(np.ascontiguousarray(rows), PRIME)
    full = rank == rows.shape[1]
    note = "" if full else "residues at random data: a proved lower bound, equal with probability almost 1"
    return ModelRank(rank, rows.shape[1], "residues", Rigor.EXACT if full else Rigor.GENERIC, note=note)


# ---- singular values


def _numerical(model: Ranked, at: npt.ArrayLike | None, bias: bool, output_bias: bool, seed: int) -> ModelRank:
    rng = np.random.default_rng(seed)
    note, lower = "", False
    if isinstance(model, Model):
        family = NumpyFamily(model.family, np.asarray(at, dtype=np.float64))
        rows = family.fields(family.start, family.draw(rng, model.size + _SPARE))
    elif isinstance(model, MatrixProduct | DiagonalProduct):
        rows = rationals.nearest_floats(model.jacobian())
    else:
        rows = _random_rows(model, bias, output_bias, rng)
        lower = _bent(model)
        note = "not analytic: a lower bound, regions that no random input hit are not counted" if lower else ""
    rank, gap = widest_gap(rows)
    return ModelRank(rank, int(rows.shape[1]), "svd", Rigor.NUMERICAL, gap=gap, note=note, lower=lower)


def _bent(model: Network | TiedNetwork) -> bool:
    """Whether an activation is not analytic: derivatives that are not 0 may then be 0 at all random inputs."""
    rows = [layer.activation for layer in model.layers] if isinstance(model, Network) else [model.activation]
    return not all(row.analytic for row in rows)


def _random_rows(model: Network | TiedNetwork, bias: bool, output_bias: bool, rng: np.random.Generator) -> FloatArray:
    """Derivatives at random inputs of several sizes, twice as many as there are parameters."""
    if isinstance(model, TiedNetwork):
        size, d, p = model.parameters, model.inputs, model.outputs
    else:
        size, d, p = int(trained_columns(model, bias, output_bias).size), model.widths[0], model.widths[-1]
    if size > _LARGEST:
        raise InputError(f"{size:,} parameters; singular values are taken of at most {_LARGEST:,}")
    count = 2 * size // p + _SPARE
    x = rng.standard_normal((count, d)) * np.exp(rng.uniform(-1.0, 1.5, (count, 1)))
    if isinstance(model, TiedNetwork):
        return model.jacobian(x)
    return kept_columns(model, network_rows(model, x), bias, output_bias)


# ---- at data


def empirical_rank(
    model: Ranked, x: npt.ArrayLike | None = None, *, at: npt.ArrayLike | None = None,
    entries: Sequence[tuple[int, int]] | None = None, bias: bool = True, output_bias: bool = True,
) -> EmpiricalRank:  # fmt: skip
    """Rank of the derivatives at given inputs: rank of (d f(x_i; theta) / d theta).

    Args:
        model: as in `model_rank`, but no `Model`.
        x: inputs (n, d).
        at: parameters of a `Network` instead of its own.
        entries: for a `MatrixProduct` the observed entries (row, column) instead of inputs.
        bias: whether hidden biases of a `Network` are trained.
        output_bias: whether its last bias is.

    Returns:
        Over Q for products and networks with polynomial activations, by singular values otherwise.

    Raises:
        InputError: if the inputs do not fit.

    Complexity: O(n M min(n, M)). Source: arXiv 2406.18035, Definition 6.

    >>> empirical_rank(MatrixProduct.of([[1, 1]], [[1], [2]]), entries=[(0, 0), (0, 1)]).rank
    2
    """
    model = _placed(model, at)
    if isinstance(model, Model):
        raise InputError("a Model draws its own data; give a Network, a TiedNetwork or a product")
    if (x is None) == (entries is None) or (entries is not None and not isinstance(model, MatrixProduct)):
        raise InputError("give inputs x, or for a MatrixProduct the observed entries")
    points = None if x is None else as_exact(x, "x")
    if points is not None and (points.ndim != 2 or points.shape[1] != _inputs_of(model)):
        raise InputError(f"inputs of shape {points.shape}; expected (n, {_inputs_of(model)})")
    rows, exact = _rows_at(model, points, entries, bias, output_bias)
    if exact:
        return EmpiricalRank(rationals.rank(rows), rows.shape[0], rows.shape[1], Rigor.EXACT)
    rank, gap = widest_gap(rows) if rows.size else (0, (0.0, 0.0))
    return EmpiricalRank(rank, int(rows.shape[0]), int(rows.shape[1]), Rigor.NUMERICAL, gap)


def _rows_at(
    model: Ranked, points: Array | None, entries: Sequence[tuple[int, int]] | None, bias: bool, output_bias: bool
) -> tuple[Array, bool]:
    """The derivatives at the data, and whether they are exact."""
    if isinstance(model, MatrixProduct):
        return model.jacobian(points, entries), True
    x = np.zeros((0, 0)) if points is None else points
    if isinstance(model, DiagonalProduct):
        return model.jacobian(x), True
    if isinstance(model, TiedNetwork):
        return model.jacobian(np.asarray(x, dtype=np.float64)), False
    if not isinstance(model, Network):
        raise InputError(f"model of type {type(model).__name__}; expected a Network")
    exact = all(layer.activation.name in ("identity", "square") for layer in model.layers)
    inputs = rationals.fractions(rationals.exact_array(x)) if exact else np.asarray(x, dtype=np.float64)
    return kept_columns(model, network_rows(model, inputs, exact=exact), bias, output_bias), exact


def _inputs_of(model: Ranked) -> int:
    if isinstance(model, MatrixProduct):
        return int(model.factors[0].shape[1])
    if isinstance(model, DiagonalProduct):
        return int(model.factors.shape[1])
    return model.widths[0] if isinstance(model, Network) else model.inputs  # type: ignore[union-attr]


def locally_recoverable(
    model: Ranked, x: npt.ArrayLike | None = None, *, at: npt.ArrayLike | None = None,
    entries: Sequence[tuple[int, int]] | None = None, bias: bool = True, output_bias: bool = True, seed: int = 0,
) -> LocalRecovery:  # fmt: skip
    """Whether data at X determine the problem linearised at theta: rank at X = model rank.

    Args:
        model: as in `empirical_rank`.
        x: inputs (n, d).
        at: parameters of a `Network` instead of its own.
        entries: observed entries of a `MatrixProduct`.
        bias: whether hidden biases are trained.
        output_bias: whether the last bias is.
        seed: of random inputs of the model rank where that is numerical.

    Complexity: that of both ranks. Source: arXiv 2406.18035, Lemma 7. It says nothing about where training goes.

    >>> net = Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [0.0]), activation="tanh")
    >>> bool(locally_recoverable(net, [[-1.0], [0.0], [1.0]])), bool(locally_recoverable(net, [[-1], [0], [1], [2]]))
    (False, True)
    """
    found = empirical_rank(model, x, at=at, entries=entries, bias=bias, output_bias=output_bias)
    whole = model_rank(model, at=at, bias=bias, output_bias=output_bias, seed=seed)
    if whole.lower and found.rank > whole.rank:  # the data hit more than the random inputs did
        whole = replace(whole, rank=found.rank, gap=found.gap)
    order = [Rigor.EXACT, Rigor.GENERIC, Rigor.NUMERICAL]
    rigor = max(found.rigor, whole.rigor, key=order.index)
    bent = isinstance(model, Network | TiedNetwork) and _bent(model)
    theorems = (*whole.theorems, *(() if bent else ("optimistic-size",)))
    return LocalRecovery(found.rank == whole.rank, found, whole, rigor, theorems)
