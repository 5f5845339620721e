"""Slow, obviously right versions of what the library computes fast."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from fiberscope.network import Network


def hdf5_answer(task, data, texts, tensors):
    """What the child process of `keras_hdf5.ask` says, without starting one: for files of which no harm is feared."""
    from fiberscope.io import keras_hdf5

    return keras_hdf5._answer({"task": task, **texts}, {"file": np.frombuffer(data, np.uint8), **tensors})


def rational_rows(array):
    """An array as nested lists of Fractions."""
    if np.ndim(array) == 1:
        return [Fraction(v) if isinstance(v, Fraction) else Fraction(float(v)) for v in array]
    return [rational_rows(row) for row in array]


def equal_rows_oracle(rows, *, sign, scale):
    """Partition of rows into multiples by comparing every pair; zero rows form one class."""
    classes: list[list[int]] = []
    for i, row in enumerate(rows):
        for members in classes:
            if is_multiple(row, rows[members[0]], sign=sign, scale=scale) is not None:
                members.append(i)
                break
        else:
            classes.append([i])
    return classes


def is_multiple(row, other, *, sign, scale):
    """e with row = e other that the rule allows, or None."""
    lead = next((k for k, v in enumerate(other) if v), None)
    if lead is None:
        return Fraction(1) if not any(row) else None
    e = row[lead] / other[lead]
    allowed = e == 1 or (sign and e == -1) or (scale and e > 0) or (sign and scale and e != 0)
    return e if allowed and all(a == e * b for a, b in zip(row, other, strict=True)) else None


def coarsest_equitable(net: Network, *, signed: bool):
    """Colour refinement over Q; for odd activations on the double cover (i, +-) with W -> [[W, -W], [-W, W]] / 2.

    Returns, per hidden layer, a set of frozensets of neurons (signs forgotten) and the set of null neurons.
    """
    weights = [rational_rows(layer.weight) for layer in net.layers]
    biases = [rational_rows(layer.bias) for layer in net.layers]
    signs = (1, -1) if signed else (1,)
    nodes = [[(k, i, s) for i in range(n) for s in signs] for k, n in enumerate(net.widths)]
    colour = {}
    for k, layer in enumerate(nodes):
        for node in layer:
            visible = k in (0, net.depth)
            colour[node] = (k, node[1], node[2]) if visible else (k,)

    def weight(k, i, s, j, t):
        return Fraction(s * t, len(signs)) * weights[k][i][j]

    while True:
        new = {}
        for k, layer in enumerate(nodes):
            for node in layer:
                _, i, s = node
                if k in (0, net.depth):
                    new[node] = colour[node]
                    continue
                below, above = {}, {}
                for lower in nodes[k - 1]:
                    key = colour[lower]
                    below[key] = below.get(key, 0) + weight(k - 1, i, s, lower[1], lower[2])
                for upper in nodes[k + 1]:
                    key = colour[upper]
                    above[key] = above.get(key, 0) + weight(k, upper[1], upper[2], i, s)
                new[node] = (
                    colour[node], s * biases[k - 1][i],
                    tuple(sorted(below.items(), key=repr)), tuple(sorted(above.items(), key=repr)),
                )  # fmt: skip
        names = {value: k for k, value in enumerate(sorted(set(new.values()), key=repr))}
        new = {node: (node[0], names[value]) for node, value in new.items()}
        if len(set(new.values())) == len(set(colour.values())):
            break
        colour = new
    out = []
    for k in range(1, net.depth):
        null = {i for _, i, s in nodes[k] if signed and new[k, i, 1] == new[k, i, -1]}
        groups = {}
        for i in range(net.widths[k]):
            if i not in null:
                key = frozenset(new[k, i, s] for s in signs)
                groups.setdefault(key, set()).add(i)
        out.append(({frozenset(g) for g in groups.values()}, null))
    return out


def gradient(net: Network, x, cotangent, derivative):
    """d<c, F>/dtheta at one input by plain backpropagation, as a list of (dW, db)."""
    h, zs, hs = np.asarray(x, float), [], [np.asarray(x, float)]
    for layer in net.layers:
        z = layer.weight64 @ h + layer.bias64
        h = layer.activation(z)
        zs.append(z)
        hs.append(h)
    delta, out = np.asarray(cotangent, float), []
    for k in reversed(range(net.depth)):
        out.append((np.outer(delta, hs[k]), delta))
        if k:
            delta = (net.layers[k].weight64.T @ delta) * derivative(net.layers[k - 1].activation, zs[k - 1])
    return out[::-1]


def set_partitions(items):
    """All partitions of a list."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for smaller in set_partitions(rest):
        for k, block in enumerate(smaller):
            yield [*smaller[:k], [first, *block], *smaller[k + 1 :]]
        yield [[first], *smaller]


def signed_partitions(m):
    """All (zero block, partition with relative signs) of m neurons: the type-B intersection lattice."""
    for zero_mask in itertools.product([0, 1], repeat=m):
        live = [i for i in range(m) if not zero_mask[i]]
        for partition in set_partitions(live):
            choices = [itertools.product([1, -1], repeat=len(block) - 1) for block in partition]
            for signs in itertools.product(*choices):
                yield [i for i in range(m) if zero_mask[i]], partition, signs
