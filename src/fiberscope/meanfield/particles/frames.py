"""Neurons over time in the few numbers that are worth drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_FRAMES, _NEURONS = 28, 160


def heaviest(masses: Array, wanted: int) -> NDArray[np.intp]:
    """Indices of the neurons with the largest masses at any time, in their order: (T, m) -> at most `wanted`.

    >>> heaviest(np.array([[1.0, 0.0, 0.0], [0.0, 0.1, 3.0]]), 2)
    array([0, 2])
    """
    best = np.argsort(-masses.max(axis=0), kind="stable")[:wanted]
    return np.sort(best)


def frames_of(times: Array, a: Array, b: Array) -> dict[str, Any] | None:
    """A finite network over time in few numbers: at most three coordinates, 160 neurons, 28 times.

    The three directions are those in which most of the mass lies at the last time: the leading eigenvectors of
    sum_j |a_j| |b_j| u_j u_j^T, u_j = b_j / |b_j|.

    Args:
        times: (T,).
        a: (T, m).
        b: (T, m, d).

    Returns:
        "signs" and "frames" with "times", "axes", "masses" and "points", in lists; None without times or for d = 1.

    Complexity: O(T m d + m d^2 + d^3).

    >>> found = frames_of(np.zeros(1), np.array([[2.0]]), np.array([[[0.0, 3.0]]]))
    >>> found["frames"]["points"], found["frames"]["masses"]
    ([[[0.0, 1.0]]], [[6.0]])
    """
    if not b.size or b.shape[2] < 2:
        return None
    width, size = b.shape[1], b.shape[2]
    frames = np.unique(np.linspace(0, len(times) - 1, min(len(times), _FRAMES)).round().astype(int))
    a, b = a[frames], b[frames]
    lengths = np.linalg.norm(b, axis=2)
    masses = np.abs(a) * lengths / width
    directions = b / np.where(lengths > 0, lengths, 1.0)[:, :, None]
    if size <= 3:
        axes, names = np.eye(size), [f"b{'₁₂₃'[k]}" for k in range(size)]
    else:
        moment = (directions[-1] * masses[-1][:, None]).T @ directions[-1]
        axes, names = np.linalg.eigh(moment)[1][:, :-4:-1], ["1st", "2nd", "3rd"]
        axes = axes * np.where(axes[np.argmax(np.abs(axes), axis=0), range(3)] < 0, -1.0, 1.0)
    kept = heaviest(masses, _NEURONS)
    points = np.round((directions @ axes)[:, kept], 4)
    signs = np.where(a[-1][kept] < 0, -1, 1)
    rounded = [[float(f"{m:.4g}") for m in row] for row in masses[:, kept].tolist()]
    drawn = {"times": times[frames].tolist(), "axes": names, "masses": rounded, "points": points.tolist()}
    return {"signs": signs.tolist(), "frames": drawn}
