"""Search for lossless steps: constants, merges, silent neurons and linear blocks, layer by layer to a fixpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.bounds import Method, preactivation_bounds
from fiberscope.domains import Box
from fiberscope.network import Layer
from fiberscope.neurons import output_factor, proportional_rows
from fiberscope.reduction.linear import fold_block
from fiberscope.reduction.state import State
from fiberscope.results import Progress, Stopwatch

ExactArray = npt.NDArray[Any]
Fits = Callable[[Layer], bool]
"""Whether a layer may be written as it is; always true unless only exactly representable steps are taken."""


def anything(_: Layer) -> bool:
    """Accept every new layer."""
    return True


def reduce_to_fixpoint(
    state: State, box: Box, clock: Stopwatch, *, fits: Fits = anything, progress: Progress | None = None
) -> None:
    """Take lossless steps on the box until none is left or the time is over; enclosures are renewed after changes.

    Every round costs one enclosure of the network and one pass over its weights; a round that changes nothing ends
    the search, and each other one removes a neuron.
    """
    start = state.net.hidden_count
    enclose(state, box, clock)
    while sweep(state, box, clock, fits) and not clock.expired:
        if progress is not None:
            progress(None, f"{start} -> {state.net.hidden_count} hidden neurons")
        enclose(state, box, clock)


def enclose(state: State, box: Box, clock: Stopwatch) -> None:
    """Renew the enclosures: backward bounds on bounded boxes while there is time, intervals otherwise."""
    method: Method = "backward" if box.bounded and not clock.expired else "interval"
    state.enclose(preactivation_bounds(state.net, box, method=method))


def sweep(state: State, box: Box, clock: Stopwatch, fits: Fits = anything) -> bool:
    """One pass forward (constants, multiples), one backward (silent neurons), one over linear blocks."""
    depth = len(state.net.hidden)
    changed = False
    for layer in range(depth):
        changed |= fold_constants(state, layer, fits)
        changed |= merge_multiples(state, layer, fits)
    for layer in reversed(range(depth)):
        changed |= drop_silent(state, layer)
    for layer in range(depth):
        if clock.expired:
            break
        if fits is anything:
            changed |= fold_block(state, layer, box.lower, box.upper)
        else:
            changed |= _fold_if_it_fits(state, layer, box, fits)
    return changed


def _fold_if_it_fits(state: State, layer: int, box: Box, fits: Fits) -> bool:
    trial = state.snapshot()
    if not fold_block(trial, layer, box.lower, box.upper):
        return False
    touched = (trial.net.layers[layer], trial.net.layers[layer + 1])
    if not all(fits(row) for row in touched):
        return False
    vars(state).update(vars(trial))
    return True


def fold_constants(state: State, layer: int, fits: Fits = anything) -> bool:
    """Fold neurons with one rational output on the whole domain into the next bias."""
    here, above = state.net.layers[layer], state.net.layers[layer + 1]
    found: list[tuple[int, Fraction, bool]] = []
    shift = above.bias
    for i, value, exact in _constant_outputs(state, layer):
        new = rationals.add(shift, rationals.scale(above.weight[:, i], value)) if value else shift
        if fits is anything or fits(replace(above, bias=new)):
            found.append((i, value, exact))
            shift = new
    if not found or (len(found) == here.n_out == 1 and not _any(above.weight)):
        return False
    state.constant(layer, [i for i, _, _ in found], [v for _, v, _ in found], [sure for _, _, sure in found])
    return True


def _constant_outputs(state: State, layer: int) -> list[tuple[int, Fraction, bool]]:
    """(neuron, value, whether a zero row or signs alone prove it) of neurons with one output on the whole domain."""
    here = state.net.layers[layer]
    zero = [not _any(row) for row in here.weight]
    out: list[tuple[int, Fraction, bool]] = []
    flat = _constant_pieces(state, layer)
    for i in range(here.n_out):
        value = here.activation.value(rationals.as_fraction(here.bias[i])) if zero[i] else flat.get(i)
        if value is not None:
            out.append((i, value, zero[i] or _by_signs(state, layer, i)))
    return out


def _by_signs(state: State, layer: int, i: int) -> bool:
    """Whether an end of the enclosure is the bias itself: then no product contributed and nothing was rounded."""
    if state.lower is None or state.upper is None or state.net.layers[layer].rational:
        return False
    return state.net.layers[layer].bias64[i] in (state.lower[layer][i], state.upper[layer][i])


def _constant_pieces(state: State, layer: int) -> dict[int, Fraction]:
    here = state.net.layers[layer]
    if state.lower is None or state.upper is None:
        return {}
    lower, upper = state.lower[layer], state.upper[layer]
    out: dict[int, Fraction] = {}
    for piece in here.activation.pieces or ():
        if piece.slope == 0:
            inside = np.ones(here.n_out, dtype=bool)
            if piece.lo is not None:
                inside &= lower >= float(piece.lo)
            if piece.hi is not None:
                inside &= upper <= float(piece.hi)
            for i in np.flatnonzero(inside).tolist():
                if here.activation.piece_on(float(lower[i]), float(upper[i])) == piece:
                    out[i] = piece.intercept
    return out


def merge_multiples(state: State, layer: int, fits: Fits = anything) -> bool:
    """Merge neurons whose rows are multiples that the activation forgives."""
    here, above = state.net.layers[layer], state.net.layers[layer + 1]
    classes = proportional_rows(here)
    if classes.trivial:
        return False
    pairs: list[tuple[int, int, Fraction]] = []
    for members in classes.members:
        keep = members[0]
        column = above.weight[:, keep]
        for i in members[1:]:
            e = Fraction(classes.factors[i])
            phi = output_factor(here.activation, e)
            if phi is None:
                continue
            if fits is not anything:
                total = rationals.add(column, rationals.scale(above.weight[:, i], phi))
                if not fits(_column(above, keep, total)):
                    continue
                column = total
            pairs.append((i, keep, e))
    if not pairs:
        return False
    state.merge(layer, pairs, [_kind(e) for _, _, e in pairs])
    return True


def _column(above: Layer, j: int, column: ExactArray) -> Layer:
    frame = above.frame
    if frame is not None:
        frame = replace(frame, in_scale=frame.in_scale[j : j + 1], in_shift=frame.in_shift[j : j + 1])
    return replace(above, weight=column[:, None], frame=frame)


def _kind(e: Fraction) -> str:
    if e == 1:
        return "duplicate"
    return "sign_duplicate" if e == -1 else "proportional"


def drop_silent(state: State, layer: int) -> bool:
    """Drop neurons whose outgoing weights are all zero; the last one of a layer stays, with a zero row."""
    here, above = state.net.layers[layer], state.net.layers[layer + 1]
    silent = np.flatnonzero(~np.asarray(above.weight != 0, dtype=bool).any(axis=0)).tolist()
    if not silent:
        return False
    if len(silent) < here.n_out:
        state.drop(layer, silent)
        return True
    changed = len(silent) > 1
    if changed:
        state.drop(layer, silent[:-1])
    here = state.net.layers[layer]
    if _any(here.weight) or _any(here.bias):
        state.clear(layer, [0])
        return True
    return changed


def _any(array: ExactArray) -> bool:
    return bool(np.asarray(array != 0).any())
