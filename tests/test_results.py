"""Verdicts, budgets and JSON data."""

import json
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.errors import InputError, MissingDependencyError, UndecidedError, import_optional
from fiberscope.results import Answer, Budget, Result, Rigor, Verdict, jsonable


def test_undecided_is_no_truth_value():
    with pytest.raises(UndecidedError, match="too deep"):
        bool(Verdict(Answer.UNDECIDED, reason="too deep"))
    assert not Verdict(Answer.NO, reason="differs")


def test_json_has_no_nan_and_keeps_rationals():
    @dataclass(frozen=True)
    class Example(Result):
        values: tuple[object, ...]

    text = Example(
        (math.nan, np.inf, -np.inf, Fraction(1, 3), np.float32(0.5), np.arange(2), Rigor.EXACT, {1: None})
    ).to_json()
    assert json.loads(text) == {
        "values": [None, "inf", "-inf", {"exact": "1/3", "float": 1 / 3}, 0.5, [0, 1], "EXACT", {"1": None}]
    }


def test_huge_rationals_have_no_float():
    assert jsonable(Fraction(10**400))["float"] is None


def test_budget():
    assert Budget.of(0).start().expired
    assert not Budget.of(None).start().expired
    assert Budget.of(Budget(3.0)).seconds == 3.0
    assert Budget.of(np.float32(2)).seconds == 2 and Budget(cells=np.int64(3)).cells == 3


@pytest.mark.parametrize("value", [-1, math.nan, "3", True, [1], Budget(3)])
def test_a_budget_is_a_number(value):
    with pytest.raises(InputError, match="seconds; give a number of seconds >= 0, or None"):
        Budget(seconds=value)
    with pytest.raises(InputError, match="cells; give a whole number of cells >= 0, or None"):
        Budget(cells=value)
    with pytest.raises(InputError, match="cells"):
        Budget(cells=1.5)


def test_html_fragment_escapes():
    class Loud(Result):
        def __str__(self) -> str:
            return "<script>"

    assert "<script>" not in Loud()._repr_html_()


def test_missing_dependency_says_what_to_install():
    with pytest.raises(MissingDependencyError, match=r"pip install 'fiberscope\[onnx\]'") as caught:
        import_optional("no_such_module_here", extra="onnx", purpose="read ONNX files")
    assert isinstance(caught.value, InputError)


def test_installed_but_broken_dependency_says_what_broke(tmp_path, monkeypatch):
    (tmp_path / "broken_package_here.py").write_text("import no_such_backend_here")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependencyError, match="is installed, but cannot be imported: .*no_such_backend_here"):
        import_optional("broken_package_here", extra="keras", purpose="watch")


def test_results_are_equal_only_to_themselves_unless_their_fields_decide():
    f, g = (fs.Network.random((2, 3, 1), seed=seed) for seed in (0, 1))
    assert fs.canonical(f) != fs.canonical(g)
    assert len({fs.canonical(f), fs.canonical(g)}) == 2
    assert Verdict(Answer.YES, "same") == Verdict(Answer.YES, "same") != Verdict(Answer.NO, "same")
