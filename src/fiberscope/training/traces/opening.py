"""What a watcher needs before it can measure: a subject, an architecture that was put to the test, and its rank."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.network import Network
from fiberscope.training.architectures.architecture import Architecture, checked_architecture
from fiberscope.training.architectures.exchange import confirmed
from fiberscope.training.traces.subjects import ArraySubject, Subject

_PROBES = 32


def subject_of(
    subject: Any,
    *,
    architecture: Architecture | None = None,
    optimizer: Any = None,
    activation: Any = None,
    data: Any = None,
) -> Subject:
    """What a watcher can watch, from what people have; frameworks are imported only for their own objects.

    Raises:
        InputError: for a torch module that cannot be read, or a mapping without an architecture.

    >>> type(subject_of(None)).__name__
    'ArraySubject'
    """  # fmt: skip
    if isinstance(subject, str | bytes | os.PathLike | int | float | type):
        raise InputError(
            f"subject {subject!r} is a {type(subject).__name__}; give what is trained: a torch module, a Network, a "
            "mapping of names to arrays, or a tree of JAX arrays; the trace's file comes second: "
            "watch(model, 'run.jsonl')"
        )
    if isinstance(subject, Network) or (_flat(subject) and not _jax_arrays(subject)):
        refuse_rule(optimizer)
    if subject is None or isinstance(subject, Network) or (architecture is not None and _flat(subject)):
        return ArraySubject(subject, architecture, optimizer)
    if isinstance(subject, Subject):
        subject.update(optimizer=optimizer, architecture=architecture)
        return subject
    if callable(getattr(subject, "named_parameters", None)):
        from fiberscope.training.adapters.torch_states import bare
        from fiberscope.training.adapters.torch_subject import ModuleSubject
        from fiberscope.training.drift.rules import OptimiserState

        if activation is not None:
            raise InputError(
                f"activation={activation!r} beside a torch module, which says its own; leave it out, or give a mapping "
                "of arrays"
            )
        if not (optimizer is None or isinstance(optimizer, OptimiserState) or hasattr(bare(optimizer), "param_groups")):
            raise InputError(
                f"optimizer is a {type(optimizer).__name__}; expected one of torch.optim, or an OptimiserState such as "
                "OptimiserState('adam', 1e-3); without it nothing is predicted"
            )
        found: Subject = ModuleSubject(subject, optimizer, example=data)
        if architecture is not None:
            found.update(architecture=architecture)
        return found
    if _flat(subject) and activation is not None:
        from fiberscope.training.architectures.chains import architecture_of

        return ArraySubject(subject, architecture_of(subject, activation=activation), optimizer)
    if _flat(subject) and not _jax_arrays(subject):
        return ArraySubject(subject, None, optimizer)
    from fiberscope.training.adapters.jax import PytreeSubject
    from fiberscope.training.adapters.jax_trees import leaves_of

    if not len(leaves_of(subject)):
        raise InputError(
            f"subject is a {type(subject).__name__} without arrays of floats; give what is trained: a torch module, a "
            "Network, a mapping of names to arrays, or a tree of JAX arrays"
        )
    return PytreeSubject(subject, architecture, activation=activation, optimizer=optimizer)


def refuse_arguments(path: Any, architecture: Any, optimizer: Any, domain: Any) -> None:
    """Refuse what no framework could give a meaning to, before anything is written.

    Raises:
        InputError: with what was seen, and what was expected.
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise InputError(f"path is a {type(path).__name__}; give the file of the trace, such as 'run.jsonl'")
    if architecture is not None:
        checked_architecture(architecture)
    if isinstance(optimizer, str | bytes | int | float | type):
        raise InputError(
            f"optimizer is {optimizer!r}; expected the optimizer itself (torch.optim, the state of optax), or an "
            "OptimiserState such as OptimiserState('adam', 1e-3)"
        )
    if domain is not None and not isinstance(domain, str | Box):
        raise InputError(f"domain is a {type(domain).__name__}; expected a Box, or text for Box.parse such as '[0,1]'")


