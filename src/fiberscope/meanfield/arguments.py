"""Arguments of this room as users give them: functions, parities and how a run goes, or one line that refuses them.

Numbers, words, arrays and seeds are read as everywhere, see `fiberscope.arguments`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.arguments import shown
from fiberscope.errors import InputError
from fiberscope.results import Budget

FloatArray = NDArray[np.float64]


def checked_function(given: Any, what: str) -> Callable[[FloatArray], Any]:
    """A function, or an error.

    Raises:
        InputError: for what cannot be called.

    >>> checked_function(abs, "h")(-2)
    2
    """
    if not callable(given):
        raise InputError(f"{what} {shown(given)}; give a function of an array")
    found: Callable[[FloatArray], Any] = given
    return found


def checked_parity(given: Any) -> int | None:
    """+1, -1 or None.

    Raises:
        InputError: for anything else.

    >>> checked_parity(-1)
    -1
    """
    if given is None or (isinstance(given, int | np.integer) and not isinstance(given, bool) and given in (1, -1)):
        return None if given is None else int(given)
    raise InputError(f"parity {shown(given)}; give 1, -1 or None")


def check_run(path: object, budget: object, progress: object) -> None:
    """Refuse what is no path, no budget or no callback, before any work is done.

    Raises:
        InputError: which of them is wrong.

    >>> check_run(None, 1.5, print)
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise InputError(f"path {shown(path)}; give the path of a file, or None")
    if progress is not None and not callable(progress):
        raise InputError(f"progress {shown(progress)}; give a function of (fraction, text), or None")
    if budget is not None and not isinstance(budget, Budget):
        seconds = budget.item() if isinstance(budget, np.generic) else budget
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 0:
            raise InputError(f"budget {shown(budget)}; give seconds >= 0, a Budget, or None")
