"""One invariant manifold of coincidences: its equations, its projector, and what lies on it, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.invariants.manifolds.counts import ClassRules
from fiberscope.invariants.manifolds.lattice import Profile
from fiberscope.network import Network
from fiberscope.neurons import still_layers

ExactArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

_ZERO, _ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True)
class LayerClasses:
    """How the neurons of one hidden layer coincide.

    Args:
        classes: the classes of live neurons, each in order, by first member.
        signs: of every neuron relative to the first of its class; 1 for null and quiet ones.
        null: neurons whose weights and biases are zero.
        quiet: classes of neurons without incoming weights and with one common outgoing vector.
    """

    classes: tuple[tuple[int, ...], ...]
    signs: tuple[int, ...]
    null: tuple[int, ...] = ()
    quiet: tuple[tuple[int, ...], ...] = ()

    @property
    def profile(self) -> Profile:
        """The sizes, without the names of the neurons."""
        sizes, quiet = (tuple(sorted(map(len, blocks), reverse=True)) for blocks in (self.classes, self.quiet))
        return Profile(sizes, len(self.null), quiet)

    @property
    def alone(self) -> LayerClasses:
        """The same with every quiet neuron in a class of its own."""
        return replace(self, quiet=tuple((i,) for i in sorted(i for block in self.quiet for i in block)))

    @classmethod
    def discrete(cls, width: int) -> LayerClasses:
        """Everyone alone."""
        return cls(tuple((i,) for i in range(width)), (1,) * width)

    @classmethod
    def standard(cls, profile: Profile) -> LayerClasses:
        """The manifold of a type that takes the neurons in order: classes, quiet classes, null neurons."""
        blocks, start = [], 0
        for size in (*profile.sizes, *profile.quiet):
            blocks.append(tuple(range(start, start + size)))
            start += size
        live = len(profile.sizes)
        null = tuple(range(start, start + profile.null))
        return cls(tuple(blocks[:live]), (1,) * (start + profile.null), null, tuple(blocks[live:]))


def layer_members(width: int, rules: ClassRules) -> Iterator[LayerClasses]:
    """All ways in which `width` labelled neurons coincide, each once: the last neuron joins or opens a class.

    >>> sum(1 for _ in layer_members(3, ClassRules(signs=True, null=True)))
    24
    """
    if width == 0:
        yield LayerClasses((), ())
        return
    new = width - 1
    for old in layer_members(new, rules):
        yield replace(old, classes=(*old.classes, (new,)), signs=(*old.signs, 1))
        for k, block in enumerate(old.classes):
            joined = (*old.classes[:k], (*block, new), *old.classes[k + 1 :])
            for sign in (1, -1) if rules.signs else (1,):
                yield replace(old, classes=joined, signs=(*old.signs, sign))
        if rules.null:
            yield replace(old, null=(*old.null, new), signs=(*old.signs, 1))
        if rules.quiet:
            yield replace(old, quiet=(*old.quiet, (new,)), signs=(*old.signs, 1))
            for k, block in enumerate(old.quiet):
                joined = (*old.quiet[:k], (*block, new), *old.quiet[k + 1 :])
                yield replace(old, quiet=joined, signs=(*old.signs, 1))


def covered_layers(layer: LayerClasses, rules: ClassRules) -> Iterator[LayerClasses]:
    """The largest coincidences strictly inside: two classes merge with either sign, or one becomes null or quiet.

    >>> len(list(covered_layers(LayerClasses.discrete(2), ClassRules(signs=True, null=True))))
    4
    """
    for k, block in enumerate(layer.classes):
        rest = (*layer.classes[:k], *layer.classes[k + 1 :])
        plain = tuple(1 if i in block else s for i, s in enumerate(layer.signs))
        if rules.null:
            yield replace(layer, classes=rest, signs=plain, null=tuple(sorted((*layer.null, *block))))
        if rules.quiet:
            yield replace(layer, classes=rest, signs=plain, quiet=tuple(sorted((*layer.quiet, block))))
        for other in layer.classes[k + 1 :]:
            merged = tuple(sorted([*(c for c in rest if c != other), tuple(sorted((*block, *other)))]))
            for sign in (1, -1) if rules.signs else (1,):
                signs = tuple(sign * s if i in other else s for i, s in enumerate(layer.signs))
                yield replace(layer, classes=merged, signs=signs)
    for k, block in enumerate(layer.quiet):
        for other in layer.quiet[k + 1 :]:
            rest = tuple(c for c in layer.quiet if c not in (block, other))
            yield replace(layer, quiet=tuple(sorted((*rest, tuple(sorted((*block, *other)))))))


@dataclass(frozen=True)
class Side:
    """Integer bases of the range of a projector and of its kernel, as rows; each range vector has entries 0, +-1."""

    range_: IntArray
    kernel: IntArray

    @cached_property
    def projector(self) -> ExactArray:
        """The exact projector P, (n, n): the range vectors have disjoint supports."""
        n = self.range_.shape[1]
        out = np.full((n, n), _ZERO, dtype=object)
        for row in self.range_:
            live = np.flatnonzero(row)
            for i in live:
                for j in live:
                    out[i, j] = Fraction(int(row[i] * row[j]), len(live))
        return out


def _side(width: int, blocks: Sequence[tuple[int, ...]], signs: Sequence[int]) -> Side:
    range_ = np.zeros((len(blocks), width), dtype=np.int64)
    kernel, used = [], set[int]()
    for k, block in enumerate(blocks):
        first, *others = block
        used.update(block)
        range_[k, list(block)] = [signs[i] for i in block]
        for i in others:
            row = np.zeros(width, dtype=np.int64)
            row[i], row[first] = signs[i], -signs[first]
            kernel.append(row)
    for i in sorted(set(range(width)) - used):
        kernel.append(np.eye(width, dtype=np.int64)[i])
    return Side(range_, np.array(kernel, dtype=np.int64).reshape(len(kernel), width))


@dataclass(frozen=True)
class Manifold:
    """A linear invariant manifold {W_l = P_l W_l P'_(l-1), b_l in range P_l}, by the classes of every hidden layer.

    P_l averages over the classes with their signs; P' is the same on the outgoing side, where even activations forget
    the signs and quiet neurons are classes. In two-layer networks it equals {W_l P'_(l-1) = P_l W_l}, the equitable
    manifold; in deep ones that is larger (`equitable`), and this one is its condensed leaf. theta is `Network.theta`,
    with or without the biases that the architecture does not have.

    Args:
        widths: (n_0, ..., n_L).
        layers: the classes of each hidden layer.
        rules: what the activation lets neurons have in common.
        bias: whether hidden layers have biases.
        output_bias: whether the last layer has biases.
        condensed: False for the larger equitable manifold.

    >>> pair = LayerClasses(classes=((0, 1),), signs=(1, -1))
    >>> m = Manifold((1, 2, 1), (pair,), ClassRules(signs=True, null=True), bias=True, output_bias=False)
    >>> m.dimension, m.contains([1.0, -1.0, 0.5, -0.5, 3.0, -3.0]), m.equations()[0]
    (3, True, 'W1[0] = -W1[1]')
    """

    widths: tuple[int, ...]
    layers: tuple[LayerClasses, ...]
    rules: ClassRules
    bias: bool = True
    output_bias: bool = True
    condensed: bool = True

    # ---- sides of the matrices

    @cached_property
    def _inner(self) -> tuple[Side, ...]:
        """For each of the n_0, ..., n_L: the side that reads it, incoming rows."""
        middle = [_side(n, c.classes, c.signs) for n, c in zip(self.widths[1:-1], self.layers, strict=True)]
        return (_identity(self.widths[0]), *middle, _identity(self.widths[-1]))

    @cached_property
    def _outer(self) -> tuple[Side, ...]:
        """The side of the outgoing columns."""
        middle = []
        for n, c in zip(self.widths[1:-1], self.layers, strict=True):
            signs = (1,) * n if self.rules.even else c.signs
            middle.append(_side(n, (*c.classes, *c.quiet), signs))
        return (_identity(self.widths[0]), *middle, _identity(self.widths[-1]))

    @property
    def _biases(self) -> tuple[bool, ...]:
        return (*([self.bias] * (len(self.widths) - 2)), self.output_bias)

    # ---- numbers

    @property
    def ambient(self) -> int:
        """Number of parameters that the architecture has, M."""
        pairs = zip(self.widths, self.widths[1:], self._biases, strict=False)
        return sum(n * m + (m if has else 0) for n, m, has in pairs)

    @property
    def dimension(self) -> int:
        """Its dimension: sum_l k_l k'_(l-1) + biases, plus (n_l - k_l)(n_(l-1) - k'_(l-1)) if it is not condensed."""
        total = 0
        for k, has in enumerate(self._biases):
            rows, columns = self._inner[k + 1], self._outer[k]
            total += len(rows.range_) * (len(columns.range_) + has)
            if not self.condensed:
                total += len(rows.kernel) * len(columns.kernel)
        return total

    @property
    def codimension(self) -> int:
        """Ambient - dimension."""
        return self.ambient - self.dimension

    @property
    def leaf_dimension(self) -> int:
        """Parameters that move: those of the reduced network above its last layer without a class (`still_layers`).

        Quiet neurons move like one more bias, or not at all.
        """
        total, still = 0, still_layers([len(c.classes) for c in self.layers])
        for k, has in enumerate(self._biases):
            if k < still:
                continue
            below = self.layers[k - 1] if k else None
            inputs = self.widths[0] if below is None else len(below.classes)
            extra = has or (below is not None and bool(below.quiet) and self.rules.constant)
            total += len(self._inner[k + 1].range_) * (inputs + extra)
        return total

    @property
    def reduced_widths(self) -> tuple[int, ...]:
        """Widths of the network that training on it behaves like."""
        return (self.widths[0], *(len(c.classes) for c in self.layers), self.widths[-1])

    @property
    def equitable(self) -> Manifold:
        """The manifold {W_l P'_(l-1) = P_l W_l} around this one; the same set in two-layer networks."""
        return replace(self, condensed=False)

    # ---- parameters

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that exist, in the order of theta: W1[0,0], ..., b1[0], ..."""
        return tuple(name for name, there in _all_names(self.widths, self._biases) if there)

    @cached_property
    def _there(self) -> npt.NDArray[np.bool_]:
        return np.array([there for _, there in _all_names(self.widths, self._biases)])

    def _blocks(self) -> Iterator[tuple[int, Side, Side]]:
        """(start in the parameters that exist, rows, columns) of every matrix, and of every bias as one column."""
        at = 0
        for k, has in enumerate(self._biases):
            rows, columns = self._inner[k + 1], self._outer[k]
            yield at, rows, columns
            at += rows.range_.shape[1] * columns.range_.shape[1]
            if has:
                yield at, rows, _identity(1)
                at += rows.range_.shape[1]

    def matrix(self) -> IntArray:
        """An integer matrix A, (codimension, M), of independent rows with entries 0, +-1: the set is {A theta = 0}.

        Complexity: O(codimension M).
        """
        out = np.zeros((self.codimension, self.ambient), dtype=np.int64)
        row = 0
        for at, left, right in self._blocks():
            pairs = [(left.kernel, right.range_), (left.range_, right.kernel)]
            pairs += [(left.kernel, right.kernel)] if self.condensed else []
            for a, b in pairs:
                part = np.kron(a, b)
                out[row : row + len(part), at : at + part.shape[1]] = part
                row += len(part)
        return out

    def projector(self) -> ExactArray:
        """The exact orthogonal projector onto the manifold, (M, M) of Fractions. O(M^2)."""
        out = np.full((self.ambient, self.ambient), _ZERO, dtype=object)
        for at, left, right in self._blocks():
            p, q = left.projector, right.projector
            part = np.kron(p, q)
            if not self.condensed:
                part = part + np.kron(_complement(p), _complement(q))
            out[at : at + len(part), at : at + len(part)] = part
        return out

    def project(self, theta: npt.ArrayLike | Network) -> Any:
        """The nearest point of the manifold, exactly: W -> P W P' (and the other corner if it is not condensed).

        Args:
            theta: a `Network` of these widths, or its theta, (M,), with or without the biases that do not exist.

        Returns:
            A `Network` for a network, else an exact array of the shape that was given.

        Raises:
            InputError: if the shape does not fit.
        """
        if isinstance(theta, Network):
            if theta.widths != self.widths:
                raise InputError(f"a network of widths {theta.widths}; the manifold is one of widths {self.widths}")
            return theta.with_theta(self.project(theta.theta))
        vector, full = self._vector(theta)
        out = np.full(self.ambient, _ZERO, dtype=object)
        for at, left, right in self._blocks():
            shape = left.range_.shape[1], right.range_.shape[1]
            size = shape[0] * shape[1]
            w = vector[at : at + size].reshape(shape)
            p, q = left.projector, right.projector
            new = p @ w @ q
            if not self.condensed:
                new = new + _complement(p) @ w @ _complement(q)
            out[at : at + size] = new.reshape(-1)
        if full:
            wide = np.full(self._there.size, _ZERO, dtype=object)
            wide[self._there] = out
            out = wide
        return rationals.simplified(out)

    def contains(self, theta: npt.ArrayLike | Network) -> bool:
        """Whether theta lies on the manifold, exactly; biases that do not exist must be zero.

        Raises:
            InputError: if the shape does not fit.
        """
        values = theta.theta if isinstance(theta, Network) else theta
        return rationals.equal(rationals.exact_array(values), self.project(values))

    def _vector(self, theta: npt.ArrayLike) -> tuple[ExactArray, bool]:
        vector = rationals.fractions(rationals.exact_array(theta))
        if vector.shape == (self._there.size,):
            return vector[self._there], not self._there.all()
        if vector.shape != (self.ambient,):
            raise InputError(f"theta has shape {vector.shape}; the architecture has {self.ambient} parameters")
        return vector, False

    # ---- words

    def equations(self) -> tuple[str, ...]:
        """The equations as lines: W1[0] = -W1[1] for rows, W2[:,0] = -W2[:,1] for columns.

        In deep equitable manifolds: which blocks have equal row sums and equal column sums. Lines that follow from
        others (a class in both layers) are kept where they read better; `matrix` has independent ones.
        """
        out: list[str] = []
        for k, layer in enumerate(self.layers, start=1):
            single = self.condensed or (len(self.widths) == 3)
            for block in layer.classes:
                if len(block) > 1:
                    out += self._class_lines(k, block, layer.signs, single)
            silent = [*layer.null, *(i for block in layer.quiet for i in block)]
            if silent:
                out += self._silent_lines(k, layer, silent, single)
        return tuple(out)

    def _class_lines(self, k: int, block: tuple[int, ...], signs: tuple[int, ...], single: bool) -> list[str]:
        chain = [("" if signs[i] > 0 else "-", i) for i in block]
        outgoing = [("", i) for _, i in chain] if self.rules.even else chain
        lines = []
        if single or k == 1:
            lines.append(" = ".join(f"{s}W{k}[{i}]" for s, i in chain))
        else:
            lines.append(" = ".join(f"{s}W{k}[{i}] P" for s, i in chain) + f" (class averages of layer {k - 1})")
        if self.bias:
            lines.append(" = ".join(f"{s}b{k}[{i}]" for s, i in chain))
        if single or k == len(self.layers):
            lines.append(" = ".join(f"{s}W{k + 1}[:,{i}]" for s, i in outgoing))
        else:
            lines.append(" = ".join(f"{s}P W{k + 1}[:,{i}]" for s, i in outgoing) + f" (averages of layer {k + 1})")
        return lines

    def _silent_lines(self, k: int, layer: LayerClasses, silent: Sequence[int], single: bool) -> list[str]:
        mark = "" if single or k == 1 else " P"
        lines = [" = ".join(f"W{k}[{i}]{mark}" for i in silent) + " = 0"]
        if self.bias:
            lines.append(" = ".join(f"b{k}[{i}]" for i in silent) + " = 0")
        mark = "" if single or k == len(self.layers) else "P "
        if layer.null:
            lines.append(" = ".join(f"{mark}W{k + 1}[:,{i}]" for i in layer.null) + " = 0")
        lines += [
            " = ".join(f"{mark}W{k + 1}[:,{i}]" for i in block)
            for block in layer.quiet if len(block) > 1
        ]  # fmt: skip
        return lines

    def __str__(self) -> str:
        """One line and the equations."""
        shown = " | ".join(c.profile.name for c in self.layers)
        head = f"invariant manifold {shown}: dimension {self.dimension} of {self.ambient}"
        return "\n".join([head, *(f"  {line}" for line in self.equations())])


def _identity(n: int) -> Side:
    return Side(np.eye(n, dtype=np.int64), np.zeros((0, n), dtype=np.int64))


def _complement(p: ExactArray) -> ExactArray:
    out = -p
    for i in range(len(p)):
        out[i, i] = _ONE + out[i, i]
    return out


def _all_names(widths: Sequence[int], biases: Sequence[bool]) -> Iterator[tuple[str, bool]]:
    for k, (n, m, has) in enumerate(zip(widths, widths[1:], biases, strict=False), start=1):
        for i in range(m):
            for j in range(n):
                yield f"W{k}[{i},{j}]", True
        for i in range(m):
            yield f"b{k}[{i}]", has
