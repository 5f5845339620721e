"""Domains: boxes of inputs on which a statement is made, possibly unbounded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Box:
    """The set of x with lower <= x <= upper, coordinate by coordinate; infinite ends are allowed.

    Args:
        lower: (n,) float64.
        upper: (n,) float64.
        origin: where it came from, in words ("everywhere", "file", "[-1,1]").

    Raises:
        InputError: if a bound is NaN, or a lower end exceeds its upper end.

    >>> Box.parse("[0,1]", 2).bounded
    True
    >>> Box.everywhere(2).bounded
    False
    """

    lower: FloatArray
    upper: FloatArray
    origin: str = "given"

    def __post_init__(self) -> None:
        """Check the ends and freeze the arrays."""
        lower, upper = (np.array(v, dtype=np.float64).reshape(-1) for v in (self.lower, self.upper))
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

    @classmethod
    def everywhere(cls, n: int) -> Box:
        """All of R^n."""
        return cls(np.full(n, -np.inf), np.full(n, np.inf), "everywhere")

    @classmethod
    def nonnegative(cls, n: int) -> Box:
        """The orthant of inputs >= 0."""
        return cls(np.zeros(n), np.full(n, np.inf), "nonnegative")

    @classmethod
    def parse(cls, text: str, n: int) -> Box:
        """Read '[lo,hi]', 'everywhere', 'nonnegative', or a path to {"lower": [...], "upper": [...]}.

        Args:
            text: what the user wrote.
            n: number of inputs; a single pair [lo,hi] is used for every input.

        Raises:
            InputError: if it is none of these or has the wrong number of inputs.
        """
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
                raise InputError(f"--domain {text!r} is not a pair; write '[lo,hi]', for instance '[-1,1]'")
            return cls(np.full(n, ends[0]), np.full(n, ends[1]), word)
        return cls._read(Path(word), n)

    @classmethod
    def _read(cls, path: Path, n: int) -> Box:
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            lower, upper = np.asarray(data["lower"], float), np.asarray(data["upper"], float)
        except FileNotFoundError as exc:
            raise InputError(
                f"domain {str(path)!r}: no such file; write 'file', 'everywhere', '[lo,hi]' or a JSON file"
            ) from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InputError(
                f'domain {str(path)!r}: expected JSON {{"lower": [...], "upper": [...]}} ({type(exc).__name__})'
            ) from exc
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
        """Whether the point x, shape (n,), lies in the box."""
        point = np.asarray(x, dtype=np.float64)
        return bool((point >= self.lower).all() and (point <= self.upper).all())

    def sample(self, count: int, rng: np.random.Generator, *, scale: float = 1.0) -> FloatArray:
        """Draw points of the box: uniform where bounded, Gaussian of the given scale where not. Shape (count, n)."""
        low = np.where(np.isfinite(self.lower), self.lower, np.where(np.isfinite(self.upper), self.upper - scale, 0.0))
        high = np.where(np.isfinite(self.upper), self.upper, low + scale)
        points = low + (high - low) * rng.random((count, self.dimension))
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
        """Inverse of `to_dict`."""
        return cls(
            np.array([float(v) for v in data["lower"]]),
            np.array([float(v) for v in data["upper"]]),
            str(data.get("origin", "given")),
        )

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


def _ends(values: FloatArray) -> list[float | str]:
    return [float(v) if np.isfinite(v) else ("inf" if v > 0 else "-inf") for v in values]
