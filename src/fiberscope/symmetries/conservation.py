"""Conservation laws of chains under gradient flow, as data: balance, block matrices, constants; and what has none.

With z_j, h_j = s(z_j) the neurons of one hidden layer, t_j = (w_j, b_j) incoming and v_j outgoing weights, and D the
cotangent that reaches the next layer, the derivative of t_j.t_k - d v_j.v_k along grad_theta <c, f(x)> is
(v_j.D) (s'(z_j) z_k - d h_k) + (v_k.D) (s'(z_k) z_j - d h_j): zero for j = k where s is homogeneous of degree d, and
(d = 1) for any j, k that run on pieces s(z) = a z of the same slope a. Sources: arXiv 2307.00144, arXiv 2605.18319.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.network import Network, require_network
from fiberscope.symmetries.dimensions import neuron_types
from fiberscope.symmetries.lawdata import Law, Laws, offsets
from fiberscope.symmetries.lawless import symmetries_without_law
from fiberscope.symmetries.patterns import Activity, activity, as_points, neuron_radii, pattern_radius

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_EVERYWHERE = "every loss and every data set"
_TEXTS = {
    "balance": ("|w_i|^2 + b_i^2 - {d}|v_i|^2", r"\lVert w_i \rVert^2 + b_i^2 - {d}\lVert v_i \rVert^2"),
    "block": (
        "w_j.w_k + b_j b_k - v_j.v_k for j < k: off the diagonal of [W b][W b]^T - V^T V",
        r"w_j \cdot w_k + b_j b_k - v_j \cdot v_k \; (j < k), \quad [W\,b][W\,b]^\top - V^\top V",
    ),
    "constants": ("theta_p", r"\theta_p"),
}


def laws(net: Network, data: npt.ArrayLike | None = None) -> Laws:
    """The known conservation laws of a network under gradient flow, global ones and those local to theta.

    With t_i = (w_i, b_i): |t_i|^2 - d |v_i|^2 for each neuron of homogeneous degree d; t_j.t_k - v_j.v_k for neurons of
    one layer with the same slopes on all data (for always-active ones the whole matrix [W b][W b]^T - V^T V); every
    parameter that no data point can move (all parameters of dead neurons). No claim that there are no others.

    Args:
        net: any chain; its weights must be the parameters that are trained.
        data: inputs (N, n_0) that local laws refer to; None for all of R^n0, where neurons that read only nonnegative
            numbers count as active or dead by the signs of their weights.

    Raises:
        ScopeError: if layers were folded, so that theta is not what is trained.
        InputError: if the data do not fit.

    O(N parameters) without data points near kinks. Source: arXiv 2307.00144, arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0, 2.0], [0.0, 1.0]], [0.0, 1.0]), ([[1.0, 1.0]], [0.0]))
    >>> [(law.name, law.size, law.kind) for law in laws(net, [[1.0, 1.0]]).entries]
    [('balance', 2, 'global'), ('block', 1, 'local')]
    """
    require_network(net)
    net.require_own_parameters("a conservation law under gradient flow")
    notes: tuple[str, ...] = ()
    points = None if data is None else as_points(net, data)
    if points is not None and all(layer.activation.pieces is not None for layer in net.hidden):
        view = _observed(net, points)
    else:
        view = _signs(net)
        if points is not None:
            notes = ("activity on the data was not used: not every hidden activation is piecewise linear",)
    entries = [*_balances(net, view), *_blocks(net, view), *_unused_inputs(net, points), *_constants(net, view, points)]
    found = tuple(law for law in entries if law.size)
    return Laws(
        found,
        symmetries_without_law(net),
        None if points is None else len(points),
        min((law.radius for law in found), default=math.inf),
        notes,
        tuple(dict.fromkeys(law.theorem for law in found)),
    )


@dataclass(frozen=True, eq=False)
class _View:
    """Slopes and intercepts (N, n) of each hidden layer, NaN where they vary, radii of each neuron, and which data."""

    slopes: tuple[FloatArray, ...]
    intercepts: tuple[FloatArray, ...]
    radii: tuple[FloatArray, ...]
    radius: float
    where: str

    def reach(self, layer: int, neurons: Iterable[int]) -> float:
        """Within this distance these neurons keep their activity."""
        return max(self.radius, float(self.radii[layer][list(neurons)].min(initial=math.inf)))


def _observed(net: Network, points: ExactArray) -> _View:
    pattern: Activity = activity(net, points)
    radii = tuple(neuron_radii(net, pattern, k) for k in range(len(net.hidden)))
    where = f"every loss on the given {len(points)} inputs"
    return _View(pattern.slopes, pattern.intercepts, radii, pattern_radius(net, pattern).value, where)


def _signs(net: Network) -> _View:
    """What signs alone say about all inputs: a pseudo-point with slope NaN where a neuron may be on several pieces."""
    slopes, intercepts, radii = [], [], []
    for k, layer in enumerate(net.hidden):
        row, n = layer.activation, layer.n_out
        slope, intercept, radius = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
        if row.pieces is not None and len(row.pieces) == 1:
            slope[:], intercept[:], radius[:] = float(row.pieces[0].slope), float(row.pieces[0].intercept), math.inf
        elif k and row.pieces is not None and net.layers[k - 1].activation.range_[0] >= 0:
            weight, bias = layer.weight, layer.bias
            active = np.asarray(weight >= 0, dtype=bool).all(axis=1) & np.asarray(bias > 0, dtype=bool)
            dead = list(neuron_types(weight, bias).dead)
            least = np.fmin(np.abs(layer.weight64).min(axis=1), np.abs(layer.bias64))
            # leaving the orthant takes more than the float below the smallest entry, whose sign must change
            least = np.nextafter(least, 0.0)
            for members, piece in (
                (np.flatnonzero(active), row.piece_on(0.0, math.inf)),
                (np.array(dead, dtype=np.int64), row.piece_on(-math.inf, 0.0)),
            ):
                if piece is not None:
                    slope[members], intercept[members] = float(piece.slope), float(piece.intercept)
                    radius[members] = least[members]
        slopes.append(slope[None, :])
        intercepts.append(intercept[None, :])
        radii.append(radius)
    return _View(tuple(slopes), tuple(intercepts), tuple(radii), 0.0, _EVERYWHERE)


def _balances(net: Network, view: _View) -> Iterable[Law]:
    for k, layer in enumerate(net.hidden):
        degree = layer.activation.homogeneity
        if degree is not None and degree >= 1:
            d = f"{degree} " if degree > 1 else ""
            text = f"each neuron of layer {k + 1} keeps its balance of incoming and outgoing weights"
            yield _law(net, "balance", k, range(layer.n_out), text, _EVERYWHERE, degree=degree, d=d)
        else:
            central = np.array([i for group in _alike(net, view, k) for i in group], dtype=np.int64)
            if len(central):
                text = (
                    f"neurons {_listed(central)} of layer {k + 1} keep their balance while they run through the origin"
                )
                radius = _alike_radius(view, k, np.sort(central))
                options = {"radius": radius, "theorem": "block-balance", "d": ""}
                yield _law(net, "balance", k, np.sort(central), text, view.where, kind="local", **options)


def _alike(net: Network, view: _View, k: int) -> list[list[int]]:
    """Neurons of a layer by equal slopes at all points where the layer above is live, on pieces through the origin."""
    read = _live(net, view)[k + 1].any(axis=1)
    slopes, intercepts = view.slopes[k][read], view.intercepts[k][read]
    straight = (intercepts == 0).all(axis=0) & (slopes != 0).any(axis=0)
    groups: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(straight):
        groups.setdefault((slopes[:, i] + 0.0).tobytes(), []).append(int(i))
    return list(groups.values())


def _alike_radius(view: _View, k: int, members: Iterable[int]) -> float:
    """Their own radii if they agree at every point; the whole pattern's if the layer above must stay dead at some."""
    index = list(members)
    slopes = view.slopes[k][:, index]
    own = bool((view.intercepts[k][:, index] == 0).all()) and bool((slopes == slopes[:, :1]).all())
    return view.reach(k, index) if own else view.radius


