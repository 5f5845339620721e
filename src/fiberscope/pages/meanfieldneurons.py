"""Neurons on the sphere over time, from the data of a flow or from the neurons of a finite network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fiberscope.meanfield.particles.frames import heaviest
from fiberscope.pages.data import Data, View, listing, mapping, whole
from fiberscope.pages.films import NEURONS, Neurons, neuron_film
from fiberscope.pages.markup import Child, count, el
from fiberscope.pages.meanfield import moments
from fiberscope.pages.parts import Card, card

Array = NDArray[np.float64]


def neurons(view: View) -> Card | None:
    """Where the neurons point, their masses and signs over time."""
    if view.kind == "meanfield-lowdim":
        return _lowdim(view)
    if view.kind == "meanfield-particles":
        return _particles(view)
    return None


def _lowdim(view: View) -> Card | None:
    found = _arrays(view.data)
    if found is None:
        return None
    times, points, masses, signs = found
    inside = points.shape[2] - 1
    if inside < 1:
        return None
    names: tuple[str, ...]
    if inside == 1:
        names, kept = ("H", "‖u⊥‖"), points
        said = "Each neuron u is drawn at its coordinate in H and the length of its part orthogonal to H."
    elif inside == 2:
        names, kept = ("H₁", "H₂", "‖u⊥‖"), points
        said = "Each neuron u is drawn at its coordinates in H and, upwards, the length of its part orthogonal to H."
    else:
        names, kept = ("H₁", "H₂", "H₃"), points[:, :, :3]
        left = "" if inside == 3 else f" {inside - 3} more coordinates in H are left out."
        said = f"Each neuron u is drawn at its coordinates in H; those orthogonal to H are at the centre.{left}"
    return _card(view, times, kept, masses, signs, names, said, half=inside < 3, ball=inside >= 3)


def _particles(view: View) -> Card | None:
    found = _arrays(view.data)
    if found is None:
        return None
    times, points, masses, signs = found
    size, dimension = points.shape[2], view.data.get("dimension")
    names = tuple(str(n) for n in listing(mapping(view.data.get("frames")).get("axes")))
    if size not in (2, 3) or len(names) != size:
        return None
    flat = dimension == size
    said = "Each neuron is drawn in the direction of its weights b." + (
        "" if flat else " Seen along the directions that carry most of the mass at the end."
    )
    return _card(view, times, points, masses, signs, names, said, half=False, ball=not flat)


def _arrays(data: Data) -> tuple[list[float], Array, Array, Array] | None:
    """Times (T,), points (T, m, k), masses (T, m), signs (m,); None where they do not fit or are not finite."""
    frames = mapping(data.get("frames"))
    try:
        times, points, masses = (np.asarray(frames.get(key), float) for key in ("times", "points", "masses"))
        signs = np.asarray(data.get("signs"), float)
    except (TypeError, ValueError):
        return None
    if points.ndim != 3 or not points.size or masses.shape != points.shape[:2]:
        return None
    if signs.shape != masses.shape[1:] or times.shape != masses.shape[:1] or (np.abs(points) > 1 + 1e-6).any():
        return None
    if not all(np.isfinite(a).all() for a in (times, points, masses, signs)):
        return None
    return times.tolist(), points, masses, signs


def _card(
    view: View, times: list[float], points: Array, masses: Array, signs: Array, names: Sequence[str],
    said: str, *, half: bool, ball: bool,
) -> Card:  # fmt: skip
    kept = heaviest(masses, NEURONS)
    total = max(masses.shape[1], whole(view.data.get("width")))
    drawn = Neurons(
        times, points[:, kept].tolist(), np.maximum(masses[:, kept], 0).tolist(),
        [1 if s > 0 else -1 for s in signs[kept]], moments(view.data, times), names, half, ball,
    )  # fmt: skip
    key = el("ul", el("li", el("span", class_="swatch disc plus", aria_hidden="true"), "a > 0"),
             el("li", el("span", class_="swatch disc minus", aria_hidden="true"), "a < 0"),
             el("li", "area: mass; faint: behind" if len(names) == 3 else "area: mass"), class_="key")  # fmt: skip
    left: Child = None
    if len(kept) < total:
        left = el("p", f"The {count(len(kept))} heaviest of {count(total)} neurons are drawn.", class_="small")
    return card("Neurons over time", key, neuron_film(drawn), left, lead=said, anchor=view.anchor("neurons"))
