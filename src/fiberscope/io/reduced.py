"""Writing a reduced network: the file is read back and its certificate checked before it takes its place."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from fiberscope.certificates import Certificate, check
from fiberscope.errors import CertificateError, InputError
from fiberscope.io import Options, encode, load
from fiberscope.io.files import sha256
from fiberscope.reduction import Reduction, with_file_hash
from fiberscope.results import Answer


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
    for place in (target, proof):
        if place.exists() and not force:
            raise InputError(f"{place}: exists; use --force (force=True) to overwrite it")
        if not place.parent.is_dir():
            raise InputError(f"{place}: there is no folder {place.parent}")
    data, copied = encode(reduction.network, target, dtype=reduction.rounding.dtype)
    document = with_file_hash(reduction.certificate, sha256(data), target.name)
    handle, name = tempfile.mkstemp(suffix=target.suffix, prefix=".fiberscope-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        _confirm(reduction, document, Path(name), copied)
        os.chmod(name, 0o644)
        _write_text(proof, document.to_json() + "\n")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return document, copied


def _confirm(reduction: Reduction, document: Certificate, path: Path, copied: bool) -> None:
    source = reduction.original.source
    options = source.extra.get("options", Options()) if source is not None and copied else Options()
    row = reduction.network.activation
    found = load(
        path, part=source.part if source is not None and copied else None,
        activation=options.activation or (row if row is not None and path.suffix in (".pt", ".pth") else None),
    )  # fmt: skip
    verdict = check(document, reduction.original, replace(found, source=None))
    if verdict.answer is not Answer.YES:
        raise CertificateError(f"the written file does not follow from the original ({verdict.reason}); nothing was written")


def _write_text(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".fiberscope-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
