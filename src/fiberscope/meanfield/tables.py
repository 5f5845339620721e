"""Short tables over time for the reports of flows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def time_table(columns: dict[str, FloatArray], *, rows: int = 8) -> list[str]:
    """Lines of a small table over at most so many times, the first and the last among them.

    >>> time_table({"t": np.array([0.0, 1.0]), "w": np.array([0.0, 0.5])})
    ['           t            w', '           0            0', '           1          0.5']
    """
    count = len(next(iter(columns.values())))
    shown = np.unique(np.linspace(0, count - 1, min(rows, count)).round().astype(int))
    lines = ["".join(f"{name:>12} " for name in columns).rstrip()]
    lines += ["".join(f"{values[k]:>12.6g} " for values in columns.values()).rstrip() for k in shown]
    return lines
