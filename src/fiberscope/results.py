"""Results: frozen data that say how every number was obtained (`Rigor`) and what was decided (`Verdict`)."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import html
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

from fiberscope.errors import InputError, UndecidedError

Progress = Callable[[float | None, str], None]
"""Called now and then with (fraction done or None, what is being done and the bound so far)."""


class Rigor(enum.Enum):
    """How a number was obtained; the value is the sentence shown to people."""

    EXACT = "proved in rational or modular arithmetic"
    INTERVAL = "proved by a certified enclosure"
    GENERIC = "true for generic parameters; the hypotheses are listed"
    NUMERICAL = "floating point, with the gap or error estimate shown"
    SAMPLED = "observed on samples"


class Answer(enum.Enum):
    """Outcome of a decision; the value is the sentence shown to people."""

    YES = "yes, with a certificate"
    NO = "no, with a replayed counterexample"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Assumption:
    """A hypothesis a result rests on: `checked` tells whether code verified it, `holds` what it found."""

    statement: str
    checked: bool
    holds: bool | None = None


class Stopwatch:
    """Elapsed seconds since creation against a limit; created by `Budget.start`."""

    def __init__(self, seconds: float | None, cancelled: Callable[[], bool] | None = None) -> None:
        """Start counting now."""
        self._begin = time.perf_counter()
        self._seconds = seconds
        self._cancelled = cancelled

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begin

    @property
    def left(self) -> float:
        """Seconds left, `inf` without a limit, never negative."""
        if self._cancelled is not None and self._cancelled():
            return 0.0
        return math.inf if self._seconds is None else max(0.0, self._seconds - self.elapsed)

    @property
    def expired(self) -> bool:
        """Whether the limit has passed."""
        return self.left <= 0.0


@dataclass(frozen=True)
class Budget:
    """What a possibly long computation may spend: seconds and cells (None = no limit).

    `cancelled` may end it earlier: once it returns True, what was proved so far is returned.

    Raises:
        InputError: for what is no number >= 0.

    >>> Budget.of(2.5).seconds
    2.5
    >>> Budget.of(None).start().left
    inf
    """

    seconds: float | None = None
    cells: int | None = None
    cancelled: Callable[[], bool] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a budget that cannot be spent."""
        numbers: dict[str, tuple[Any, type]] = {"seconds": (self.seconds, Real), "cells": (self.cells, Integral)}
        for name, (value, number) in numbers.items():
            is_number = isinstance(value, number) and not isinstance(value, bool)
            if value is not None and not (is_number and value >= 0):
                kind = "whole number" if name == "cells" else "number"
                raise InputError(f"budget of {value!r} {name}; give a {kind} of {name} >= 0, or None for no limit")

    @classmethod
    def of(cls, value: Budget | float | None) -> Budget:
        """A budget from seconds, a budget, or None (no limit)."""
        return value if isinstance(value, Budget) else cls(seconds=value)

    def start(self) -> Stopwatch:
        """Start the clock."""
        return Stopwatch(self.seconds, self.cancelled)


def outward(value: float, *, up: bool, digits: int = 4) -> str:
    """A bound to so many significant digits, rounded away from what it encloses, so that what is shown is proved too.

    >>> outward(0.29861, up=True), outward(0.29869, up=False), outward(math.inf, up=True)
    ('0.2987', '0.2986', 'inf')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    rounding = decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR
    return f"{float(decimal.Context(prec=digits, rounding=rounding).create_decimal(repr(float(value)))):.{digits}g}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one.

    >>> counted(1, "neuron"), counted(1200, "type")
    ('1 neuron', '1,200 types')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def jsonable(value: Any) -> Any:
    """A JSON-ready copy: rationals as {"exact": "p/q", "float": x}, arrays as lists, NaN and infinities as strings.

    >>> jsonable({"a": Fraction(1, 3), "b": (1, None)})["a"]["exact"]
    '1/3'
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, Rigor | Answer):
        return value.name
    if isinstance(value, enum.Enum):
        return jsonable(value.value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return number if math.isfinite(number) else ("inf" if number > 0 else "-inf")
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Fraction):
        return {"exact": str(value), "float": _nearest(value)}
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [jsonable(v) for v in value.tolist()]
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    return str(value)


def _nearest(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


@dataclass(frozen=True, eq=False)
class Result:
    """Base of all results: `str()` is a one-screen report, `to_dict()` the data, `theorems` what it rests on."""

    hidden: ClassVar[frozenset[str]] = frozenset()
    """Names of fields that are objects of the library and not part of the data."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data (see `jsonable`)."""
        return {
            f.name: jsonable(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in self.hidden and f.repr
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """The result as one JSON document; no NaN ever appears in it."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def _repr_html_(self) -> str:
        """A small fragment for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True)
class Verdict(Result):
    """A three-valued decision. YES has a `certificate`, NO a `counterexample`, UNDECIDED a `reason`.

    >>> bool(Verdict(Answer.YES, reason="same bytes", certificate={}))
    True
    """

    answer: Answer
    reason: str
    certificate: Any = field(default=None, compare=False)
    counterexample: Any = field(default=None, compare=False)
    method: str = ""
    assumes: tuple[Assumption, ...] = ()
    theorems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """True for YES, False for NO.

        Raises:
            UndecidedError: for UNDECIDED, which is neither.
        """
        if self.answer is Answer.UNDECIDED:
            raise UndecidedError(f"the verdict is undecided ({self.reason}); compare .answer instead")
        return self.answer is Answer.YES

    def __str__(self) -> str:
        """One line."""
        return f"{self.answer.name}: {self.reason}"
