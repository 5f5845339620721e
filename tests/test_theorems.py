"""The table of theorems and its citations."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import fiberscope
from fiberscope.errors import InputError
from fiberscope.theorems import REFERENCES, THEOREMS, cite, theorem

SOURCE = Path(fiberscope.__file__).parent


@pytest.mark.parametrize("key", THEOREMS)
def test_rows_are_complete_and_references_exist(key):
    row = theorem(key)
    assert row.key == key and row.statement.endswith(".") and row.hypotheses and row.references
    assert all(name in REFERENCES for name in row.references)


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_bibtex(name):
    text = REFERENCES[name]
    assert re.match(rf"@\w+{{{name},\n", text) and text.rstrip().endswith("}")
    assert text.count("{") == text.count("}") and "title = " in text and "year = " in text


def test_every_theorem_is_used_by_code_and_every_reference_by_a_theorem():
    code = "".join(p.read_text() for p in SOURCE.rglob("*.py") if p.name != "theorems.py")
    assert [key for key in THEOREMS if f'"{key}"' not in code] == []
    assert set(REFERENCES) == {name for row in THEOREMS.values() for name in row.references}


def test_citations_come_once_and_in_order():
    @dataclass
    class Found:
        theorems: tuple[str, ...]

    text = cite(Found(("relu-fiber-dimension", "scaling-balance")), "relu-fiber-dimension")
    names = re.findall(r"^@\w+{(\w+),", text, flags=re.M)
    assert names == ["gegenfurtner2026symmetries", "marcotte2023abide", "du2018algorithmic"]


def test_unknown_keys_suggest_a_near_one():
    with pytest.raises(InputError, match="did you mean 'equitable-sim'"):
        cite("equitable-sims")
    with pytest.raises(InputError, match="given a int"):
        cite(3)
