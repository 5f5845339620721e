"""The independent checker: replays a certificate between two networks and says whether it proves its claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fiberscope.certificates.cases import replay_cases
from fiberscope.certificates.differences import difference
from fiberscope.certificates.enclosures import Affine
from fiberscope.certificates.format import METHODS, Certificate
from fiberscope.certificates.moves import MOVES, Refusal
from fiberscope.certificates.rearrangements import rearrange, unlike
from fiberscope.certificates.state import State, affine_layers
from fiberscope.domains import Box
from fiberscope.errors import CertificateError, InputError
from fiberscope.network import Network, require_network
from fiberscope.results import Answer, Result, Verdict, outward


def check(certificate: Certificate | Mapping[str, Any], f: Network, g: Network) -> Verdict:
    """Whether a certificate proves that g equals f on its domain, or differs by at most its bound.

    Each move is replayed on the exact weights of f; the result must be g, weight by weight. Shares no code with the
    search that wrote the certificate.

    Args:
        certificate: a `Certificate`, or its JSON data (`Certificate.read` reads a file).
        f: the source network.
        g: the target network.

    Returns:
        YES if it does. NO if a move does not follow, the digests or hashes name other networks, or the bound is too
        small; the counterexample names the step. NO refuses the proof; it does not say that the networks differ.

    Raises:
        CertificateError: if the certificate is malformed or names a layer or neuron that does not exist.
        InputError: if f or g is no `Network`.

    Complexity: O(parameters) floats per move, rational arithmetic on touched columns only; enclosures only where a
    move rests on them.

    >>> f = Network.from_arrays(([[1.0], [2.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0]], [0.0]), ([[3.0]], [0.0]))
    >>> claim = {
    ...     "schema": "fiberscope/certificate/1", "kind": "reduction", "version": "1",
    ...     "source": {"digest": f.digest, "sha256": None}, "target": {"digest": g.digest, "sha256": None},
    ...     "domain": {"lower": ["-inf"], "upper": ["inf"]},
    ...     "steps": [{"move": "merge", "layer": 0, "pairs": [[1, 0, "2"]]}], "bound": None,
    ... }
    >>> check(claim, f, g).answer.name
    'YES'
    >>> claim["steps"][0]["pairs"][0][2] = "3"
    >>> print(check(claim, f, g))
    NO: step 0 (merge, layer 0): row and bias of neuron 1 are not 3 times those of neuron 0
    """
    require_network(f, "f")
    require_network(g, "g")
    proof = _as_certificate(certificate)
    data = proof.data
    for role, net in (("source", f), ("target", g)):
        reason = _other_network(data[role], role, net)
        if reason is not None:
            return _no(reason, {"part": role})
    box = _box(data["domain"], f)
    return _KINDS[data["kind"]](proof, f, g, box)


def _as_certificate(given: object) -> Certificate:
    if isinstance(given, Certificate):
        return given
    if isinstance(given, Mapping):
        return Certificate.from_dict(given)
    hint = "give a Certificate; Certificate.read reads a file, Certificate.from_json text"
    if isinstance(given, Result):
        hint = "give its .certificate" if isinstance(getattr(given, "certificate", None), Certificate) else hint
        raise CertificateError(f"a {type(given).__name__} is no certificate; {hint}")
    raise CertificateError(f"certificate is of type {type(given).__name__}; {hint}")


def _check_reduction(proof: Certificate, f: Network, g: Network, box: Box) -> Verdict:
    state = State.of(f, box)
    refused = _replayed(state, proof.steps, "step", _reducing)
    if refused is not None:
        return refused
    reason = _unlike(state.layers, f, g)
    if reason is not None:
        return _no(reason, {"part": "target"})
    reason = _above_bound(state, proof.data["bound"])
    if reason is not None:
        return _no(reason, {"part": "bound"})
    return _yes(proof, state, box)


def _check_equality(proof: Certificate, f: Network, g: Network, box: Box) -> Verdict:
    if f.head != g.head:
        return _no(
            f"target: its output head is {g.head or 'none'}, the source has {f.head or 'none'}", {"part": "target"}
        )
    if f.widths[0] != g.widths[0]:
        return _no(f"target: it takes {g.widths[0]} inputs, the source {f.widths[0]}", {"part": "target"})
    states = []
    for net, steps, name in ((f, proof.steps, "step"), (g, proof.back, "back")):
        state = State.of(net, box, rearranging=True)
        refused = _replayed(state, steps, name, rearrange)
        if refused is not None:
            return refused
        if state.approximations:
            return _no("weights were changed by an approximate move", {"part": "steps" if name == "step" else "back"})
        states.append(state)
    reason = unlike(*states)
    if reason is not None:
        return _no(reason, {"part": "target"})
    states[0].used_enclosures |= states[1].used_enclosures
    return _yes(proof, states[0], box)


def _replayed(
    state: State, steps: list[dict[str, Any]], name: str, make: Callable[[State, dict[str, Any]], None]
) -> Verdict | None:
    """Make the moves; the refusal if one does not follow."""
    for k, step in enumerate(steps):
        title = f"{name} {k} ({step['move']}" + (f", layer {step['layer']})" if "layer" in step else ")")
        try:
            make(state, step)
        except Refusal as exc:
            return _no(f"{title}: {exc}", {name: k, "move": step["move"], "layer": step.get("layer")})
        except CertificateError as exc:
            raise CertificateError(f"{title}: {exc}") from exc
    return None


def _reducing(state: State, step: dict[str, Any]) -> None:
    MOVES[step["move"]](state, step)


def _check_cases(proof: Certificate, f: Network, g: Network, box: Box) -> Verdict:
    if f.head != g.head or (f.widths[0], f.widths[-1]) != (g.widths[0], g.widths[-1]):
        return _no("target: its inputs, outputs or head are not those of the source", {"part": "target"})
    refused = replay_cases(proof.data, f, g, box)
    method, nodes = "replay of each case over the rationals", proof.data["nodes"]
    if refused is not None:
        reason = f"node {refused[0]}: {refused[1]}"
        return Verdict(Answer.NO, reason, counterexample={"node": refused[0]}, method=method)
    cells = sum(node.get("leaf") == "equal" for node in nodes)
    text = f"equal on {box}: the same function on {'its one cell' if cells == 1 else f'each of {cells} cells'}"
    return Verdict(Answer.YES, text, certificate=proof, method=method, theorems=("case-tree",))


_KINDS = {"reduction": _check_reduction, "equality": _check_equality, "cases": _check_cases}


def _yes(proof: Certificate, state: State, box: Box) -> Verdict:
    bound = proof.data.get("bound")
    claim = "equal"
    if bound is not None:
        constant, slope = (outward(bound[name], up=True, digits=3) for name in ("constant", "slope"))
        claim = f"within {constant}{f' + {slope} |x|_inf' if bound['slope'] else ''} of each other"
    made = {_kind_of(step) for step in (*proof.steps, *proof.back)}
    theorems = ["lossless-moves"] if proof.data["kind"] == "reduction" or made & MOVES.keys() else []
    theorems += ["permutation-scaling"] if made & {"permute", "scale"} else []
    theorems += ["canonical-form"] if made - MOVES.keys() else []
    theorems += ["interval-enclosure"] if state.used_enclosures or state.approximations else []
    theorems += ["lipschitz-difference"] if state.approximations else []
    return Verdict(
        Answer.YES, f"{claim} on {box}: {_moves(len(proof.steps) + len(proof.back))}", certificate=proof,
        method="replay of each move over the rationals", theorems=tuple(theorems),
    )  # fmt: skip


def _kind_of(step: Mapping[str, Any]) -> str:
    """The move; "sign" for a scaling by a negative number, which takes more than positive homogeneity."""
    signs = step["move"] == "scale" and any(text.startswith("-") for text in step["factors"])
    return "sign" if signs else str(step["move"])


def _moves(count: int) -> str:
    if not count:
        return "the weights are the same"
    return "its one move follows" if count == 1 else f"all {count} moves follow"


def _no(reason: str, where: dict[str, Any]) -> Verdict:
    return Verdict(Answer.NO, reason, counterexample=where, method="replay of each move over the rationals")


def _other_network(party: Mapping[str, Any], role: str, net: Network) -> str | None:
    """Why the certificate is about another network or file, if it is."""
    if party["digest"] != net.digest:
        return f"{role}: the network has digest {net.digest[:12]}..., the certificate {party['digest'][:12]}..."
    stored = None if net.source is None else net.source.sha256
    if party["sha256"] is not None and stored is not None and party["sha256"] != stored.lower():
        return f"{role}: the file has sha256 {stored[:12]}..., the certificate {party['sha256'][:12]}..."
    return None


def _box(data: Mapping[str, Any], f: Network) -> Box:
    try:
        box = Box.from_dict(dict(data))
    except InputError as exc:
        raise CertificateError(f"certificate: {exc}") from exc
    if box.dimension != f.widths[0]:
        raise CertificateError(f"certificate: the domain has {box.dimension} inputs; the network takes {f.widths[0]}")
    return box


def _unlike(layers: list[Affine], f: Network, g: Network) -> str | None:
    """Where the replayed network is not g, if it is not."""
    if f.head != g.head:
        return f"target: its output head is {g.head or 'none'}, the source has {f.head or 'none'}"
    if len(layers) != g.depth:
        return f"target: it has {g.depth} layers, the source {len(layers)}"
    for k, (mine, given) in enumerate(zip(layers, affine_layers(g), strict=True)):
        if mine.activation != given.activation:
            return f"target: layer {k} has {given.activation.label}, the source {mine.activation.label}"
        if mine.weight.shape != given.weight.shape:
            return f"target: layer {k} has shape {given.weight.shape}, the moves lead to {mine.weight.shape}"
        for name, a, b in (("weights", mine.weight, given.weight), ("biases", mine.bias, given.bias)):
            if not a.same_as(b):
                return f"target: the {name} of layer {k} are not those the moves lead to"
    return None


def _above_bound(state: State, bound: Mapping[str, float] | None) -> str | None:
    """Why the claimed bound does not follow, if it does not: intervals first, then the tighter method."""
    if not state.approximations:
        return None
    if bound is None:
        return "bound: none is claimed, but weights were changed by an approximate move"
    constant = slope = 0.0
    for method in METHODS:
        pairs = [difference(old, new, state.low, state.high, method) for old, new in state.approximations]
        constant, slope = (_sum([pair[k] for pair in pairs]) for k in (0, 1))
        if constant <= bound["constant"] and slope <= bound["slope"]:
            return None
    return (
        f"bound: {constant:.6g} + {slope:.6g} |x|_inf follows, "
        f"but {bound['constant']:.6g} + {bound['slope']:.6g} |x|_inf is claimed"
    )


def _sum(terms: list[float]) -> float:
    """Sum of terms >= 0, rounded up; exact for one term."""
    total = terms[0]
    for term in terms[1:]:
        if term:
            total = math.nextafter(total + term, math.inf) if total else term
    return total
