"""Commands about which networks are the same: equal, canonical, fingerprint."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from fiberscope.cli.files import check_targets, load_network
from fiberscope.cli.options import DONE, EXIT_OF, common_options
from fiberscope.cli.output import emit
from fiberscope.cli.program import FILE, PATH, program
from fiberscope.cli.running import working


@program.command(
    short_help="Do two networks compute the same function? Certificate, counterexample or undecided.",
    epilog="Example: fiberscope equal before.onnx after.onnx --certificate proof.json",
)
@click.argument("f", type=PATH)
@click.argument("g", type=PATH)
@click.option("--certificate", type=FILE, metavar="FILE", help="Where the certificate of a YES goes.")
@common_options()
def equal(f: str, g: str, certificate: str | None, **options: Any) -> int:
    """Decide whether F and G compute the same function: exit 0 for yes, 1 for no, 3 for undecided.

    YES comes with a certificate that `fiberscope check` accepts, NO with an input at which they differ, replayed in
    exact arithmetic. "Nearly the same" is `fiberscope distance`.
    """
    from fiberscope.fibers import equal as run
    from fiberscope.results import Answer

    begin = time.perf_counter()
    check_targets(options, certificate, reads=[f, g])
    nets = [load_network(path, options) for path in (f, g)]
    with working(options) as work, work.progress() as progress:
        verdict = run(nets[0], nets[1], options["domain"], budget=work.budget, progress=progress, seed=options["seed"])
    body, text = verdict.to_dict(), f"{verdict.answer.name}: {verdict.reason}\n  method: {verdict.method}"
    body["certificate"] = None
    if verdict.answer is Answer.YES:
        proof = verdict.certificate
        body["certificate"] = {
            "kind": proof.data["kind"],
            "moves": len(proof.steps) + len(proof.back),
            "path": certificate,
        }
        if certificate:
            proof.write(certificate, force=options["force"])
            text += f"\nwrote {certificate}: accepted by the checker (fiberscope check {certificate} {f} {g})"
    elif verdict.answer is Answer.NO:
        text += f"\n{verdict.counterexample.table()}"
        body["counterexample"]["snippet"] = verdict.counterexample.snippet()
    emit("equal", body, text, nets, options, begin)
    return work.code(EXIT_OF[verdict.answer.name])


@program.command(
    short_help="The exact normal form of a network, and whether it is unique.",
    epilog="Example: fiberscope canonical model.onnx -o form.json",
)
@click.argument("path", type=PATH)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where the form with its exact weights goes, as JSON.")
@common_options()
def canonical(path: str, output: str | None, **options: Any) -> int:
    """Bring a network to its exact normal form; equal forms prove equal functions.

    The form is printed without its weights; -o writes them as exact rationals, with the moves that lead to it.
    """
    from fiberscope.fibers import canonical as run
    from fiberscope.io.files import atomic_write

    begin = time.perf_counter()
    check_targets(options, output, reads=[path])
    net = load_network(path, options)
    form = run(net, options["domain"])
    text = f"{path}\n{form}"
    if output:
        atomic_write(Path(output), json.dumps(form.to_dict(), allow_nan=False).encode(), options["force"])
        text += f"\nwrote {output}"
    emit("canonical", form.summary(), text, [net], options, begin)
    return DONE
