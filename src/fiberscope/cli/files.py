"""Files of the command line: which networks to read, which results may be written where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fiberscope.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fiberscope.network import Network

    FloatArray = NDArray[Any]
    DType = np.dtype[Any]

Options = Mapping[str, Any]


def load_network(path: str | Path, options: Options, *, several: bool = False) -> Network:
    """Read a network with the options of the command.

    Args:
        path: the file.
        options: of the command.
        several: whether the file is one of many that share the options; then what a file says itself wins.

    Raises:
        InputError: in one line; also if the file says another activation than --activation does.
    """
    from fiberscope.activations import activation
    from fiberscope.io import load

    given, rest = options["activation"], {"part": options["part"], "allow_opaque": options["allow_opaque"]}
    if given is None:
        return load(path, **rest)
    for name in given.split(","):
        if name.strip().isidentifier():  # else `load` says what it expects
            activation(name)
    said = _self_described(path, rest)
    if said is None:
        return load(path, activation=given, **rest)
    unlike = None if several else _unlike(said, given)
    if unlike is not None:
        raise InputError(f"{path}: says its activation is {unlike[0]}, not {unlike[1]}; leave out --activation")
    return said


def _self_described(path: str | Path, options: Mapping[str, Any]) -> Network | None:
    """The network of a file that says its activations; None if it does not, or cannot be read."""
    from fiberscope.io import load

    try:
        net = load(path, **options)
    except InputError:
        return None
    # Stable-Baselines3 leaves the activation out where it is the default of the policy class
    assumed = net.source is not None and any("names no activation" in note for note in net.source.notes)
    return None if assumed else net


def _unlike(net: Network, given: str) -> tuple[str, str] | None:
    """The first hidden activation of the file that is not the one given, and that one."""
    from fiberscope.io.state_dicts import activations_for

    own, wanted = (row.activation.label for row in net.hidden), (row.label for row in activations_for(net.depth, given))
    return next((pair for pair in zip(own, wanted, strict=False) if pair[0] != pair[1]), None)


def network_files(paths: Sequence[str]) -> list[Path]:
    """The files, and those of known formats in the folders, each once, in a fixed order.

    Raises:
        InputError: if a folder holds none.
        OSError: if a folder cannot be read.
    """
    from fiberscope.io import FORMATS

    suffixes = {suffix for row in FORMATS for suffix in row.suffixes}
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(p for p in _all_files(path) if p.suffix.lower() in suffixes)
        if not inside:
            raise InputError(f"{path}: no network file in this folder; known are {', '.join(sorted(suffixes))}")
        found.update(dict.fromkeys(inside))
    return list(found)


def _all_files(folder: Path) -> Iterator[Path]:
    def fail(exc: OSError) -> None:
        raise exc

    for place, _, names in os.walk(folder, onerror=fail):
        yield from (Path(place) / name for name in names)


def in_floats(net: Network, dtype: DType | None = None) -> tuple[Network, str]:
    """The network with weights that a float type holds, that of its file by default, and words for what was rounded."""
    from fiberscope import rationals

    target, exact = net.dtype if dtype is None else dtype, rationals.exact_array(net.theta)
    if rationals.representable(exact, target).all():
        return net, ""
    return net.with_theta(rationals.rounded(exact, target)), f", weights rounded to {target.name}"


def check_format(path: str) -> None:
    """Refuse, before anything is computed, a name whose format cannot be written.

    Raises:
        InputError: if the suffix is none of a format that is written.
    """
    from fiberscope.io import FORMATS

    known = [suffix for row in FORMATS if row.writable for suffix in row.suffixes]
    if Path(path).suffix.lower() not in known:
        raise InputError(f"{path}: cannot write {Path(path).suffix or 'no suffix'}; known are {', '.join(known)}")


def check_targets(options: Options, *more: str | None, reads: Iterable[str | Path] = ()) -> None:
    """Refuse, before anything is computed, to write where that would lose a file.

    Args:
        options: of the command; `html` is one of the targets.
        more: other files that will be written.
        reads: files that are read and must stay.

    Raises:
        InputError: if a target exists without --force, is read, is named twice, or has no folder.
    """
    taken = {Path(path).resolve() for path in reads}
    for path in (Path(name) for name in (options["html"], *more) if name):
        if path.resolve() in taken:
            raise InputError(f"{path}: is read or written by this command already; choose another name")
        taken.add(path.resolve())
        if (path.exists() or path.is_symlink()) and not options["force"]:
            raise InputError(f"{path}: exists; use --force to overwrite it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")


def write_page(options: Options, results: Sequence[Mapping[str, Any]]) -> None:
    """Write the page of --html, if asked for, and say so on stderr."""
    if not options["html"] or not results:
        return
    from fiberscope.io.files import atomic_write
    from fiberscope.pages import report
    from fiberscope.results import jsonable

    page = report(*(jsonable(result) for result in results))
    atomic_write(Path(options["html"]), page.encode("utf-8"), options["force"])
    if not options["quiet"]:
        with suppress(BrokenPipeError):
            click.echo(f"wrote {options['html']}", err=True)


def read_data(path: str) -> tuple[FloatArray, FloatArray]:
    """Inputs (n, d) and labels (n,) of a table: .npz with X and y, else rows of numbers with the label last.

    Raises:
        InputError: for files without them; a line that is no row of numbers is named.
    """
    from zipfile import BadZipFile

    import numpy as np

    try:
        if Path(path).suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                missing = [name for name in ("X", "y") if name not in archive]
                if missing:
                    raise InputError(f"{path}: has no array {' and '.join(missing)}, only {', '.join(archive)}")
                inputs, labels = np.asarray(archive["X"], float), np.asarray(archive["y"], float).squeeze()
        else:
            table = np.array(list(_rows(path)))
            if table.ndim != 2 or table.shape[1] < 2:
                seen = "no row of numbers" if not table.size else "one column"
                raise InputError(f"{path}: has {seen}; give rows of inputs with the label last")
            inputs, labels = table[:, :-1], table[:, -1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (ValueError, TypeError, OSError, BadZipFile) as exc:
        raise InputError(
            f"{path}: is no table of numbers; give .csv with the label last, or .npz with X and y"
        ) from exc
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or not inputs.size:
        raise InputError(f"{path}: X of shape {inputs.shape} and y of shape {labels.shape}; give (n, d) and (n,)")
    if not (np.isfinite(inputs).all() and np.isfinite(labels).all()):
        raise InputError(f"{path}: has entries that are not finite")
    return inputs, labels


def _rows(path: str) -> Iterator[list[float]]:
    """Rows of numbers, separated by commas, semicolons or spaces; a first line of names is left out."""
    width = 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            mark = next((m for m in ",;" if m in line), None)
            words = [word.strip() for word in line.split(mark)]
            if "" in words:
                raise InputError(f"{path}: line {number} has an empty field; fill it or leave the line out")
            try:
                row = [float(word) for word in words]
            except ValueError:
                if number == 1:
                    continue
                raise InputError(f"{path}: line {number} is no row of numbers: {line.strip():.60}") from None
            if width and len(row) != width:
                raise InputError(f"{path}: line {number} has {len(row)} numbers, the lines before {width}")
            width = len(row)
            yield row


def theorem_keys(word: str) -> list[str]:
    """The keys a word stands for: itself, or those of a JSON result file.

    Raises:
        InputError: if the file is no output of a command with --json.
    """
    path = Path(word)
    if path.suffix != ".json" and not path.is_file():
        return [word]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        results = data.get("results", [data])
        keys = [key for result in results if "error" not in result for key in result["theorems"]]
    except FileNotFoundError as exc:
        raise InputError(f"{word}: no such file") from exc
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        reason = type(exc).__name__
        raise InputError(f"{word}: expected the output of a fiberscope command with --json ({reason})") from exc
    if not all(isinstance(key, str) for key in keys):
        raise InputError(f"{word}: expected the output of a fiberscope command with --json (theorems are no keys)")
    return list(dict.fromkeys(keys))
