"""Writing a reduced network: the file is read back and its certificate checked before it takes its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fiberscope.certificates import Certificate, check
from fiberscope.errors import CertificateError, InputError
from fiberscope.io import Options, encode, load
from fiberscope.io.files import atomic_write, sha256
from fiberscope.reduction import Reduction, with_file_hash
from fiberscope.results import Answer

if TYPE_CHECKING:
    from fiberscope.io.onnx_opaque import OpaqueModel


def save_reduction(
    reduction: Reduction, path: str | Path, *, force: bool = False, certificate: str | Path | None = None
) -> tuple[Certificate, bool]:
    """Write the reduced network and its certificate.

    The bytes go to a temporary file beside the target, are read back as anyone would read them, and the certificate is
    checked between the original network and what was read; only then is the file moved to its place.

    Args:
        reduction: from `reduce`.
        path: the file; its suffix decides the format.
        force: overwrite existing files.
        certificate: where the certificate goes ("PATH.certificate.json" if None).

    Returns:
        The certificate with both files' hashes, and whether the file is a copy of the original with new parameters.

    Raises:
        InputError: if a file exists, or the format cannot hold the network.
        CertificateError: if the checker refuses what was read back; nothing is written then.
    """
    target = Path(path)
    proof = Path(certificate) if certificate is not None else target.with_name(target.name + ".certificate.json")
    _refuse((target, proof), force)
    data, copied = encode(reduction.network, target, dtype=reduction.rounding.dtype)
    document = with_file_hash(reduction.certificate, sha256(data), target.name)
    source = reduction.original.source
    options = source.extra.get("options", Options()) if source is not None and copied else Options()
    if source is not None and copied and source.part is not None:
        options = replace(options, part=source.part)
    if options.activation is None and target.suffix in (".pt", ".pth"):
        options = replace(options, activation=reduction.network.activation)
    _place(data, target, [(reduction, document, options, proof)], force)
    return document, copied


def save_chain_reductions(
    model: OpaqueModel, reductions: Sequence[Reduction], path: str | Path, *, force: bool = False
) -> tuple[Path, ...]:
    """Write an ONNX model whose chains between opaque nodes were reduced, with one certificate for each chain.

    Args:
        model: from `fiberscope.io.onnx.read_parts`.
        reductions: one for each of its chains.
        path: the file; certificates go to "PATH.chain1.certificate.json" and so on.
        force: overwrite existing files.

    Returns:
        The paths of the certificates. Each is checked with `load(path, allow_opaque=True, part="chain1")`.

    Raises:
        InputError: if a file exists, or a chain does not fit.
        CertificateError: if the checker refuses what was read back; nothing is written then.
    """
    target = Path(path)
    parts = [f"chain{k + 1}" for k in range(len(model.chains))]
    proofs = [target.with_name(f"{target.name}.{part}.certificate.json") for part in parts]
    _refuse((target, *proofs), force)
    data = model.rewrite([r.network for r in reductions])
    claims = [
        (r, with_file_hash(r.certificate, sha256(data), target.name), Options(part=part, allow_opaque=True), proof)
        for r, part, proof in zip(reductions, parts, proofs, strict=True)
    ]
    _place(data, target, claims, force)
    return tuple(proofs)


_Claim = tuple[Reduction, Certificate, Options, Path]


def _refuse(places: Sequence[Path], force: bool) -> None:
    for place in places:
        if place.exists() and not force:
            raise InputError(f"{place}: exists; use --force (force=True) to overwrite it")
        if not place.parent.is_dir():
            raise InputError(f"{place}: there is no folder {place.parent}")


def _place(data: bytes, target: Path, claims: Sequence[_Claim], force: bool) -> None:
    """Write beside the target, read back, check every claim, then move everything to its place."""
    handle, name = tempfile.mkstemp(suffix=target.suffix, prefix=".fiberscope-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        for reduction, document, options, _ in claims:
            _confirm(reduction, document, Path(name), options)
        os.chmod(name, 0o644)
        for _, document, _, proof in claims:
            atomic_write(proof, (document.to_json() + "\n").encode(), force)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _confirm(reduction: Reduction, document: Certificate, path: Path, options: Options) -> None:
    found = load(path, part=options.part, activation=options.activation, allow_opaque=options.allow_opaque)
    verdict = check(document, reduction.original, replace(found, source=None))
    if verdict.answer is not Answer.YES:
        raise CertificateError(
            f"the written file does not follow from the original ({verdict.reason}); nothing was written"
        )