def refuse_rule(optimizer: Any) -> None:
    """Refuse what is no `OptimiserState` beside arrays, which no optimizer of a framework holds.

    Raises:
        InputError: with what was seen.
    """
    from fiberscope.training.drift.rules import OptimiserState

    if optimizer is not None and not isinstance(optimizer, OptimiserState):
        raise InputError(
            f"optimizer is a {type(optimizer).__name__} beside a mapping of arrays; expected an OptimiserState such as "
            "OptimiserState('adam', 1e-3); without it nothing is predicted"
        )


def one_spelling(optimizer: Any, optimiser: Any) -> Any:
    """What was given under either name.

    Raises:
        InputError: if both were.

    >>> one_spelling(None, "adam")
    'adam'
    """
    if optimizer is not None and optimiser is not None:
        raise InputError("optimizer= and optimiser= are one argument in two spellings; give one of them")
    return optimiser if optimizer is None else optimizer


def refuse_scalars(given: Mapping[str, Any]) -> None:
    """Refuse scalars that are no numbers.

    Raises:
        InputError: naming the first one.
    """
    for name, value in given.items():
        if value is not None and not hasattr(value, "shape") and number_of(value) is None:
            raise InputError(
                f"step({name}=...) is a {type(value).__name__}, {str(value)[:40]!r}; expected a number to keep in the "
                "trace, or an array with one entry"
            )


def _flat(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and not isinstance(v, Mapping | list | tuple) for k, v in value.items()
    )


def _jax_arrays(value: Mapping[str, Any]) -> bool:
    return any(type(v).__module__.partition(".")[0] in ("jax", "jaxlib") for v in value.values())


def put_to_the_test(subject: Subject, architecture: Architecture, data: Any) -> tuple[Architecture, str]:
    """The architecture without populations whose permutation changes the model's output on data, and how it was tested.

    A few evaluations of the model for each population, on at most 32 samples.
    """
    if data is None:
        return architecture, "no data"
    if type(subject).evaluate is ArraySubject.evaluate:
        return architecture, "by construction: the chain is what is measured"
    few = data[:_PROBES] if hasattr(data, "shape") and len(data.shape) > 1 else data
    if subject.evaluate(few) is None:
        return architecture, "the model cannot be evaluated"
    found = confirmed(architecture, subject.parameters(), lambda p: subject.evaluate(few, p))
    return found, "on data, at random parameters"


def has_parameters(subject: Subject) -> bool:
    """Whether there is something to measure now."""
    try:
        subject.parameters()
    except InputError:
        return False
    return True


def agreeing(old: Architecture, new: Architecture, path: Path | None) -> Architecture:
    """The architecture of a trace, if it is of the same parameters.

    Raises:
        InputError: if not; the first parameter that differs is named.
    """
    before, after = ({s.name: s.shape for s in found.slots} for found in (old, new))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            raise InputError(
                f"{path}: is of another model: parameter {name!r} has shape {before.get(name, 'none')} there and "
                f"{after.get(name, 'none')} here; force=True replaces the trace"
            )
    return old


def rank_here() -> int:
    """Of this process in a distributed run; 0 where there is none."""
    torch = sys.modules.get("torch.distributed")
    if torch is not None and torch.is_available() and torch.is_initialized():
        return int(torch.get_rank())
    text = os.environ.get("RANK", "")
    return int(text) if text.isdigit() else 0


def number_of(value: Any) -> float | None:
    """A number from a float, an array or a tensor with one entry; None for anything else."""
    try:
        return float(value.detach() if callable(getattr(value, "detach", None)) else value)
    except (TypeError, ValueError, RuntimeError):
        return None


def shape_of(data: Any) -> list[int] | str | None:
    """Of an array, else the name of its type; for the first line of a trace."""
    if data is None:
        return None
    return list(data.shape) if hasattr(data, "shape") else type(data).__name__


def now() -> str:
    """Date and time in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
