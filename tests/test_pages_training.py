"""The pages of orbits, manifolds and laws: each result has its own parts and no others."""

from __future__ import annotations

import re
from typing import Any

import pytest

import fiberscope as fs
from fiberscope.results import Result
from pagetools import sound

TWINS = [[1.0, 2.0], [1.0, 2.0], [3.0, -1.0]]


def network(name: str) -> fs.Network:
    return fs.Network.from_arrays((TWINS, [0.5, 0.5, 1.0]), ([[1.0, 1.0, 2.0]], [0.0]), activation=name)


RESULTS = {
    "orbit": (
        lambda: fs.orbit(network("tanh")),
        ["The orbit of these parameters", "Methods that check each other", "Skipped, assumed, not said"],
    ),
    "conserved": (
        lambda: fs.conserved(network("relu")),
        ["Known conservation laws", "At these parameters", "Skipped, assumed, not said"],
    ),
    "sims": (
        lambda: fs.sims((2, 3, 1), "tanh"),
        ["Invariant manifolds of the architecture", "Skipped, assumed, not said"],
    ),
    "smallest-sim": (
        lambda: fs.smallest_sim(network("tanh"), 0.01),
        ["Training: the smallest invariant manifold", "Network and its classes",
         "Levels: how nearly equal neurons are", "Merge tree", "Skipped, assumed, not said"],
    ),
}  # fmt: skip


def headings(page: str) -> list[str]:
    return re.findall(r"<h3[^>]*>([^<]*)</h3>", page)


@pytest.mark.parametrize("kind", RESULTS)
def test_each_result_has_its_own_parts(kind: str) -> None:
    make, expected = RESULTS[kind]
    result: Any = make()
    assert isinstance(result, Result)
    page = fs.report(result)
    assert sorted(headings(page)) == sorted(expected)
    described = {"schema": f"fiberscope/{kind}/1", **result.to_dict()}
    assert sorted(headings(fs.report(described))) == sorted(expected)
    sound(page)


def test_numbers_on_the_page_are_those_of_the_result() -> None:
    found = fs.orbit(network("tanh"))
    page = fs.report(found)
    assert (found.dimension, found.ambient) == (9, 13)
    assert "9 of 13" in page and ">4<" in page  # dimensions that nothing reaches
    laws = fs.conserved(network("relu"))
    shown = fs.report(laws)
    assert laws.count == 3 and "independent laws under gradient flow" in shown
    assert laws.here is not None and f">≤ {laws.here.count}<" in shown  # twins' kinks coincide: found, not proved
