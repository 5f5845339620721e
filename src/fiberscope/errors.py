"""The error tree: every error a user can cause is an `InputError` and ends the CLI with exit code 2."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any


class FiberscopeError(Exception):
    """Base of all errors raised on purpose by fiberscope; `str()` is one line."""


class InputError(FiberscopeError, ValueError):
    """Something given by the user cannot be used; the message says what was seen, expected, and what to do."""


class FormatError(InputError):
    """A file is not what it claims to be: truncated, wrong magic, sizes that do not fit, NaN weights."""


class UnsupportedError(InputError):
    """A well-formed input uses an operation, layer or option fiberscope has no meaning for; it is named."""


class PartError(InputError):
    """A file holds several networks and none was chosen; `parts` names them."""

    def __init__(self, message: str, parts: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.parts = parts


class ScopeError(InputError):
    """A statement was asked for where its hypotheses fail, for instance a training statement on folded layers."""


class CertificateError(InputError):
    """A certificate is malformed, or a step of it does not follow."""


class MissingDependencyError(InputError, ImportError):
    """An optional package is needed; the message says what to install."""


class IntegrationError(InputError):
    """An integration in time failed; `time` is the last time reached, `state` what held there."""

    def __init__(self, message: str, time: float, state: Any = None) -> None:
        super().__init__(message)
        self.time = time
        self.state = state


class UndecidedError(FiberscopeError):
    """A verdict that is UNDECIDED was used as a truth value."""


def import_optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module that belongs to an optional extra, or say what to install.

    Args:
        module: dotted name of the module to import.
        extra: the extra of fiberscope that provides it.
        purpose: what it is needed for, in words that end the sentence "... is needed to".

    Raises:
        MissingDependencyError: if the module is not installed.

    >>> import_optional("json", extra="none", purpose="read JSON").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is not None and getattr(exc, "name", None) not in (package, module):
            raise MissingDependencyError(
                f"{package} is needed to {purpose} and is installed, but cannot be imported: {exc}"
            ) from exc
        raise MissingDependencyError(
            f"{package} is needed to {purpose} and is not installed: pip install 'fiberscope[{extra}]'"
        ) from exc
