"""The tutorial on watching a training runs, one section for each framework that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial" / "training.md"
BLOCK = re.compile(r"^```py\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Code by framework: the sections that name it in their titles, in order."""
    found: dict[str, str] = {"torch": "", "jax": ""}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = part.partition("\n")[0].lower()
        code = "".join(BLOCK.findall(part))
        if code:
            (framework,) = (name for name in found if name in title)
            found[framework] += code
    return found


@pytest.mark.parametrize(("framework", "needs"), [("torch", ("torch",)), ("jax", ("jax", "optax"))])
def test_sections_run(framework: str, needs: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed")
    source = sections()[framework]
    assert source.count("assert") >= 4
    monkeypatch.chdir(tmp_path)
    exec(compile(source, f"training.md, {framework}", "exec"), {"__name__": "__main__"})


def test_code_is_in_blocks_that_this_file_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"^```(\S+)", text, flags=re.MULTILINE)) == {"py"}
