"""Domains: boxes of inputs on which a statement is made, possibly unbounded."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count, as_floats, as_generator, shown
from fiberscope.errors import InputError

FloatArray = npt.NDArray[np.float64]

WORDS = ("everywhere", "all", "nonnegative", "file")
"""Names of domains, besides '[lo,hi]' and the path of a JSON file; only a network knows what "file" is."""


@dataclass(frozen=True, eq=False, init=False)
class Box:
    """The set of x with lower <= x <= upper, coordinate by coordinate; infinite ends are allowed.

    Args:
        lower: (n,), numbers or infinities.
        upper: (n,), likewise.
        origin: where it came from, in words ("everywhere", "file", "[-1,1]").

    Raises:
        InputError: if an end is no number or NaN, there are not as many lower as upper ends, or a lower end exceeds
            its upper end.

    >>> Box([0, 0], [1, 2]).bounded
    True
    >>> Box.everywhere(2).bounded
    False
    >>> Box.parse("[0,1]", 2) == Box([0, 0], [1, 1])
    True
    """

    lower: FloatArray
    upper: FloatArray
    origin: str = "given"

    def __init__(self, lower: npt.ArrayLike, upper: npt.ArrayLike, origin: str = "given") -> None:
        """Read the ends, check them and freeze the arrays."""
        object.__setattr__(self, "origin", origin)
        given = (("lower ends of a domain", lower), ("upper ends of a domain", upper))
        lower, upper = (np.array(as_floats(value, name)) for name, value in given)
        for name, value in (("lower", lower), ("upper", upper)):
            if value.ndim > 1:
                raise InputError(f"{name} ends of a domain have shape {value.shape}; give one number per input, (n,)")
        lower, upper = lower.reshape(-1), upper.reshape(-1)
        if lower.shape != upper.shape:
            raise InputError(f"domain has {lower.size} lower and {upper.size} upper ends; give one pair per input")
        if np.isnan(lower).any() or np.isnan(upper).any():
            raise InputError("domain has a NaN end; give numbers or infinities")
        if (lower > upper).any() or (lower == np.inf).any() or (upper == -np.inf).any():
            i = int(np.argmax((lower > upper) | (lower == np.inf) | (upper == -np.inf)))
            raise InputError(f"domain is empty in input {i}: [{lower[i]}, {upper[i]}]; give lower <= upper")
        for name, value in (("lower", lower), ("upper", upper)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        """Whether two boxes are one set, wherever they came from."""
        if not isinstance(other, Box):
            return NotImplemented
        return np.array_equal(self.lower, other.lower) and np.array_equal(self.upper, other.upper)

    def __hash__(self) -> int:
        """Of the ends."""
        return hash(tuple((self.lower + 0.0).tolist()) + tuple((self.upper + 0.0).tolist()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made by the constructor, so that their arrays are frozen too."""
        return Box, (self.lower, self.upper, self.origin)

    @classmethod
    def everywhere(cls, n: int) -> Box:
        """All of R^n.

        Raises:
            InputError: if n is no whole number >= 0.
        """
        return cls._constant(-np.inf, np.inf, n, "everywhere")

    @classmethod
    def nonnegative(cls, n: int) -> Box:
        """The orthant of inputs >= 0.

        Raises:
            InputError: if n is no whole number >= 0.
        """
        return cls._constant(0.0, np.inf, n, "nonnegative")

    @classmethod
    def _constant(cls, low: float, high: float, n: int, origin: str) -> Box:
        count = as_count(n, "number of inputs")
        return cls(np.full(count, low), np.full(count, high), origin)

    @classmethod
    def parse(cls, text: str | Path, n: int) -> Box:
        """Read '[lo,hi]', 'everywhere', 'nonnegative', or a path to {"lower": [...], "upper": [...]}.

        Args:
            text: what the user wrote; the ends of a JSON file may be "inf" and "-inf".
            n: number of inputs; a single pair [lo,hi] is used for every input.

        Raises:
            InputError: if it is none of these or has the wrong number of inputs.

        >>> print(Box.parse("[-1,inf]", 3))
        [-1, inf]^3
        """
        if isinstance(text, Path):
            return cls._read(text, as_count(n, "number of inputs"))
        if not isinstance(text, str):
            raise InputError(f"domain {shown(text)} is no text; give Box(lower, upper), '[lo,hi]', {_named()}")
        word = text.strip()
        if word in ("everywhere", "all"):
            return cls.everywhere(n)
        if word == "nonnegative":
            return cls.nonnegative(n)
        if word.startswith("["):
            try:
                ends = [float(part) for part in word[1:-1].split(",")] if word.endswith("]") else []
            except ValueError:
                ends = []
            if len(ends) != 2:
                raise InputError(
                    f"--domain {text!r} is not a pair; write '[lo,hi]', for instance '[-1,1]'; ends that differ "
                    "between inputs go into a JSON file or Box(lower, upper)"
                )
            return cls._constant(ends[0], ends[1], n, word)
        if word == "file":
            raise InputError("--domain file: a file's own box is known to its network only; use Network.domain('file')")
        if not word:
            raise InputError(f"--domain is empty; write '[lo,hi]', {_named()}")
        return cls._read(Path(word), as_count(n, "number of inputs"))

    @classmethod
    def _read(cls, path: Path, n: int) -> Box:
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            lower, upper = np.asarray(data["lower"], float), np.asarray(data["upper"], float)
        except FileNotFoundError as exc:
            near = difflib.get_close_matches(str(path).lower(), WORDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"domain {str(path)!r}: no such file; {hint}write '[lo,hi]', {_named()}") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            seen = "this is a folder" if path.is_dir() else type(exc).__name__
            wanted = '{"lower": [...], "upper": [...]}'
            raise InputError(f"domain {str(path)!r}: expected JSON {wanted} ({seen})") from exc
        if lower.ndim == 0 and upper.ndim == 0:
            lower, upper = np.full(n, lower), np.full(n, upper)
        box = cls(lower, upper, path.name)
        if box.dimension != n:
            raise InputError(f"domain {str(path)!r} has {box.dimension} inputs; the network has {n}")
        return box

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return int(self.lower.size)

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite in every coordinate."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    @property
    def is_everything(self) -> bool:
        """Whether this is all of R^n."""
        return bool((self.lower == -np.inf).all() and (self.upper == np.inf).all())

    def contains(self, x: npt.ArrayLike) -> bool:
        """Whether the point x, shape (n,), lies in the box.

        Raises:
            InputError: if it has another shape.

        >>> Box([0, 0], [1, 1]).contains([0.5, 2])
        False
        """
        point = as_floats(x, "point")
        if point.shape != self.lower.shape:
            raise InputError(f"point has shape {point.shape}; the domain has {self.dimension} inputs")
        return bool((point >= self.lower).all() and (point <= self.upper).all())

    def sample(self, count: int, rng: np.random.Generator | int | None, *, scale: float = 1.0) -> FloatArray:
        """Draw points of the box: uniform where bounded, Gaussian of the given scale where not. Shape (count, n).

        Args:
            count: number of points.
            rng: generator or seed.
            scale: of the Gaussian, and of its distance from the end of a half line.

        Raises:
            InputError: for another count or seed.

        >>> Box([0, 2], [1, 2]).sample(3, 0)[:, 1].tolist()
        [2.0, 2.0, 2.0]
        """
        count, rng = as_count(count, "number of points"), as_generator(rng)
        low = np.where(np.isfinite(self.lower), self.lower, np.where(np.isfinite(self.upper), self.upper - scale, 0.0))
        high = np.where(np.isfinite(self.upper), self.upper, low + scale)
        shares = rng.random((count, self.dimension))
        with np.errstate(over="ignore", invalid="ignore"):
            wide = ~np.isfinite(high - low)  # longer than the largest float
            points = np.where(wide, low * (1 - shares) + high * shares, low + (high - low) * shares)
        free = ~(np.isfinite(self.lower) & np.isfinite(self.upper))
        noise = scale * rng.standard_normal((count, self.dimension))
        half = np.isfinite(self.lower) | np.isfinite(self.upper)
        sign = np.where(np.isfinite(self.upper), -1.0, 1.0)
        anchor = np.where(np.isfinite(self.lower), self.lower, np.where(np.isfinite(self.upper), self.upper, 0.0))
        unbounded = np.where(half, anchor + sign * np.abs(noise), noise)
        return np.asarray(np.where(free, unbounded, points), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; infinities are the strings "inf" and "-inf"."""
        return {"origin": self.origin, "lower": _ends(self.lower), "upper": _ends(self.upper)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Box:
        """Inverse of `to_dict`.

        Raises:
            InputError: if an end is missing or no number.
        """
        if not isinstance(data, Mapping) or not {"lower", "upper"} <= data.keys():
            raise InputError(f'domain {shown(data)}; expected {{"lower": [...], "upper": [...]}}')
        try:
            lower, upper = ([float(v) for v in data[name]] for name in ("lower", "upper"))
        except (TypeError, ValueError) as exc:
            raise InputError(f"domain {shown(data)}: its ends are no numbers ({exc})") from exc
        return cls(np.array(lower), np.array(upper), str(data.get("origin", "given")))

    def __str__(self) -> str:
        """One short phrase."""
        if self.is_everything:
            return "all real inputs"
        if self.dimension and (self.lower == self.lower[0]).all() and (self.upper == self.upper[0]).all():
            text = f"[{self.lower[0]:g}, {self.upper[0]:g}]^{self.dimension}"
        else:
            text = f"a box in R^{self.dimension}"
        return (
            text
            if self.origin in ("given", "nonnegative") or self.origin.startswith("[")
            else f"{text} ({self.origin})"
        )


def _named() -> str:
    return ", ".join(repr(word) for word in WORDS if word != "all") + " or the path of a JSON file"


def _ends(values: FloatArray) -> list[float | str]:
    return [float(v) if np.isfinite(v) else ("inf" if v > 0 else "-inf") for v in values]
