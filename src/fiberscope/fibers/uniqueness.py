"""When a normal form is unique: the hypotheses of each theorem, checked one by one.

Two-layer piecewise-linear functions determine their kinks, the jump of the gradient across each, and the rest: no
hypothesis on the parameter is needed. Two-layer tanh and sigmoid networks: Sussmann 1992. Three-layer bottleneck ReLU
networks (after arXiv 2605.18319): docs/theory/fibers proves that two parameters that both meet the hypotheses below
have the same function only if they have the same normal form.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.fibers.chain import Chain, with_bias
from fiberscope.fibers.exchanges import hidden_neurons
from fiberscope.results import Assumption

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_LINES = 24
_OFFSETS = (Fraction(8, 7), Fraction(5, 11), Fraction(23, 13))


def hypotheses_of(chain: Chain) -> tuple[str, tuple[Assumption, ...]]:
    """The theorem that could make the normal form unique ("" if there is none), and its hypotheses as found.

    O(n2^2 n1 log n1) for the pairs of second-layer rows, plus the rank of W_1.
    """
    end = chain.activations[-1].label
    common = [
        Assumption(f"the last layer has no activation (found {end})", True, end == "identity"),
        Assumption("the head is not argmax", True, chain.head != "argmax"),
    ]
    if len(chain.weights) <= 2:
        return _two_layer(chain, common)
    rows = [row.name for row in chain.activations[:-1]]
    if len(chain.weights) == 3 and rows == ["relu", "relu"]:
        return "three-layer-form", (*common, *_bottleneck(chain))
    found = f"{len(rows)} hidden layers, {', '.join(dict.fromkeys(rows))}"
    return "", (
        Assumption(f"two-layer piecewise-linear or tanh-like, or three-layer ReLU (found {found})", True, False),
    )


def _two_layer(chain: Chain, common: list[Assumption]) -> tuple[str, tuple[Assumption, ...]]:
    interior = bool((chain.domain.lower < chain.domain.upper).all())
    common.append(Assumption("the domain has an interior", True, interior))
    row = chain.activations[0].name
    if len(chain.weights) == 1 or row == "relu":
        return "two-layer-form", tuple(common)
    if row == "tanh":
        moving = bool(np.asarray(chain.weights[0] != 0, dtype=bool).any(axis=1).all())
        common.append(Assumption("no hidden neuron is a constant that is no rational", True, moving))
        return "tanh-identifiability", tuple(common)
    return "", (Assumption(f"piecewise linear, tanh or sigmoid (found {chain.activations[0].label})", True, False),)


def _bottleneck(chain: Chain) -> tuple[Assumption, ...]:
    first, n1 = chain.weights[0], chain.width(0)
    everywhere = chain.domain.is_everything
    fits = n1 <= first.shape[1] and rationals.rank(first) == n1
    hidden = hidden_neurons(chain)
    upper = chain.weights[1]
    readers = {i: np.flatnonzero(np.asarray(upper[:, i] != 0, dtype=bool)) for i in hidden}
    biases = [beta for beta in _offset_biases(chain, readers) if bool((beta != 0).all())]
    bent = _bent(chain)
    plain = [i for i in range(n1) if not bent[i] and i not in readers]
    lonely = [i for i in hidden if len(readers[i]) < 2]
    quick = (
        Assumption("the domain is all of R^n", True, everywhere),
        Assumption(f"the {n1} first-layer rows are linearly independent", True, fits),
        Assumption("no second-layer hyperplane passes through y = 0", True, bool(biases)),
        Assumption(
            "every visible first-layer hyperplane carries a bend where it shows on both sides"
            + _named(plain, "not found for neurons"), True, not plain,
        ),
        Assumption(
            "every hidden first-layer neuron is read by two second-layer neurons" + _named(lonely, "not so for"),
            True, not lonely,
        ),
    )  # fmt: skip
    statement = "no two second-layer hyperplanes share a trace on a face of the orthant"
    if not all(h.holds for h in quick):
        return (*quick, Assumption(statement, False))  # the dearest one, and it would not help
    ties = min((common_traces(upper, beta) for beta in biases), default=[], key=len)
    return (*quick, Assumption(statement + _named(ties, "neurons"), True, not ties))


def _named(items: list[Any], word: str) -> str:
    if not items:
        return ""
    return f" ({word} {', '.join(map(str, items[:3]))}{', ...' if len(items) > 3 else ''})"


def _offset_biases(chain: Chain, readers: dict[int, npt.NDArray[np.int64]]) -> list[ExactArray]:
    """Second-layer biases after hidden kinks are moved off the boundary by a few amounts: same function."""
    bias = chain.biases[1]
    if not readers:
        return [bias]
    every = np.concatenate(list(readers.values()))
    if len(np.unique(every)) < len(every):
        return []  # a neuron that reads two hidden ones has c = 0, and moving one kink shows the other
    out = []
    for step in _OFFSETS:
        moved = rationals.fractions(bias).copy()
        for i, rows in readers.items():
            column = rationals.fractions(chain.weights[1][rows, i])
            size = max((abs(b / u) for b, u in zip(moved[rows], column, strict=True)), default=Fraction(0))
            moved[rows] = moved[rows] - column * (step * (size or 1))
        out.append(rationals.simplified(moved))
    return out


def common_traces(alpha: ExactArray, beta: ExactArray) -> list[tuple[int, int]]:
    """Pairs of hyperplanes alpha_h y + beta_h = 0 that coincide on some face of the orthant y >= 0.

    They do when two of the ratios (alpha_hk / alpha_gk, beta_h / beta_g), over the entries where both are nonzero, are
    equal. Ratios in float64 that differ by more than their errors differ; the others are compared over Q.

    Args:
        alpha: (m, n), one hyperplane per row.
        beta: (m,).

    >>> common_traces(np.array([[1.0, -1.0], [2.0, -3.0]]), np.array([1.0, 5.0]))
    []
    >>> common_traces(np.array([[1.0, -1.0], [2.0, -2.0]]), np.array([1.0, 5.0]))
    [(0, 1)]
    """
    table = with_bias(alpha, beta)
    near, odd = _floats(table)
    odd = np.asarray(odd.any(axis=1))
    out = []
    for h in range(len(near) - 1):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = near[h] / near[h + 1 :]
        ratio[(near[h] == 0) | (near[h + 1 :] == 0)] = np.nan
        ordered = np.sort(ratio, axis=1)
        close = np.abs(np.diff(ordered, axis=1)) <= 16 * _EPS * np.abs(ordered[:, 1:]) + 1e-290
        for g in np.flatnonzero(close.any(axis=1) | np.isinf(ratio).any(axis=1) | odd[h] | odd[h + 1 :]).tolist():
            if _equal_ratios(table[h], table[h + 1 + g]):
                out.append((h, h + 1 + g))
    return out


def _floats(table: ExactArray) -> tuple[FloatArray, Mask]:
    """Nearest float64, and which entries are too large or small for a relative error of 2^-53."""
    near = rationals.nearest_floats(table)
    size = np.abs(near)
    return near, np.asarray(((size < 1e-290) | ~np.isfinite(near)) & np.asarray(table != 0, dtype=bool))


def _equal_ratios(a: ExactArray, b: ExactArray) -> bool:
    both = [rationals.as_fraction(p) / rationals.as_fraction(q) for p, q in zip(a, b, strict=True) if p != 0 and q != 0]
    return len(set(both)) < len(both)


def _bent(chain: Chain) -> Mask:
    """First-layer neurons whose hyperplane is proved to cross a bend of f while it is visible on both sides.

    On the face y_i = 0 follow a line through the open face. Between two neighbouring crossings nothing changes; where
    the gradient's jump D_i = L_i + sum over active h of J_h alpha_hi is nonzero just before and just after the crossing
    of a hyperplane that reads i, f has four kinks there, of which only H_i is straight. Signs and sums are float64 with
    their errors; only what is certain counts.
    """
    n1 = chain.width(0)
    skip = np.zeros((len(chain.weights[2]), n1)) if chain.skip is None else chain.skip
    parts = [_floats(v) for v in (chain.weights[1], chain.biases[1].reshape(1, -1), chain.weights[2], skip)]
    (alpha, _), (row, _), (jump, _), (linear, _) = parts
    beta = row[0]
    rng = np.random.default_rng(0)
    done = np.zeros(n1, dtype=bool)
    if n1 < 2 or not len(beta) or any(odd.any() for _, odd in parts):
        return done
    noise = 4 * _EPS * (len(beta) + 8) * (np.abs(linear) + np.abs(jump) @ np.abs(alpha)) + 1e-290
    typical = np.abs(beta) / np.maximum(np.abs(alpha).sum(axis=1), 1e-290)
    for _ in range(_LINES):
        scale = float(rng.choice(np.where(typical > 0, typical, 1.0))) * 4.0 ** rng.uniform(-1, 3)
        ends = scale * np.exp(rng.standard_normal((2, n1)))
        open_ = np.flatnonzero(~done)
        if not open_.size:
            break
        done[open_] |= _bent_along(alpha, beta, jump, linear, noise, ends, open_)
    return done


def _bent_along(
    alpha: FloatArray, beta: FloatArray, jump: FloatArray, linear: FloatArray, noise: FloatArray, ends: FloatArray,
    asked: npt.NDArray[np.int64],
) -> Mask:  # fmt: skip
    """`_bent` along one segment of the open orthant, its points projected onto each asked face."""
    values = []
    for y in ends:
        z = (alpha @ y + beta)[:, None] - alpha[:, asked] * y[asked]
        values.append(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        when = values[0] / (values[0] - values[1])
    when[~((when > 0) & (when < 1))] = np.inf
    order = np.argsort(when, axis=0)
    size = (np.abs(alpha) @ ends.max(axis=0) + np.abs(beta))[:, None]
    error = 8 * _EPS * (alpha.shape[1] + 8) * size + 1e-290
    found = np.zeros(len(asked), dtype=bool)
    columns = np.arange(len(asked))
    for rank in range(min(len(beta), 6)):
        h = order[rank]
        here = when[h, columns]
        before = when[order[rank - 1], columns] if rank else np.zeros(len(asked))
        after = when[order[rank + 1], columns] if rank + 1 < len(beta) else np.ones(len(asked))
        after = np.minimum(after, 1.0)
        ok = np.isfinite(here) & (alpha[h, asked] != 0) & ~found
        active = []
        for t in ((before + here) / 2, (here + after) / 2):
            with np.errstate(invalid="ignore"):
                z = values[0] + np.where(np.isfinite(t), t, 0.0) * (values[1] - values[0])
            ok &= (np.abs(z) > error).all(axis=0)
            active.append(z > 0)
        ok &= (active[0] != active[1]).sum(axis=0) == 1
        for side in active:
            total = linear[:, asked] + jump @ (alpha[:, asked] * side)
            ok &= (np.abs(total) > noise[:, asked]).any(axis=0)
        found |= ok
    return found
