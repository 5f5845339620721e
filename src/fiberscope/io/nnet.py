"""NNet text files (Reluplex, Marabou): ReLU networks with an input box and a normalisation.

The file's network maps x to y = scale_out * N((x - mean) / range) + mean_out, with N a ReLU network. The normalisation
is folded into the first and the last layer exactly. Clipping x to the box, which some readers do, is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import activation as find_activation
from fiberscope.domains import Box
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io.files import Options, arrays, read_bytes, source
from fiberscope.network import Frame, Layer, Network

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Header:
    """The lines before the weights.

    Args:
        comments: leading lines that start with "//".
        sizes: (n_0, ..., n_L).
        lines: text of the flag, box and normalisation lines, as they stand.
        lower, upper: (n_0,) the input box.
        mean, spread: (n_0,) the input normalisation.
        out_mean, out_spread: that of all outputs.
    """

    comments: tuple[str, ...]
    sizes: tuple[int, ...]
    lines: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    mean: FloatArray
    spread: FloatArray
    out_mean: float
    out_spread: float

    @property
    def plain(self) -> bool:
        """Whether the normalisation is the identity."""
        shift, size = np.append(self.mean, self.out_mean), np.append(self.spread, self.out_spread)
        return bool((shift == 0).all() and (size == 1).all())

    def frame(self, k: int, layer: tuple[int, int]) -> Frame | None:
        """What is folded into layer k of shape (n_out, n_in), or None."""
        before = after = None
        if k == 0 and (self.mean.any() or (self.spread != 1).any()):
            inverse = 1 / rationals.fractions(self.spread)
            before = (inverse, -rationals.fractions(self.mean) * inverse)
        if k == len(self.sizes) - 2 and (self.out_mean != 0 or self.out_spread != 1):
            after = (np.full(layer[0], self.out_spread), np.full(layer[0], self.out_mean))
        return None if before is None and after is None else Frame.of(*layer, before=before, after=after)


class _Lines:
    """Lines of numbers separated by commas, with their line numbers."""

    def __init__(self, lines: list[str], start: int) -> None:
        self._lines: Iterator[tuple[int, str]] = iter(enumerate(lines, start + 1))
        self.number = start
        self.text = ""

    def row(self, count: int | None, what: str) -> list[float]:
        """The numbers of the next line that is not empty; `count` of them unless it is None."""
        found = next(((number, text) for number, text in self._lines if text.strip()), None)
        if found is None:
            raise FormatError(f"ends after line {self.number}, where {what} was expected")
        self.number, self.text = found
        try:
            out = [float(token) for token in self.text.split(",") if token.strip()]
        except ValueError as exc:
            raise FormatError(f"line {self.number}: {str(exc)[:80]}; expected numbers ({what})") from exc
        if count is not None and len(out) != count:
            raise FormatError(f"line {self.number}: {len(out)} numbers; expected {count} ({what})")
        return out

    def rest(self) -> bool:
        """Whether anything but blank lines follows."""
        return any(text.strip() for _, text in self._lines)


def _counts(numbers: list[float], line: int) -> tuple[int, ...]:
    if any(v != v or v < 1 or v > 1e9 or v != int(v) for v in numbers):
        raise FormatError(f"line {line}: layer sizes must be whole numbers >= 1")
    return tuple(int(v) for v in numbers)


def _header(text: str) -> tuple[Header, _Lines]:
    lines = text.splitlines()
    start = 0
    while start < len(lines) and (lines[start].startswith("//") or not lines[start].strip()):
        start += 1
    reader = _Lines(lines[start:], start)
    first = _counts(reader.row(None, "layers, inputs, outputs, largest layer"), reader.number)
    if len(first) < 3:
        raise FormatError(f"line {reader.number}: expected layers, inputs, outputs, largest layer")
    sizes = _counts(reader.row(None, "layer sizes"), reader.number)
    if len(sizes) != first[0] + 1 or sizes[0] != first[1] or sizes[-1] != first[2]:
        raise FormatError(
            f"line {reader.number}: {first[0]} layers from {first[1]} to {first[2]} inputs and outputs need "
            f"{first[0] + 1} sizes; found {list(sizes)[:8]}"
        )
    entries = sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))
    if entries > len(text):
        raise FormatError(f"declares {entries:,} parameters in a file of {len(text):,} characters")
    reader.row(None, "flag")
    kept, rows = [reader.text], []
    n = sizes[0]
    for what, count in (("minima", n), ("maxima", n), ("means", n + 1), ("ranges", n + 1)):
        rows.append(np.array(reader.row(count, what)))
        kept.append(reader.text)
    lower, upper, mean, spread = rows
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        raise FormatError("means and ranges must be finite")
    if not spread.all():
        raise FormatError(f"range {int(np.flatnonzero(spread == 0)[0])} is 0; the normalisation divides by it")
    head = Header(
        tuple(lines[:start]), sizes, tuple(kept), lower, upper, mean[:n], spread[:n], float(mean[n]), float(spread[n])
    )
    return head, reader


def read(path: Path, options: Options) -> Network:
    """Read a .nnet file; numbers are the nearest float64 of their decimal text.

    Raises:
        FormatError: with the number of the line that is wrong.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError("is no text; expected a .nnet file") from exc
    if options.part is not None:
        raise InputError("a .nnet file holds one network; leave out --part")
    head, reader = _header(text)
    layers, tensors = [], {}
    sizes = head.sizes
    relu, identity = find_activation("relu"), find_activation("identity")
    for k, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        rows = [reader.row(n_in, f"row {i} of matrix {k + 1}") for i in range(n_out)]
        shift = [reader.row(1, f"bias {i} of layer {k + 1}")[0] for i in range(n_out)]
        weight, bias = np.array(rows), np.array(shift)
        tensors[f"W{k + 1}"], tensors[f"b{k + 1}"] = weight, bias
        layers.append(_layer(head, k, weight, bias, identity if k == len(sizes) - 2 else relu))
    if reader.rest():
        raise FormatError("has more lines than its layer sizes allow")
    notes = ["Inputs are not clipped to the file's box."]
    if not head.plain:
        notes.append("The normalisation is part of the network: inputs and outputs are in the file's own units.")
    try:
        box = Box(head.lower, head.upper, "file")
    except InputError as exc:
        raise FormatError(f"input box: {exc}") from exc
    place = source(path, data, "nnet", tensors, np.float64, box=box, notes=tuple(notes))
    return Network(tuple(layers), None, place)


