"""Packages whose public names are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def facade(
    namespace: dict[str, Any],
    homes: Mapping[str, Iterable[str]],
    rooms: Iterable[str] = (),
    *,
    framed: Mapping[str, Iterable[str]] | None = None,
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        namespace: `globals()` of the package; names are kept there once they are imported.
        homes: modules of the package, by their names inside it, and the public names that each defines.
        rooms: sub-packages that are public themselves and not in `__all__`.
        framed: like `homes`, for names that need a framework when they are asked for; not in `__all__`, so that
            `from package import *` works without it.

    >>> names, get, _ = facade({"__name__": "json"}, {"decoder": ["JSONDecoder"]})
    >>> names, get("JSONDecoder").__name__
    (['JSONDecoder'], 'JSONDecoder')
    """
    package = namespace["__name__"]
    home = {name: module for module, exported in homes.items() for name in exported}
    public, inside = sorted(home), tuple(rooms)
    home |= {name: module for module, exported in (framed or {}).items() for name in exported}

    def get(name: str) -> Any:
        if name in inside:
            return importlib.import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        return value

    def names() -> list[str]:
        return sorted({*namespace, *home, *inside})

    return public, get, names
