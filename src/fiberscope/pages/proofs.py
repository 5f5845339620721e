"""The pages of a checked certificate and of the theorems that results rest on."""

from __future__ import annotations

from collections.abc import Iterable

from fiberscope.pages.data import Data, View, base_name, listing, mapping, rows
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.parts import Card, card, code, pairs

_WORDS = {"YES": ("accepted", "yes"), "NO": ("rejected", "no"), "UNDECIDED": ("not decided", "open")}
_KINDS = {"reduction": "a reduction", "equality": "equality of two networks"}


def check_tiles(data: Data) -> Iterable[Data]:
    """Whether the certificate proves what it claims."""
    title, look = _WORDS.get(str(data.get("answer")), (str(data.get("answer") or "–"), "open"))
    yield {"title": title, "text": pretty(data.get("reason") or ""), "look": look,
           "rigor": "EXACT" if look == "yes" else None}  # fmt: skip
    proof = mapping(data.get("certificate"))
    if isinstance(proof.get("moves"), int):
        yield {"title": count(proof["moves"]), "text": "moves in the certificate"}


def checked(view: View) -> Card | None:
    """What was checked."""
    if view.kind != "check":
        return None
    proof = mapping(view.data.get("certificate"))
    facts: list[tuple[str, Child]] = [
        ("file", el("bdi", base_name(proof.get("path")), title=str(proof.get("path") or ""))),
        ("claims", _KINDS.get(str(proof.get("kind")), str(proof.get("kind") or "–"))),
    ]
    if bound := mapping(proof.get("bound")):
        slope = f" + {real(bound['slope'])} · max |x|" if bound.get("slope") else ""
        facts.append(("up to", f"{real(bound.get('constant'))}{slope} in every output"))
    facts.append(("checked by", pretty(view.data.get("method") or "–")))
    lead = "The checker shares no code with the search that made the certificate."
    return card("The certificate", pairs(facts), lead=lead, anchor=view.anchor("certificate"))


def cite_tiles(data: Data) -> Iterable[Data]:
    """How many theorems."""
    found = rows(data.get("statements"))
    yield {"title": count(len(found)), "text": "theorem" if len(found) == 1 else "theorems"}


def statements(view: View) -> Card | None:
    """What each theorem says and needs."""
    if view.kind != "cite":
        return None
    items = []
    for row in rows(view.data.get("statements")):
        needs = "; ".join(map(str, listing(row.get("hypotheses"))))
        said = el("p", pretty(row.get("statement") or ""))
        items.append(el("li", el("h4", str(row.get("name") or row.get("key") or "")), said,
                        el("p", "Needs: ", pretty(needs), ".", class_="small") if needs else None))  # fmt: skip
    return card("What they say", el("ul", items), wide=True, anchor=view.anchor("statements")) if items else None


def bibtex(view: View) -> Card | None:
    """The references, to be copied."""
    if view.kind != "cite" or not view.data.get("bibtex"):
        return None
    return card("BibTeX", code(str(view.data["bibtex"]), view.anchor("bibtex")), wide=True, anchor=view.anchor("cited"))
