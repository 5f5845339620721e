"""Moves of the two last hidden ReLU layers: hidden kinks, turns, fans, corners, layers that can be unrolled."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.fibers.chain import Chain

ExactArray = npt.NDArray[Any]


def unroll(chain: Chain) -> bool:
    """One layer of the last two when no last-layer neuron mixes those below; also when nothing is left above."""
    if len(chain.weights) == 2 and not chain.width(0):
        chain.flatten()
        return True
    if len(chain.weights) < 3:
        return False
    empty = not chain.width(chain.last) and chain.skip is None
    if not empty and (not _relu_pair(chain) or (nonzero(chain.weights[chain.last]).sum(axis=1) != 1).any()):
        return False
    chain.unroll()
    return True


def move_hidden(chain: Chain) -> None:
    """Shift every hidden first-layer kink to the boundary; turn round what then may be turned."""
    if len(chain.weights) < 3 or not chain.width(chain.last) or not _relu_pair(chain):
        return
    for i in hidden_neurons(chain):
        upper, bias = chain.weights[chain.last], chain.biases[chain.last]
        readers = np.flatnonzero(nonzero(upper[:, i])).tolist()
        by = max(rationals.as_fraction(bias[j]) / rationals.as_fraction(upper[j, i]) for j in readers)
        turns = _turns(chain, i, readers)
        if by or turns:
            chain.flip(chain.last, [j for j in readers if upper[j, i] < 0])
            if by:
                chain.shift(i, by)
            for k, ratio in turns:
                chain.turn(k, i, ratio)
            return  # the order and the orientations change: start again


def exchange(chain: Chain) -> bool:
    """Undo one fan or corner, in which a neuron of one layer plays the part of one of the other."""
    if len(chain.weights) < 3 or not _relu_pair(chain) or chain.skip is None:
        return False
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    seen, plus = nonzero(upper), np.asarray(upper > 0, dtype=bool)
    readers = seen.sum(axis=0)
    for h in np.flatnonzero((seen.sum(axis=1) == 2) & (plus.sum(axis=1) == 1) & ~nonzero(bias)).tolist():
        first, second = int(np.flatnonzero(plus[h])[0]), int(np.flatnonzero(seen[h] & ~plus[h])[0])
        jump = rationals.fractions(chain.weights[-1][:, h])
        u, v = (abs(rationals.as_fraction(upper[h, i])) for i in (first, second))
        paid = rationals.fractions(chain.skip[:, [first, second]])
        if readers[first] == readers[second] == 1 and (paid[:, 0] == -u * jump).all() and not paid[:, 1].any():
            chain.fan(first, second, h)
            return True
        for neuron, other in ((second, first), (first, second)):
            cut = _cut(chain, h, neuron, other, readers, jump)
            if cut is not None:
                chain.corner(neuron, other, h, cut)
                return True
    return False


def _cut(chain: Chain, h: int, neuron: int, other: int, readers: Any, jump: ExactArray) -> int | None:
    """The neuron relu(t y_p - b) that completes a corner with reader h, if there is one."""
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    if readers[other] != 1 or readers[neuron] != 2:
        return None
    cut = next(int(j) for j in np.flatnonzero(nonzero(upper[:, neuron])) if j != h)
    if nonzero(upper[cut]).sum() != 1 or upper[cut, neuron] < 0 or bias[cut] >= 0:
        return None
    s, t = (abs(rationals.as_fraction(upper[h, i])) for i in (neuron, other))
    drop = rationals.fractions(chain.weights[-1][:, cut]) * rationals.as_fraction(upper[cut, neuron])
    paid = rationals.fractions(chain.skip[:, [neuron, other]]) if chain.skip is not None else None
    if paid is None or (drop != -s * jump).any():
        return None
    # the reader may be turned either way: J relu(P - Q) + J Q = J relu(Q - P) + J P
    turned = upper[h, neuron] > 0
    wanted = (0 * jump, t * jump) if turned else (s * jump, 0 * jump)
    return cut if all((paid[:, k] == wanted[k]).all() for k in (0, 1)) else None


def _relu_pair(chain: Chain) -> bool:
    return all(chain.activations[k].name == "relu" for k in (chain.last, chain.last - 1))


def hidden_neurons(chain: Chain) -> list[int]:
    """Neurons below the last hidden layer whose kink no last-layer neuron shows, whatever its position.

    Once every reader j is turned so that u_ji > 0: nothing linear reads i, c_j <= 0 and u_jk <= 0 for all other k.
    """
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    plus, minus = np.asarray(upper > 0, dtype=bool), np.asarray(upper < 0, dtype=bool)
    below, above = np.asarray(bias <= 0, dtype=bool), np.asarray(bias >= 0, dtype=bool)
    quiet = (plus & ((plus.sum(axis=1) == 1) & below)[:, None]) | (minus & ((minus.sum(axis=1) == 1) & above)[:, None])
    candidates = np.flatnonzero(((plus | minus) <= quiet).all(axis=0) & (plus | minus).any(axis=0)).tolist()
    return [i for i in candidates if not _linear_column(chain, i, minus[:, i])]


def _linear_column(chain: Chain, neuron: int, turned: npt.NDArray[np.bool_]) -> bool:
    """Whether the linear part reads a neuron once these last-layer neurons are turned round."""
    index = np.flatnonzero(turned)
    paid = rationals.matmul(chain.weights[-1][:, index], chain.weights[chain.last][index, neuron])
    if chain.skip is not None:
        paid = rationals.add(paid, chain.skip[:, neuron])
    return bool((paid != 0).any())


def _turns(chain: Chain, hidden: int, readers: list[int]) -> list[tuple[int, Fraction]]:
    """(k, ratio) of neurons that may be turned onto a hidden one, and whose first nonzero weight is negative."""
    upper = rationals.fractions(chain.weights[chain.last])
    below = chain.weights[chain.last - 1]
    sign = leading_sign(below)
    seen = nonzero(upper)
    turned = np.zeros(len(upper), dtype=bool)
    turned[[j for j in readers if upper[j, hidden] < 0]] = True
    outside = np.ones(len(upper), dtype=bool)
    outside[readers] = False
    out = []
    for k in np.flatnonzero(sign < 0).tolist():
        if k == hidden or seen[outside, k].any() or not seen[readers, k].all():
            continue
        ratios = {upper[j, k] / upper[j, hidden] for j in readers}
        if len(ratios) == 1 and not _linear_column(chain, k, turned):
            out.append((k, ratios.pop()))
    return out


def nonzero(array: ExactArray) -> npt.NDArray[np.bool_]:
    """Mask of the entries that are not zero."""
    return np.asarray(array != 0, dtype=bool)


def leading_sign(table: ExactArray) -> npt.NDArray[np.int64]:
    """Sign of the first nonzero entry of each row, 0 for zero rows."""
    live = nonzero(table)
    if not table.shape[1]:
        return np.zeros(len(table), dtype=np.int64)
    first = live.argmax(axis=1)
    lead = table[np.arange(len(table)), first]
    return np.asarray(np.where(lead > 0, 1, np.where(lead < 0, -1, 0)), dtype=np.int64)