def _blocks(net: Network, view: _View) -> Iterable[Law]:
    for k, layer in enumerate(net.hidden):
        everywhere = layer.activation.pieces is not None and len(layer.activation.pieces) == 1
        for members in _alike(net, view, k):
            if len(members) < 2:
                continue
            same = (
                "active on the same inputs that are read"
                if layer.activation.name == "relu"
                else "on pieces of the same slopes"
            )
            always = bool((view.slopes[k][:, members] == 1).all())
            how = "linear" if everywhere else "always active" if always else same
            text = f"neurons {_listed(members)} of layer {k + 1} are {how}: their whole balance matrix is constant"
            options: dict[str, Any] = {"radius": _alike_radius(view, k, members), "theorem": "block-balance"}
            where = _EVERYWHERE if everywhere else view.where
            yield _law(net, "block", k, members, text, where, kind="global" if everywhere else "local", **options)


def _unused_inputs(net: Network, points: ExactArray | None) -> Iterable[Law]:
    """Weights of inputs that are zero in all data never move, whatever theta is."""
    if points is None:
        return
    idle = np.flatnonzero(np.asarray(points == 0, dtype=bool).all(axis=0))
    if len(idle):
        n, n0 = net.widths[1], net.widths[0]
        index = (np.arange(n)[:, None] * n0 + idle[None, :]).reshape(-1)
        text = f"weights of inputs {_listed(idle)}, which are zero in all data, are constant"
        where = f"every loss on the given {len(points)} inputs"
        yield _law(net, "constants", 0, range(n), text, where, parameters=index, theorem="block-balance")


