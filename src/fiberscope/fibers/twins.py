"""Automorphisms of a parameter: relabelings of hidden neurons that keep it, as far as twins generate them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import factorial
from typing import Any

from fiberscope import rationals
from fiberscope.network import Network
from fiberscope.neurons import colour_classes, proportional_rows
from fiberscope.results import Result


@dataclass(frozen=True)
class Automorphisms(Result):
    """Relabelings of hidden neurons, with scalings, that keep the parameter.

    Args:
        order: number of them that were found.
        swaps: (layer, neurons) of each class of interchangeable neurons: twins with proportional in- and outputs.
        exact: whether there are no others (else `order` divides the full number).
    """

    order: int
    swaps: tuple[tuple[int, tuple[int, ...]], ...]
    exact: bool


def automorphisms(net: Network) -> Automorphisms:
    """The group of relabelings of hidden neurons (with scalings) that keep theta, as far as twins generate it.

    Every such relabeling keeps the coarsest equitable partition, so where its classes are classes of twins the group is
    the product of their symmetric groups (EXACT); otherwise that product is a subgroup. O(parameters).

    >>> net = Network.from_arrays(([[1.0], [1.0], [2.0]], [0, 0, 1]), ([[5.0, 5.0, 1.0]], [0]))
    >>> automorphisms(net).order
    2
    """
    order, swaps, exact = 1, [], True
    for k, coarse in enumerate(colour_classes(net)):
        alike = proportional_rows(net.layers[k])
        columns = rationals.fractions(net.layers[k + 1].weight)
        for members in coarse.members:
            groups: dict[Any, list[int]] = {}
            for i in members:
                label = int(alike.labels[i])
                unit = Fraction(alike.factors[i]) if label >= 0 else Fraction(1)
                groups.setdefault((label, tuple(columns[:, i] * abs(unit))), []).append(i)
            exact &= len(groups) == 1
            for twins in groups.values():
                if len(twins) > 1:
                    order *= factorial(len(twins))
                    swaps.append((k, tuple(twins)))
        exact &= len(coarse.null) <= 1
    return Automorphisms(order, tuple(swaps), exact)
