"""Draw two_weights.svg: which weights are one function, and where training can go, for f(x) = v w x.

Fibers are the level sets of v w; orbits of gradient flow are those of w^2 - v^2.
Run: python docs/figures/two_weights.py
"""

from __future__ import annotations

import math
from pathlib import Path

SIZE, REACH = 320, 2.0
LEVELS = (0.15, 0.6, 1.2, 2.0)
STEPS = [i / 12 for i in range(-36, 37)]


def pixel(w: float, v: float) -> tuple[float, float]:
    """Where a pair of weights is drawn."""
    return (w / REACH + 1) * SIZE / 2, (1 - v / REACH) * SIZE / 2


def curve(points: list[tuple[float, float]]) -> str:
    """A path through the points that are near the square, which clips it."""
    near = [pixel(w, v) for w, v in points if max(abs(w), abs(v)) <= 1.3 * REACH]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in near)


def fibers() -> list[str]:
    """Fibers: v w = c and v w = -c: w = r e^t, v = +-r e^-t."""
    paths = []
    for r in map(math.sqrt, LEVELS):
        for a, b in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
            paths.append(curve([(a * r * math.exp(t), b * r * math.exp(-t)) for t in STEPS]))
    return paths


def orbits() -> list[str]:
    """Orbits: w^2 - v^2 = c and -c, (r cosh t, r sinh t) and its images; c = 0, the half lines from the origin."""
    paths = []
    for r in map(math.sqrt, LEVELS):
        for sign in (1, -1):
            branch = [(sign * r * math.cosh(t), r * math.sinh(t)) for t in STEPS]
            paths += [curve(branch), curve([(v, w) for w, v in branch])]
    return [*paths, curve([(-REACH, -REACH), (REACH, REACH)]), curve([(-REACH, REACH), (REACH, -REACH)])]


def text(x: float, y: float, words: str, colour: str = "#808080") -> str:
    """A label."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" fill="{colour}">{words}</text>'


def drawing() -> str:
    """The picture; its colours are readable on light and on dark paper."""
    half = SIZE / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-30 -26 {SIZE + 60} {SIZE + 52}" role="img">',
        "<title>Fibers and orbits of f(x) = v w x</title>",
        "<desc>The plane of two weights w and v. Hyperbolas v w = const hold the weights of one function; the curves "
        "w^2 - v^2 = const, at right angles to them, are where gradient flow can go.</desc>",
        f'<clipPath id="square"><path d="M0 0H{SIZE}V{SIZE}H0Z"/></clipPath>',
        '<g font-family="sans-serif" font-size="14" fill="#808080">',
        f'<path d="M0 {half:g}H{SIZE}M{half:g} 0V{SIZE}" stroke="#808080" stroke-width="0.8"/>',
        '<g clip-path="url(#square)" fill="none" stroke="#3d85c6" stroke-width="1.6">'
        f'<path d="{"".join(fibers())}"/></g>',
        '<g clip-path="url(#square)" fill="none" stroke="#d9782b" stroke-width="1.6" stroke-dasharray="6 3">'
        f'<path d="{"".join(orbits())}"/></g>',
        f'<circle cx="{half:g}" cy="{half:g}" r="4" fill="#d9782b"/>',
        text(SIZE + 14, half + 5, "w"),
        text(half, -8, "v"),
        f'<g font-size="12">{text(SIZE / 4, SIZE + 18, "fibers: one function", "#3d85c6")}',
        f"{text(3 * SIZE / 4, SIZE + 18, 'orbits: where training goes', '#d9782b')}</g>",
        "</g></svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("two_weights.svg").write_text(drawing(), encoding="utf-8")