def _live(net: Network, view: _View) -> list[BoolArray]:
    """Per affine layer, (N, n): whether the gradient can reach z_i there: slope not 0, and read by a live neuron."""
    count = len(view.slopes[0])
    live: list[BoolArray] = [np.ones((count, net.widths[-1]), dtype=bool)]
    for slope in reversed(view.slopes):
        steep = np.asarray(slope != 0, dtype=bool)  # NaN too: unknown slopes count as live
        steep[~live[-1].any(axis=1)] = False
        live.append(steep)
    return live[::-1]


def _constants(net: Network, view: _View, points: ExactArray | None) -> Iterable[Law]:
    """Parameters that no data point can move: their row is not live wherever their column is nonzero."""
    if not view.slopes:
        return
    count = len(view.slopes[0])
    used: BoolArray = np.ones((count, net.widths[0]), dtype=bool)
    if points is not None:
        nonzero = np.asarray(points != 0, dtype=bool)
        used &= nonzero if len(nonzero) == count else nonzero.any(axis=0)  # signs speak of all inputs at once
    at = offsets(net.widths)
    for k, (layer, live) in enumerate(zip(net.layers, _live(net, view), strict=True)):
        on = used if k == 0 else np.asarray(~((view.slopes[k - 1] == 0) & (view.intercepts[k - 1] == 0)), dtype=bool)
        frozen = np.zeros((layer.n_out, layer.n_in + 1), dtype=bool)
        met = live.T.astype(np.float64) @ on.astype(np.float64)
        frozen[:, :-1] = np.asarray(met == 0, dtype=bool)
        frozen[:, -1] = ~live.any(axis=0)
        if k == 0 and points is not None:
            frozen[:, :-1] &= used.any(axis=0)  # `_unused_inputs` has the others
        yield from _split_constants(net, view, k, at[k], frozen)


def _split_constants(net: Network, view: _View, k: int, at: int, frozen: BoolArray) -> Iterable[Law]:
    """Constants of one affine layer: those that dead neurons explain by themselves, and the rest."""
    flat = np.zeros(frozen.shape[0], dtype=bool)
    silent = np.zeros(frozen.shape[1], dtype=bool)
    if k < len(net.hidden):
        flat = (view.slopes[k] == 0).all(axis=0)
    if k:
        silent[:-1] = ((view.slopes[k - 1] == 0) & (view.intercepts[k - 1] == 0)).all(axis=0)
    explained = frozen & (flat[:, None] | silent[None, :])
    rows, columns = np.flatnonzero(flat), np.flatnonzero(silent)
    radius = view.radius
    if explained.any():
        own = view.radii[k][rows].min(initial=math.inf) if len(rows) else math.inf
        under = view.radii[k - 1][columns].min(initial=math.inf) if len(columns) else math.inf
        radius = max(view.radius, float(min(own, under)))
        parts = [f"and biases into layer {k + 1} of neurons with slope 0 ({_listed(rows)})"] if len(rows) else []
        parts += [f"out of layer {k} of neurons with output 0 ({_listed(columns)})"] if len(columns) else []
        text = f"all weights {', and '.join(parts)} are constant"
        yield _constant(net, k, at, explained, text, view.where, radius)
    rest = frozen & ~explained
    text = f"weights into layer {k + 1} whose ends are never active together, or that nothing reads, are constant"
    everyone = view.radius if view.where != _EVERYWHERE else _dead_radius(view)
    yield _constant(net, k, at, rest, text, view.where, everyone)


def _dead_radius(view: _View) -> float:
    """Within this distance every neuron that is dead by its signs stays so."""
    dead = [r[(s == 0).all(axis=0)] for r, s in zip(view.radii, view.slopes, strict=True)]
    return min((float(r.min(initial=math.inf)) for r in dead), default=math.inf)


def _constant(net: Network, k: int, at: int, mask: BoolArray, text: str, where: str, radius: float) -> Law:
    rows, columns = np.nonzero(mask)
    n_out, n_in = net.layers[k].weight.shape
    index = np.where(columns < n_in, at + rows * n_in + columns, at + n_out * n_in + rows)
    options: dict[str, Any] = {"kind": "local", "radius": radius, "theorem": "block-balance"}
    return _law(net, "constants", k, np.unique(rows), text, where, parameters=np.sort(index), **options)


def _law(
    net: Network, name: str, layer: int, neurons: Iterable[Any], statement: str, where: str, **options: Any
) -> Law:
    formula, latex = _TEXTS[name]
    if name == "balance":
        d = options.pop("d")
        formula, latex = formula.replace("{d}", d), latex.replace("{d}", d.replace(" ", r" \, "))
    options = {"kind": "global", **options}
    options["parameters"] = tuple(int(p) for p in options.get("parameters", ()))
    return Law(
        name=name, statement=statement, formula=formula, latex=latex, layer=layer,
        neurons=tuple(int(i) for i in neurons), holds_on=where, widths=net.widths, **options,
    )  # fmt: skip


def _listed(index: Iterable[Any]) -> str:
    items = [str(int(i)) for i in index]
    return ", ".join(items) if len(items) <= 8 else f"{', '.join(items[:6])}, ... ({len(items)} in all)"
