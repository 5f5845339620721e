"""Normal forms: one parameter for every function where that is proved, one for each sound class elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_exact, require_finite
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.fibers.chain import Chain
from fiberscope.fibers.search import keys_of, normalised
from fiberscope.network import Network, require_network
from fiberscope.results import Assumption, Result, jsonable
from fiberscope.symmetries.automorphisms import Automorphisms, twin_automorphisms

ExactArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class NormalForm(Result):
    """V s(U y + c) + skip y + d over normalised layers: equal for equal functions where `unique` says so.

    Rows are primitive integer vectors (scaled by positive numbers where the activation allows), neurons are in
    lexicographic order of (w, b), no two are proportional, none is unread; neurons of the last hidden layer that are
    linear on the domain sit in `skip` and `d`, and the others point so that their first nonzero weight is positive.

    Args:
        network: the network given.
        weights, biases: exact arrays of every affine layer; a layer may be empty.
        activations: one for each affine layer.
        skip: (n_out, n) linear part past the last hidden layer, None for zero.
        head: output head; with one, the logits are those relative to the first, under argmax up to a positive factor.
        domain: where the function is kept.
        moves: how the network becomes this form, as in a certificate.
        full: whether all moves were tried (else never unique).
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "weights", "biases", "activations", "skip", "moves"})

    network: Network
    weights: tuple[ExactArray, ...]
    biases: tuple[ExactArray, ...]
    activations: tuple[Activation, ...]
    skip: ExactArray | None
    head: str | None
    domain: Box
    moves: tuple[dict[str, Any], ...] = field(repr=False)
    full: bool = True

    @cached_property
    def _uniqueness(self) -> tuple[str, tuple[Assumption, ...]]:
        from fiberscope.fibers.uniqueness import hypotheses_of

        return hypotheses_of(self.chain)

    @property
    def theorem(self) -> str:
        """Key of the theorem that could make the form unique, "" if none applies."""
        return self._uniqueness[0]

    @property
    def hypotheses(self) -> tuple[Assumption, ...]:
        """The theorem's hypotheses, each with what code found; computed on first use."""
        return self._uniqueness[1]

    @property
    def unique(self) -> bool:
        """Whether it is proved that equal functions have equal forms (among networks that meet the hypotheses)."""
        return self.full and bool(self.theorem) and all(h.holds for h in self.hypotheses)

    @property
    def chain(self) -> Chain:
        """The form as a chain that may be moved further."""
        return Chain(list(self.weights), list(self.biases), list(self.activations), self.domain, self.head, self.skip)

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_0, ..., n_L) of the form."""
        return (self.weights[0].shape[1], *(len(b) for b in self.biases))

    @property
    def theorems(self) -> tuple[str, ...]:
        """What it rests on; the theorem of uniqueness only where its hypotheses hold."""
        return ("permutation-scaling", "canonical-form", *((self.theorem,) if self.unique else ()))

    @cached_property
    def digest(self) -> str:
        """sha256 of the form: exact weights, activations of non-empty layers, head."""
        state = hashlib.sha256(b"fiberscope normal form 1\n")
        state.update(json.dumps(self.head).encode())
        for weight, bias, row in zip(self.weights, self.biases, self.activations, strict=True):
            spec = row.spec if len(bias) else None
            state.update(json.dumps([spec, weight.shape], sort_keys=True).encode())
            state.update(rationals.canonical_bytes(weight) + rationals.canonical_bytes(bias))
        if self.skip is not None:
            state.update(b"skip" + rationals.canonical_bytes(self.skip))
        if not self.domain.is_everything:
            state.update(json.dumps([(self.domain.lower + 0.0).tolist(), (self.domain.upper + 0.0).tolist()]).encode())
        return state.hexdigest()

    @property
    def fingerprint(self) -> str:
        """`fs1:<sha256>` where the form is proved unique, `fs1s:<sha256>` where it is only sound."""
        return f"{'fs1' if self.unique else 'fs1s'}:{self.digest}"

    def as_network(self) -> Network | None:
        """The form as a chain, None if it has a linear part or an empty layer."""
        if self.skip is not None or min(self.widths) == 0:
            return None
        return Network.from_arrays(
            *zip(self.weights, self.biases, strict=True), activation=self.activations, head=self.head
        )

    def keys(self, layer: int) -> list[Any]:
        """Hashable (w, b) of every neuron of a layer, equal exactly when the rationals are."""
        return keys_of(self.weights[layer], self.biases[layer])

    def same_as(self, other: NormalForm) -> bool:
        """Whether two forms are equal, weight by weight.

        Raises:
            InputError: if the other is no `NormalForm`.
        """
        if not isinstance(other, NormalForm):
            raise InputError(f"a normal form is compared with a {type(other).__name__}; give canonical(net)")
        return self.digest == other.digest

    def exact(self, x: Sequence[Fraction | int | float]) -> tuple[Fraction, ...]:
        """Value at a rational point; of a form with a head, logits relative to the first (argmax: up to a factor > 0).

        Raises:
            InputError: if x is no vector of as many finite numbers as there are inputs.
        """
        given = as_exact(x, "input")
        if given.shape != (self.widths[0],):
            raise InputError(f"input has shape {given.shape}; expected ({self.widths[0]},)")
        require_finite(given, "input")
        below = y = rationals.fractions(given)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = rationals.fractions(weight) @ y + rationals.fractions(bias) if len(y) else rationals.fractions(bias)
            if k == len(self.weights) - 1 and self.skip is not None:
                z = z + rationals.fractions(self.skip) @ below
            below, y = y, np.array([self.activations[k].value(q) for q in z], dtype=object)
        return tuple(y)

    @property
    def automorphisms(self) -> Automorphisms:
        """The relabelings of hidden neurons that keep the given parameter (not the form: there it is alone)."""
        return twin_automorphisms(self.network)

    def summary(self) -> dict[str, Any]:
        """JSON-ready data without the weights and moves."""
        out = super().to_dict()
        del out["full"]
        out["unique"], out["theorem"] = self.unique, self.theorem
        out["hypotheses"] = jsonable(self.hypotheses)
        out["fingerprint"] = self.fingerprint
        out["widths"] = list(self.widths)
        out["activations"] = [row.label for row in self.activations]
        counts: dict[str, int] = {}
        for step in self.moves:
            counts[step["move"]] = counts.get(step["move"], 0) + 1
        out["move_counts"] = counts
        out["linear_part"] = self.skip is not None
        out["automorphisms"] = jsonable(self.automorphisms)
        out["theorems"] = list(self.theorems)
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; weights as "p/q" strings."""
        out = self.summary()
        out["layers"] = [
            {"weight": rationals.texts(w), "bias": rationals.texts(b)}
            for w, b in zip(self.weights, self.biases, strict=True)
        ]
        out["skip"] = None if self.skip is None else rationals.texts(self.skip)
        out["moves"] = list(self.moves)
        return out

    def __str__(self) -> str:
        """One screen: what the form is, what was done, whether it is unique."""
        before, after = ("-".join(map(str, w)) for w in (self.network.widths, self.widths))
        lines = [f"normal form of {self.network.architecture}: {before} -> {after}" + (
            "" if self.skip is None else " with a linear part")]  # fmt: skip
        counts: dict[str, int] = {}
        for step in self.moves:
            counts[step["move"]] = counts.get(step["move"], 0) + len(step.get("neurons", step.get("pairs", [0])))
        lines.append("moves: " + (", ".join(f"{name} {n}" for name, n in counts.items()) or "none"))
        if self.unique:
            lines.append("unique: equal functions have equal forms (theorem " + self.theorem + ")")
        else:
            failing = [h.statement for h in self.hypotheses if h.checked and not h.holds]
            lines.append("sound: equal forms prove equal functions; different forms prove nothing")
            lines += [f"  not met: {text}" for text in failing]
        lines.append(f"fingerprint: {self.fingerprint}")
        return "\n".join(lines)


