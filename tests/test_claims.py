"""The table of claims holds at run time: who cites a theorem, who must not, and which tests stand behind it."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.errors import FiberscopeError
from fiberscope.invariants import orbit, smallest_sim
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.manifolds.lattice import two_layer_lattice
from fiberscope.meanfield.symmetry.groups import antipodal
from fiberscope.meanfield.symmetry.invariance import check_invariance
from fiberscope.network import Network
from fiberscope.symmetries import laws
from fiberscope.theorems import THEOREMS
from gallery import EXAMPLES, ODD, PAIR, Example, assumptions, cited, parts, resolve
from gallery_limits import ELSEWHERE, LIMITS

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = tomllib.loads((ROOT / "docs" / "theory" / "claims.toml").read_text(encoding="utf-8"))
SHOWN = [(key, example) for key, examples in EXAMPLES.items() for example in examples]
BROKEN = [
    (key, hypothesis, example)
    for key, examples in LIMITS.items()
    for hypothesis, example in zip(THEOREMS[key].hypotheses, examples, strict=True)
    if isinstance(example, Example)
]


@functools.cache
def outcome(key: str, place: int) -> Any:
    return EXAMPLES[key][place].run()


def test_every_theorem_has_examples_and_every_hypothesis_a_limit() -> None:
    assert set(EXAMPLES) == set(LIMITS) == set(THEOREMS)
    assert {key: len(rows) for key, rows in LIMITS.items()} == {k: len(row.hypotheses) for k, row in THEOREMS.items()}


@pytest.mark.parametrize("key", EXAMPLES)
def test_the_functions_of_a_claim_are_called_and_cite_it(key: str) -> None:
    found = {example.function: outcome(key, place) for place, example in enumerate(EXAMPLES[key])}
    named = set(CLAIMS[key]["functions"])
    assert named <= set(found), "a function of the claim is missing in the gallery"
    silent = {name for name, result in found.items() if key not in cited(result)}
    assert not any(cited(found[name]) for name in silent), f"{silent} cite other theorems only"
    assert named - silent, "no function of the claim cites it"


@pytest.mark.parametrize("key", EXAMPLES)
def test_hypotheses_hold_where_a_theorem_is_cited(key: str) -> None:
    for place, example in enumerate(EXAMPLES[key]):
        result = outcome(key, place)
        failing = [a.statement for a in assumptions(result) if a.checked and a.holds is False]
        inspected = [part for part in parts(result) if isinstance(part, fs.Inspection)]
        scope = [row.theorem for part in inspected for row in part.scope if not row.applies]
        assert not set(scope) & cited(result), f"{example.function} cites what it says does not apply"
        if not inspected:  # its scope says which theorem a failing hypothesis belongs to
            assert failing == [], example.function


def test_results_cite_the_whole_table_and_nothing_else() -> None:
    keys = {key for name, rows in EXAMPLES.items() for k in range(len(rows)) for key in cited(outcome(name, k))}
    assert keys == set(THEOREMS)
    assert all(fs.cite(key).startswith("@") for key in keys)


@pytest.mark.parametrize(("key", "hypothesis", "example"), BROKEN, ids=[f"{k}: {h[:40]}" for k, h, _ in BROKEN])
def test_a_theorem_is_not_cited_where_a_hypothesis_fails(key: str, hypothesis: str, example: Example) -> None:
    if example.refused:
        with pytest.raises((FiberscopeError, AttributeError)):
            example.run()
        return
    result = example.run()
    assert key not in cited(result)
    failing = [a.statement for a in assumptions(result) if not (a.checked and a.holds)]
    assert not example.says or any(example.says in statement for statement in failing), failing


@pytest.mark.parametrize(("key", "example"), ELSEWHERE, ids=[f"{k}: {e.function}" for k, e in ELSEWHERE])
def test_more_results_that_must_not_cite_a_theorem(key: str, example: Example) -> None:
    assert key not in cited(example.run())


# ---- statements that no other test looks at


def test_gradients_lie_in_the_tangent_space_of_the_orbit() -> None:
    """Whatever the data and the loss: no gradient leaves the tangent space, and together they nearly span it."""
    found = orbit(PAIR, method="transport")
    basis = found.tangent
    assert basis is not None and found.dimension == smallest_sim(PAIR).dimension == 4 < found.ambient
    rng = np.random.default_rng(0)
    chain, slopes = Chain(PAIR), np.zeros((12, found.ambient))
    for row in slopes:
        data = Batch(rng.standard_normal((1, 1)) * 3, rng.standard_normal((1, 1)))
        row[:] = chain.gradient(np.asarray(PAIR.theta, np.float64), data)[1]
        row /= np.linalg.norm(row)
    assert np.linalg.norm(slopes - slopes @ basis @ basis.T) <= 1e-8
    assert np.linalg.matrix_rank(slopes) >= 3


@pytest.mark.parametrize("name", ["relu", "square", "abs"])
def test_balances_shown_are_the_values_of_the_laws(name: str) -> None:
    net = Network.random((2, 3, 2, 1), activation=name, seed=0)
    shown = {row.layer: row.values for row in fs.inspect(net).balance}
    found = {law.layer: law.value(net.theta) for law in laws(net).entries if law.name == "balance"}
    assert set(shown) == set(found) == {0, 1}
    for k, values in shown.items():
        np.testing.assert_allclose(values, [float(v) for v in found[k]], rtol=1e-12)


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("signs", [False, True])
def test_lattice_dimensions_are_ranks_of_random_points(signs: bool, null: bool) -> None:
    """The points of a type fill a linear space: so many of them span it."""
    width, size, fixed = 4, 3, 2  # neurons (a, w, b) and two output biases
    rng = np.random.default_rng(0)
    for kind in two_layer_lattice(width, size, fixed, signs=signs, null=null).types:
        place = np.repeat(np.arange(len(kind.sizes)), kind.sizes)
        turn = rng.choice([-1, 1], len(place)) if signs else np.ones(len(place))
        points = np.zeros((40, width, size))
        points[:, : len(place)] = rng.standard_normal((40, len(kind.sizes), size))[:, place] * turn[:, None]
        assert len(place) + kind.null == width
        table = np.hstack([points.reshape(40, -1), rng.standard_normal((40, fixed))])
        assert np.linalg.matrix_rank(table) == kind.dimension


def test_the_defect_is_that_of_the_signed_map() -> None:
    """(1, b) and (-1, -b) are exchanged by (a, b) -> (-a, -b), and at distance from their image under (a, -b)."""
    odd, even = (check_invariance(ODD, antipodal(2), sign=sign) for sign in (-1, 1))
    assert odd.invariant and max(odd.measure_defects) == 0.0
    assert not even.invariant and max(even.measure_defects) > 0.1


# ---- the tests behind the claims


FIXTURES = {"shared", "browser", "chromium", "quick_jax", "site"}
"""Fixtures that a bare machine may lack."""


@functools.cache
def definitions(file: str) -> dict[str, ast.AST]:
    """What a test file defines at its top, by name; of modules beside it too."""
    out: dict[str, ast.AST] = {}
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and (ROOT / "tests" / f"{node.module}.py").exists():
            there = definitions(f"tests/{node.module}.py")
            out |= {alias.asname or alias.name: there[alias.name] for alias in node.names if alias.name in there}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            out[node.name] = node
        elif isinstance(node, ast.Assign):
            out |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return out


def words_of(file: str, name: str) -> set[str]:
    """All names, attributes and words of texts in a test and in what it uses of its file, decorators included."""
    known, todo, seen, words = definitions(file), [name], set(), set()
    while todo:
        here = todo.pop()
        if here in seen or here not in known:
            continue
        seen.add(here)
        for node in ast.walk(known[here]):
            found: set[str] = set()
            if isinstance(node, ast.Name):
                found = {node.id}
            elif isinstance(node, ast.Attribute):
                found = {node.attr}
            elif isinstance(node, ast.arg):
                found = {node.arg}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = set(re.findall(r"[\w-]+", node.value))
            words |= found
            todo += found
    return words


NODES = sorted({(key, test) for key, claim in CLAIMS.items() for test in claim["tests"]})


@pytest.mark.parametrize(("key", "test"), NODES, ids=[f"{k}: {t.rpartition('::')[2]}" for k, t in NODES])
def test_the_tests_of_a_claim_call_its_functions_on_any_machine(key: str, test: str) -> None:
    file, _, name = test.partition("::")
    words = words_of(file, name)
    names = [dotted.rpartition(".")[2] for dotted in (*CLAIMS[key]["functions"], *CLAIMS[key].get("parts", ()))]
    assert any({word, word.replace("_", "-")} & words for word in names), names
    node = definitions(file)[name]
    assert isinstance(node, ast.FunctionDef)
    marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
    assert not FIXTURES & {a.arg for a in node.args.args} and not re.search(
        r"^pytest\.mark\.(slow|browser|skip)", marks
    )
    assert "importorskip" not in ast.unparse(node)


@pytest.mark.parametrize("key", CLAIMS)
def test_parts_of_claims_exist(key: str) -> None:
    assert all(callable(resolve(dotted)) for dotted in CLAIMS[key].get("parts", ()))


@pytest.mark.parametrize("key", CLAIMS)
def test_every_function_of_a_claim_is_called_by_one_of_its_tests(key: str) -> None:
    words = {word for test in CLAIMS[key]["tests"] for word in words_of(*test.split("::"))}
    functions = [function.rpartition(".")[2] for function in CLAIMS[key]["functions"]]
    assert [f for f in functions if not {f, f.replace("_", "-")} & words] == []
