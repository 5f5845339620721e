"""Arguments of this room as users give them: names of blocks, data and rationals, or one line that refuses them.

Arrays, numbers, words and networks are read as everywhere, see `fiberscope.arguments` and `fiberscope.network`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy.typing as npt

from fiberscope.arguments import as_exact, require_finite, shown
from fiberscope.errors import InputError


def as_names(values: object, name: str, known: Collection[str]) -> tuple[str, ...]:
    """Names of some known things; a lone one may stand for itself.

    Raises:
        InputError: for what is not known; all that is known is named.

    >>> as_names("b2", "frozen", ("W1", "b1", "W2", "b2"))
    ('b2',)
    """
    if isinstance(values, str):
        values = (values,)
    given = tuple(values) if isinstance(values, Iterable) else (values,)
    unknown = [v for v in given if v not in known]
    if unknown:
        raise InputError(f"{name}: there is no {', '.join(map(shown, unknown))}; there are {', '.join(known)}")
    return tuple(str(v) for v in given)


def as_rationals(values: Any, name: str) -> npt.NDArray[Any]:
    """An exact array without NaN and infinities.

    Raises:
        InputError: if an entry is no finite number.

    >>> as_rationals([1, 0.5], "theta").tolist()
    [1.0, 0.5]
    """
    array = as_exact(values, name)
    require_finite(array, name)
    return array


def as_pair(data: Any, name: str = "data") -> tuple[Any, Any]:
    """(x, y) as a pair, not read yet.

    Raises:
        InputError: if it is none.

    >>> as_pair(([[1.0]], [2.0]))
    ([[1.0]], [2.0])
    """
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    raise InputError(f"{name}={shown(data)}; give a pair (x, y): inputs (n, n_0) and targets (n,) or (n, n_L)")


def refuse(given: Iterable[tuple[str, object]], reason: str) -> None:
    """Refuse arguments that were given and mean nothing here, instead of leaving them aside silently.

    Args:
        given: names and values; None counts as not given.
        reason: what they belong to, in words that end the sentence.

    Raises:
        InputError: if there are any.

    >>> refuse([("inputs", None)], "torch modules")
    """
    names = [name for name, value in given if value is not None]
    if names:
        raise InputError(f"{' and '.join(names)} given; {reason}")