def _layer(head: Header, k: int, weight: FloatArray, bias: FloatArray, row: Any) -> Layer:
    name = f"layer {k + 1}"
    plain = Layer(weight, bias, row, name, f"W{k + 1}", f"b{k + 1}")  # checks shapes and finiteness first
    frame = head.frame(k, (plain.n_out, plain.n_in))
    if frame is None:
        return plain
    folded = "the file's normalisation"
    exact_weight, exact_bias = frame.folded(weight, bias)
    return Layer(exact_weight, exact_bias, row, name, f"W{k + 1}", f"b{k + 1}", (folded,), frame)


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A new .nnet file without normalisation; decimal texts that read back as the same float64.

    Raises:
        InputError: if a hidden activation is not ReLU, there is a head, or a weight is no float64.
    """
    n = net.widths[0]
    box = (net.source.box if net.source is not None else None) or Box.everywhere(n)
    ends = ["".join(f"{v!r}," for v in np.nan_to_num(end).tolist()) for end in (box.lower, box.upper)]
    lines = ["0,", *ends, "0.0," * (n + 1), "1.0," * (n + 1)]
    return _text(net, ("// Neural network in NNet format, written by fiberscope",), tuple(lines), own=False)


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike = np.float64) -> bytes:
    """The original file with other layers; box, normalisation and comments stay.

    Raises:
        InputError: if a weight, before the normalisation is folded in, is no float64.
    """
    head, _ = _header(original.decode("utf-8"))
    for old, new in zip(before.layers, after.layers, strict=True):
        if (old.frame is None) != (new.frame is None):
            raise UnsupportedError(f"{new.name} does not carry the file's normalisation any more")
    return _text(after, head.comments, head.lines, own=True)


def _text(net: Network, comments: tuple[str, ...], header: tuple[str, ...], *, own: bool) -> bytes:
    wrong = [a.activation.label for a in net.hidden if a.activation.name != "relu"]
    if wrong or net.layers[-1].activation.name != "identity" or net.head is not None:
        what = (wrong or [net.head or net.layers[-1].activation.label])[0]
        raise InputError(f".nnet files hold ReLU networks with a linear output; this one has {what}")
    sizes = net.widths
    out = [*comments, f"{net.depth},{sizes[0]},{sizes[-1]},{max(sizes)},", ",".join(map(str, sizes)) + ",", *header]
    for layer in net.layers:
        weight, bias = arrays(layer, np.float64, own=own)
        out += [",".join(map(repr, row)) + "," for row in weight.tolist()]
        out += [f"{v!r}," for v in bias.tolist()]
    return ("\n".join(out) + "\n").encode("utf-8")
