"""The report page: any results as one self-contained HTML document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiberscope.errors import InputError
from fiberscope.pages.page import data_of, document
from fiberscope.results import Result

__all__ = ["report"]


def report(*results: Result | Mapping[str, Any], title: str | None = None) -> str:
    """One HTML page about results, from their data alone: no other file, no request, light and dark, printable.

    Args:
        results: results such as `Inspection` and `Reduction`, or the data of `to_dict()` (what `--json` prints).
            Several give an index and one section each.
        title: heading of the page; "fiberscope report" without it.

    Returns:
        The document as text, to be written as UTF-8.

    Raises:
        InputError: if there is nothing to report.

    Complexity: linear in the data; long tables and raw data are shortened, and say so.

    >>> text = report({"network": {"path": "a<b.onnx", "widths": [1, 1]}})
    >>> "<h2" in text and "a&lt;b.onnx" in text and "http://" not in text
    True
    """
    if not results:
        raise InputError("report() was given no result; pass what inspect() or reduce() returned")
    found = []
    for result in results:
        if not isinstance(result, Result | Mapping):
            raise InputError(f"report() was given a {type(result).__name__}; pass results or their to_dict()")
        found.append(data_of(result))
    return document(found, title)
