"""Tables of data on the command line: what is read, and one clear line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fiberscope.cli.files import read_data
from fiberscope.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n1,2,3\n4,5,6\n",
        "1 2 3\n4 5 6\n",
        "1; 2; 3\n\n4; 5; 6\n",
        "# made by hand\n1,2,3\n4,5,6",
        "1\t2\t3\n4\t5\t6\n",
    ],
)
def test_tables(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    inputs, labels = read_data(str(tmp_path / "t.csv"))
    assert inputs.tolist() == [[1, 2], [4, 5]] and labels.tolist() == [3, 6]


def test_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=[[1, 2], [4, 5]], y=[[3], [6]])
    inputs, labels = read_data(str(tmp_path / "t.npz"))
    assert inputs.tolist() == [[1, 2], [4, 5]] and labels.tolist() == [3, 6]
    np.savez(tmp_path / "n.npz", X=[[1, 2]], z=[3])
    with pytest.raises(InputError, match="no array y, only X, z"):
        read_data(str(tmp_path / "n.npz"))
    (tmp_path / "fake.npz").write_text("no archive")
    with pytest.raises(InputError, match="fake.npz: is no table of numbers; give .csv"):
        read_data(str(tmp_path / "fake.npz"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no row of numbers"), ("a,b\n", "no row of numbers"), ("1\n2\n", "one column"),
        ("1,2\n3,,4\n", "line 2 has an empty field"), ("1,2\n3,4,5\n", "line 2 has 3 numbers, the lines before 2"),
        ("1,2\nx,4\n", "line 2 is no row of numbers"), ("1,2\n3,inf\n", "not finite"), ("1,nan\n", "not finite"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_data(str(tmp_path / "t.csv"))


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_data(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="no table of numbers"):
        read_data(str(tmp_path))
