"""Approximate steps with a certified bound on the change: rounding to a float dtype, and near merges."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.bounds import difference_bound
from fiberscope.domains import Box
from fiberscope.network import Layer, Network
from fiberscope.neurons import multiples
from fiberscope.reduction.search import reduce_to_fixpoint
from fiberscope.reduction.state import State
from fiberscope.results import Progress, Stopwatch

FloatArray = npt.NDArray[np.float64]


def round_weights(state: State, box: Box, dtype: np.dtype[Any]) -> tuple[Network, tuple[float, float] | None]:
    """Round the reduced weights to a float dtype.

    Returns:
        The network in that dtype, and (constant, slope) bounding the sum of all approximate steps on the box:
        |f(x) - g(x)|_inf <= constant + slope |x|_inf; None if nothing was approximated.

    Raises:
        OverflowError: if a weight exceeds the dtype, or no finite bound exists on the box.
    """
    spent = [step["bound"] for step in state.steps if "bound" in step]
    for step in state.steps:
        step.pop("bound", None)
    pairs = zip(state.net.layers, state.original.layers, strict=True)
    written = state.net.with_layers([_rounded_layer(new, old, dtype) for new, old in pairs])
    if not written.same_as(state.net):
        spent += _rounding_steps(state, written, box, dtype)
    if not spent:
        return written, None
    constant, slope = (sum(b[k] for b in spent) for k in (0, 1))
    if not (math.isfinite(constant) and math.isfinite(slope)):
        raise OverflowError("no finite bound on the change exists on this domain; a bounded --domain may have one")
    return written, (_above(constant), _above(slope))


def _rounding_steps(state: State, written: Network, box: Box, dtype: np.dtype[Any]) -> list[tuple[float, float]]:
    """Record the rounding and bound it: one step, or new rows layer by layer where layers were folded."""
    if not written.folded:
        state.steps.append({"move": "round", "dtype": dtype.name})
        return [difference_bound(state.net, written, box)]
    bounds, before = [], state.net
    for k, (old, new) in enumerate(zip(state.net.layers, written.layers, strict=True)):
        changed = np.flatnonzero([
            not (rationals.equal(old.weight[i], new.weight[i]) and old.bias[i] == new.bias[i]) for i in range(old.n_out)
        ]).tolist()  # fmt: skip
        if changed:
            state.steps.append({
                "move": "replace", "layer": k, "neurons": changed, "rows": rationals.texts(new.weight[changed]),
                "biases": rationals.texts(new.bias[changed]),
            })  # fmt: skip
            after = before.with_layers([*before.layers[:k], new, *before.layers[k + 1 :]])
            bounds.append(difference_bound(before, after, box))
            before = after
    return bounds


def _above(value: float) -> float:
    return float(np.nextafter(value * (1 + 1e-6), np.inf)) if value else 0.0


def _rounded_layer(layer: Layer, original: Layer, dtype: np.dtype[Any]) -> Layer:
    """The layer in numbers that the file can hold; a folded layer that did not change is in the file already."""
    same = rationals.equal(layer.weight, original.weight) and rationals.equal(layer.bias, original.bias)
    if layer.folded and layer.frame is None and same:
        return layer
    try:
        weight, bias = (rationals.rounded(a, dtype) for a in layer.own)
        if layer.frame is not None:
            weight, bias = layer.frame.folded(weight, bias)
        return replace(layer, weight=weight, bias=bias)
    except OverflowError as exc:
        raise OverflowError(f"{layer.name}: {exc}; a wider --dtype would hold it") from exc


def merge_near(state: State, box: Box, tolerance: float, clock: Stopwatch, progress: Progress | None) -> list[str]:
    """Merge neurons that are nearly multiples of each other while the certified change stays within the tolerance.

    Candidate pairs are ranked by their estimated effect; in each layer the largest prefix of the ranking whose
    certified bound (`difference_bound`) fits is taken, found by bisection. Each trial costs one difference propagation.
    """
    spent = 0.0
    for layer in range(len(state.net.hidden)):
        if clock.expired:
            return ["the time was over before all near merges were tried"]
        candidates = _near_pairs(state, layer, box)
        low, high, best = 0, len(candidates), None
        while low < high:
            middle = (low + high + 1) // 2
            trial = _replaced(state, layer, candidates[:middle])
            constant, _ = difference_bound(state.net, trial.net, box)
            if spent + constant <= tolerance:
                low, best = middle, (trial, constant)
            else:
                high = middle - 1
        if best is None:
            continue
        trial, constant = best
        spent += constant
        trial.steps[-1]["bound"] = (constant, 0.0)
        before = trial.counts.copy()
        trial.scope = "domain"
        reduce_to_fixpoint(trial, box, clock, progress=progress)
        for (where, kind, scope, rigor), count in list(trial.counts.items()):
            new = count - before[where, kind, scope, rigor]
            if where == layer and new and kind in ("duplicate", "sign_duplicate", "proportional"):
                trial.counts[where, kind, scope, rigor] -= new
                trial.counts[where, "near_duplicate", scope, rigor] += new
        trial.counts = +trial.counts
        vars(state).update(vars(trial))
    return []


def _near_pairs(state: State, layer: int, box: Box) -> list[tuple[int, int, Fraction]]:
    """(i, j, e) with row_i close to e row_j, each i once and no j used as an i, most harmless first."""
    here, above = state.net.layers[layer], state.net.layers[layer + 1]
    rule = multiples(here.activation)
    low, high = state.input_of(layer, box.lower, box.upper)
    reach = np.maximum(np.abs(low), np.abs(high))
    rows = np.hstack([here.weight64 * reach, here.bias64[:, None]])
    size = np.linalg.norm(rows, axis=1)
    effect = np.abs(above.weight64).max(axis=0, initial=0.0)
    unit = rows / np.where(size > 0, size, 1.0)[:, None]
    cosine = unit @ unit.T
    if not rule.sign:
        cosine = np.maximum(cosine, 0.0)
    ratio = np.where(size > 0, 1.0 / np.where(size > 0, size, 1.0), 0.0)[None, :] * size[:, None]
    factor = np.sign(cosine) * (ratio if rule.scale else 1.0)
    factor = np.where(factor == 0, 1.0, factor)
    gram = rows @ rows.T
    apart = np.sqrt(np.maximum(size[:, None] ** 2 - 2 * factor * gram + factor**2 * size[None, :] ** 2, 0.0))
    cost = apart * effect[:, None]
    np.fill_diagonal(cost, np.inf)
    out: list[tuple[int, int, Fraction]] = []
    used = np.zeros((2, len(rows)), dtype=bool)
    for flat in np.argsort(cost, axis=None)[: 8 * len(rows)]:
        i, j = divmod(int(flat), len(rows))
        if not (used[0, i] or used[1, i] or used[0, j]) and np.isfinite(cost[i, j]):
            used[0, i] = used[1, j] = True
            e = Fraction(float(np.float32(factor[i, j]))) if rule.scale else Fraction(int(factor[i, j]))
            out.append((i, j, e))
    return out


def _replaced(state: State, layer: int, pairs: list[tuple[int, int, Fraction]]) -> State:
    trial = state.snapshot()
    here = trial.net.layers[layer]
    rows = [rationals.fractions(rationals.scale(here.weight[j], e)) for _, j, e in pairs]
    biases = [rationals.fractions(rationals.scale(here.bias[j : j + 1], e))[0] for _, j, e in pairs]
    trial.replace_rows(
        layer, [i for i, _, _ in pairs], rationals.simplified(np.stack(rows)),
        rationals.simplified(np.array(biases, dtype=object)),
    )  # fmt: skip
    return trial
