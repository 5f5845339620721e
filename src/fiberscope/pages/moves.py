"""What the moves of certificates and normal forms are called on the page, and how many of each there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fiberscope.pages.data import Data, whole
from fiberscope.pages.markup import Markup, count
from fiberscope.pages.parts import table

MOVES = {
    "permute": "hidden neurons put in another order",
    "scale": "rows of hidden neurons rescaled, the columns that read them divided",
    "flip": "hidden neurons turned to their other side, the difference paid by the linear part",
    "shift": "a kink that nothing shows moved",
    "turn": "a neuron turned onto a hidden one",
    "fan": "max(0, min) of two neurons written the other way round",
    "corner": "a bend at a corner of the orthant written the other way round",
    "merge": "proportional neurons made one",
    "drop": "neurons that nobody reads taken out",
    "clear": "outputs of neurons that have no effect set to 0",
    "constant": "constant neurons folded into the next bias",
    "absorb": "neurons that are linear on the domain moved into the linear part",
    "resolve": "the linear part written by as few neurons as it needs",
    "unroll": "neurons that read one neuron only unrolled",
    "flatten": "layers without a bend multiplied out",
    "hollow": "layers may be emptied from here on",
    "centre": "logits taken relative to the first",
    "stretch": "logits multiplied by a positive number, which argmax does not see",
    "fold": "a layer's linear neurons folded",
    "replace": "rows replaced by near ones",
    "round": "weights rounded to the file's dtype",
    "bound": "enclosures of activations",
}
"""What each kind of move does, in words."""


def counted(steps: Iterable[Data]) -> dict[str, int]:
    """Moves by kind."""
    return dict(Counter(str(step.get("move")) for step in steps))


def moves_table(counts: Data) -> Markup | None:
    """A row for each kind of move, the frequent ones first."""
    if not counts:
        return None
    order = sorted(counts, key=lambda name: -whole(counts[name]))
    body = [[name, count(whole(counts[name])), MOVES.get(name, "")] for name in order]
    return table("Moves by kind", ["move", "times", "what it does"], body, numeric=(1,), mono=(0,))