def canonical(net: Network, domain: Box | str | None = None, *, linear_part: bool = True) -> NormalForm:
    """The exact normal form of a network, with the moves that lead to it.

    Dead, constant, unread and proportional neurons go; rows are scaled to primitive integers; in the last hidden layer
    always-linear neurons become a linear part and the others are turned to one side; a first-layer kink that the
    second layer hides is shifted to the boundary; second-layer neurons that read one neuron only are unrolled; neurons
    are sorted. Equal forms prove equal functions. The converse is a theorem for two-layer piecewise-linear networks on
    any box with interior, for two-layer tanh and sigmoid networks, and for bottleneck three-layer ReLU networks in
    general position (hypotheses checked one by one).

    Args:
        net: any chain.
        domain: inputs on which functions are compared; default all of R^n.
        linear_part: False leaves out the moves that need a linear part: a cheaper form, sound but never unique.

    Raises:
        InputError: if net is no `Network`, or the domain does not fit.

    Complexity: O(parameters) operations, vectorised in floats as long as every number is a float64, plus one exact
    product for the linear part and the rank of W_1 modulo a prime.
    Source: arXiv 2605.18319, sections on canonical forms; docs/theory/fibers.

    >>> f = Network.from_arrays(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0], [1.0]], [-1.0, 0.0]), ([[1.0, 6.0]], [0.0]))
    >>> h = Network.from_arrays(([[1.0], [-1.0]], [-1.0, 0.0]), ([[1.0, 6.0]], [0.0]))
    >>> canonical(f).same_as(canonical(g)), canonical(g).same_as(canonical(h))
    (False, False)
    >>> print(canonical(Network.from_arrays(([[1.0], [-1.0]], [0, 0]), ([[1.0, -1.0]], [0]))).widths)
    (1, 1)
    """
    require_network(net)
    return _form(net, normalised(net, domain, linear_part=linear_part), linear_part)


def _form(net: Network, chain: Chain, full: bool) -> NormalForm:
    return NormalForm(
        net, tuple(chain.weights), tuple(chain.biases), tuple(chain.activations), chain.skip, chain.head,
        chain.domain, tuple(chain.steps), full,
    )  # fmt: skip


def fingerprint(net: Network, domain: Box | str | None = None) -> str:
    """A name for the function: `fs1:<sha256>` of the unique normal form, or `fs1s:<sha256>` of a sound one.

    Two `fs1:` strings are equal exactly if the functions are. Two equal `fs1s:` strings prove equality too, but
    different ones prove nothing. Stable across machines, file formats and float dtypes (a float32 is the rational
    that it is).

    Args:
        net: any chain.
        domain: inputs on which functions are compared; default all of R^n. Strings of one domain are compared.

    Raises:
        InputError: if net is no `Network`, or the domain does not fit.

    Complexity: as `canonical`. Source: arXiv 2605.18319.

    >>> f = Network.from_arrays(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[-2.0], [1.0]], [2.0, 0.0]), ([[0.5, 6.0]], [0.0]))
    >>> fingerprint(f) == fingerprint(g), fingerprint(f)[:4]
    (True, 'fs1:')
    """
    return canonical(net, domain).fingerprint
