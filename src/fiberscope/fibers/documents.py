"""What all certificates about two networks begin with."""

from __future__ import annotations

from typing import Any

from fiberscope._version import __version__
from fiberscope.certificates.format import SCHEMA
from fiberscope.domains import Box
from fiberscope.network import Network


def heading(kind: str, f: Network, g: Network, domain: Box) -> dict[str, Any]:
    """Schema, kind, version, both networks by digest and file, and the domain."""
    return {
        "schema": SCHEMA, "kind": kind, "version": __version__, "source": _party(f), "target": _party(g),
        "domain": domain.to_dict(),
    }  # fmt: skip


def _party(net: Network) -> dict[str, Any]:
    source = net.source
    party: dict[str, Any] = {"digest": net.digest, "sha256": None if source is None else source.sha256}
    return party if source is None or not source.path else {**party, "path": source.path}
