"""The first thing on the page about one network: how many neurons suffice, how that is known, and the next command."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from fiberscope.pages.data import Data, View, base_name, listing, mapping, rows
from fiberscope.pages.figures import share_bar
from fiberscope.pages.markup import Child, Markup, count, el, real
from fiberscope.pages.parts import chip, command_line
from fiberscope.results import Rigor

_WRITTEN = (".onnx", ".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".nnet", ".h5", ".hdf5")
"""Endings of files into which a smaller network can be put; the others become ONNX."""
_INTERVAL = re.compile(r"\[[^\]]*\]")


def answer(view: View) -> Markup | None:
    """The panel above the tiles; None where nothing was said about hidden neurons."""
    before, after = (view.reduction.get(f"hidden_{when}") for when in ("before", "after"))
    if view.kind not in ("inspection", "reduction") or not (isinstance(before, int) and isinstance(after, int)):
        return None
    if not before:
        return None
    rigor = "INTERVAL" if any(r.get("rigor") == "INTERVAL" for r in rows(view.reduction.get("removed"))) else "EXACT"
    noun = "hidden neuron" if before == 1 else "hidden neurons"
    words = f"{noun} suffice" if after < before else f"{noun}: none was found to be superfluous"
    title = f"{count(after)} of {count(before)}" if after < before else count(before)
    said = el("p", el("strong", title, class_="hero"), " ", el("span", words), class_="headline")
    bar = share_bar(after, before, f"{count(after)} of {count(before)} hidden neurons suffice")
    return el(
        "section", el("div", said, bar, el("p", _why(view, before - after, rigor))),
        _next(view, before - after), class_="answer", aria_label="In short",
    )  # fmt: skip


def other_tiles(view: View) -> Sequence[Data]:
    """The tiles that do not say again what the panel says."""
    if answer(view) is None:
        return view.tiles
    return [tile for tile in view.tiles if not str(tile.get("text") or "").startswith("hidden neurons")]


def _why(view: View, gone: int, rigor: str) -> list[Child]:
    """What removing the others keeps, and how that is known."""
    where = f"on {view.domain}" if view.domain else ""
    if not gone:
        return [f"No rule applies {where}. Other rules, or another domain, may find more."]
    data = view.reduction
    layers = [" + ".join(map(str, listing(data.get(f"widths_{when}"))[1:-1])) for when in ("before", "after")]
    by_layer = f" Layer by layer: {layers[0]} → {layers[1]}." if "+" in layers[0] and len(layers[0]) < 40 else ""
    near = data.get("tolerance")
    kept = f"changes no output by more than {real(near)} {where}" if near else f"keeps the function {where}"
    proof = f"{Rigor[rigor].value} "
    return [f"Removing the other {count(gone)} {kept}: {proof}", chip(rigor), ". ", by_layer.strip()]


def _next(view: View, gone: int) -> Markup | None:
    """The command that follows from the answer, to be copied."""
    path, output = str(view.network.get("path") or ""), mapping(view.data.get("output"))
    if not path:
        return None
    options = _options(view)
    words: list[str] = []
    lead = "Next: write the smaller network, with a certificate"
    if output.get("certificate"):
        words = ["check", str(output["certificate"]), path, str(output.get("path") or "")]
        lead = "Next: check the certificate, by code that shares nothing with the search"
    elif gone and options is not None:
        stem, ending = posixpath.splitext(base_name(path))
        ending = ending if ending.lower() in _WRITTEN else ".onnx"
        words = ["reduce", path, "-o", f"{stem}-small{ending}", *options]
    elif not gone and options is not None and "--domain" not in options:
        words = ["inspect", path, *options, "--domain", "[0,1]"]
        lead = "Next: name the inputs that matter; on a smaller domain more may be superfluous"
    return el("div", el("p", lead, class_="small"), command_line(*words), class_="next") if words else None


def _options(view: View) -> list[str] | None:
    """What the command line needs for the same network and domain; None where that cannot be written in a word."""
    options = ["--part", str(view.network["part"])] if view.network.get("part") else []
    box = mapping(view.data.get("domain")) or mapping(view.reduction.get("domain"))
    origin = str(box.get("origin") or "")
    if not box or origin == "everywhere" or view.domain == "all real inputs":
        return options
    if origin in ("file", "nonnegative") or _INTERVAL.fullmatch(origin):
        return [*options, "--domain", origin]
    return None
