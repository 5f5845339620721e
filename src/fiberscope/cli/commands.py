"""The commands: each loads, calls the function of its name, prints, and returns its exit code."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fiberscope.cli.files import check_format, check_targets, load_network, network_files, theorem_keys, write_page
from fiberscope.cli.group import FILE, PATH, program
from fiberscope.cli.options import (
    BAD_INPUT,
    DONE,
    EXIT_OF,
    INTERRUPTED,
    NO,
    Number,
    common_options,
    output_option,
    worst,
)
from fiberscope.cli.output import described, emit, given, propose, put
from fiberscope.cli.running import Work, in_options, working
from fiberscope.errors import InputError, PartError

if TYPE_CHECKING:
    from fiberscope.inspection import Inspection


@program.command(
    short_help="What is redundant, what training can do, which theorems apply.",
    epilog="Example: fiberscope inspect model.onnx --domain '[0,1]' --html report.html",
)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--fail-on", type=click.Choice(["redundant"]), help="Exit with 1 if a network is redundant (for CI).")
@common_options()
def inspect(paths: tuple[str, ...], fail_on: str | None, **options: Any) -> int:
    """Tell what is redundant in networks, what training can do, and which theorems apply.

    PATHS are files, or folders that are searched for known formats.
    """
    begin, files = time.perf_counter(), network_files(paths)
    check_targets(options, reads=files)
    if len(files) > 1 or any(Path(path).is_dir() for path in paths):
        return _inspect_many(files, fail_on, options, begin)
    try:
        with working(options) as work:
            result = _inspect_one(files[0], work, options)
    except PartError:
        if not options["allow_opaque"]:
            raise
        return _inspect_many(files, fail_on, options, begin)
    emit("inspect", result.to_dict(), f"{files[0]}\n{result}", [result.network], options, begin)
    return work.code(NO if fail_on and result.redundant else DONE)


def _inspect_one(path: Path, work: Work, options: dict[str, Any], *, several: bool = False) -> Inspection:
    from fiberscope.inspection import inspect as run

    net = load_network(path, options, several=several)
    with work.progress() as progress:
        return run(net, options["domain"], budget=work.budget, progress=progress)


def _inspect_many(files: Sequence[Path], fail_on: str | None, options: dict[str, Any], begin: float) -> int:
    """One line for each network and one for all; a refused file is listed with its reason and decides the exit code.

    Of a file that holds several networks each is inspected, unless --part names one.
    """
    codes, rows, nets, redundant = [DONE], [], [], 0
    waiting = deque((path, options) for path in files)
    with working(options) as work:
        while waiting:
            path, chosen = waiting.popleft()
            row = {"path": str(path)} if chosen["part"] is None else {"path": str(path), "part": chosen["part"]}
            try:
                if work.interrupted:
                    raise InputError("not read: interrupted")
                result = _inspect_one(path, work, chosen, several=True)
            except PartError as exc:
                waiting.extendleft((path, {**options, "part": name}) for name in reversed(exc.parts))
                continue
            except InputError as exc:
                codes.append(BAD_INPUT)
                rows.append({**row, "error": in_options(str(exc)).removeprefix(f"{path}: ")})
                line = f"refused: {rows[-1]['error']}"
            else:
                codes.append(NO if fail_on and result.redundant else DONE)
                rows.append({**row, **result.to_dict()})
                nets.append(result.network)
                redundant += result.redundant
                line = _summary(result)
            if not options["as_json"]:
                put(" ".join(row.values()) + f": {line}")
    counts = {"files": len(files), "networks": len(nets), "redundant": redundant, "refused": len(rows) - len(nets)}
    data = described("inspect", {"results": rows, "counts": counts}, nets, options["seed"], begin)
    if options["as_json"]:
        put(json.dumps(data, allow_nan=False))
    else:
        many = f"{len(files)} file{'' if len(files) == 1 else 's'}"
        several = "" if len(nets) + counts["refused"] == len(files) else f", {len(rows)} networks"
        put(f"{many}{several}: {redundant} redundant, {len(nets) - redundant} not, {counts['refused']} refused")
    write_page(options, [{**row, **_alone(row)} for row in rows if "error" not in row])
    propose(data, options)
    return work.code(worst(codes))


def _alone(row: Mapping[str, Any]) -> dict[str, Any]:
    """What one network of a batch would be asked for with by itself, for its part of the page."""
    asked = given()
    part = {"--part": row["part"]} if row.get("part") else {}
    return {"given": {**asked, "arguments": [row["path"]], "options": {**asked.get("options", {}), **part}}}


def _summary(result: Inspection) -> str:
    from fiberscope.results import counted

    before, after = result.network.hidden_count, result.reduction.network.hidden_count
    none = f"{counted(before, 'hidden neuron')}, none redundant" if before else "no hidden neuron"
    verdict = f"{before} -> {after} hidden neurons" if result.redundant else none
    return f"{result.network.architecture}: {verdict}"


@program.command(
    short_help="Remove neurons without changing the function, with a certificate.",
    epilog="Example: fiberscope reduce model.onnx -o small.onnx",
)
@click.argument("path", type=PATH)
@output_option("Where the smaller network goes.")
@click.option(
    "--certificate", type=FILE, metavar="FILE", help="Where the certificate goes (default: OUTPUT.certificate.json)."
)
@click.option("--exact", "exact_only", is_flag=True, help="Only steps whose weights fit the dtype: nothing is rounded.")
@click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="Of the written weights.")
@click.option(
    "--tolerance",
    type=Number(min=0),
    default=0.0,
    metavar="EPS",
    help="Merge near copies while the certified change of every output stays below EPS on the domain.",
)
@common_options()
def reduce(path: str, output: str | None, certificate: str | None, exact_only: bool, dtype: str | None,
           tolerance: float, **options: Any) -> int:  # fmt: skip
    """Remove neurons without changing the function, with a certificate.

    The written file keeps names, shapes, dtype and metadata of the original. Without -o nothing but the report is
    written.
    """
    from fiberscope.io.reduced import save_reduction
    from fiberscope.reduction import reduce as run

    if certificate and not output:
        raise InputError("--certificate is about a written file; add -o FILE")
    proof = certificate or (f"{output}.certificate.json" if output else None)
    check_targets(options, output, proof, reads=[path])
    if output:
        check_format(output)
    begin = time.perf_counter()
    try:
        net = load_network(path, options)
    except PartError:
        if not options["allow_opaque"]:
            raise
        return _reduce_chains(path, output, exact_only, options, begin)
    with working(options) as work, work.progress() as progress:
        result = run(
            net, options["domain"], tolerance=tolerance, dtype=dtype, exact_only=exact_only, budget=work.budget,
            progress=progress,
        )  # fmt: skip
    body, text = result.to_dict(), f"{path}\n{result}"
    if result.rounding.kind == "rounded":
        wider = "" if result.rounding.dtype == "float64" else "--dtype float64 rounds less, "
        text += f"\n  so fiberscope equal may answer NO: the functions differ by that; {wider}--exact rounds nothing"
    if output:
        written, copied = save_reduction(result, output, force=options["force"], certificate=certificate)
        kind = "a drop-in for" if copied else "a new file, not a copy of"
        text += f"\nwrote {output}: {kind} {path}\nwrote {proof}: checked against both files"
        body["output"] = {
            "path": output, "drop_in": copied, "certificate": proof, "sha256": written.data["target"]["sha256"],
        }  # fmt: skip
    else:
        text += "\nnothing written; add -o FILE"
    emit("reduce", body, text, [net], options, begin)
    return work.code(DONE)


def _reduce_chains(path: str, output: str | None, exact_only: bool, options: dict[str, Any], begin: float) -> int:
    """Reduce every chain between opaque nodes, for all real inputs of each, and write them into a copy of the model."""
    from fiberscope.io.onnx import read_parts
    from fiberscope.io.reduced import save_chain_reductions
    from fiberscope.reduction import reduce as run

    if options["domain"] not in (None, "everywhere"):
        raise InputError(f"{path}: --domain is about the inputs of one chain; name it with --part")
    model = read_parts(Path(path))
    with working(options) as work, work.progress() as progress:
        results = [run(net, exact_only=exact_only, budget=work.budget, progress=progress) for net in model.chains]
    names = [f"chain{k + 1}" for k in range(len(results))]
    text = "\n".join(f"{path} {name}\n{result}" for name, result in zip(names, results, strict=True))
    kinds = ", ".join(dict.fromkeys(operator for _, operator in model.opaque))
    text += f"\nopaque nodes left alone: {kinds}; nothing is said about the whole model"
    body: dict[str, Any] = {"results": [{"part": n, **r.to_dict()} for n, r in zip(names, results, strict=True)]}
    body["skipped"] = [{"layer": name, "reason": f"opaque operator {kind}"} for name, kind in model.opaque]
    if output:
        proofs = save_chain_reductions(model, results, output, force=options["force"])
        text += "\n" + "\n".join(f"wrote {place}" for place in (output, *proofs))
        body["output"] = {"path": output, "drop_in": True, "certificates": [str(p) for p in proofs]}
    emit("reduce", body, text, list(model.chains), options, begin)
    return work.code(DONE)


@program.command(
    short_help="Check a certificate that two files compute the same.",
    epilog="Example: fiberscope check small.onnx.certificate.json model.onnx small.onnx",
)
@click.argument("certificate", type=PATH)
@click.argument("f", type=PATH)
@click.argument("g", type=PATH)
@common_options(domain=False, search=False)
def check(certificate: str, f: str, g: str, **options: Any) -> int:
    """Check a certificate between two files; exit 0 if it is accepted and 1 if not.

    F is the original, G the file that is claimed to compute the same. The checker shares no code with the search that
    made the certificate.
    """
    from fiberscope.certificates import Certificate
    from fiberscope.certificates import check as run
    from fiberscope.results import Answer

    begin = time.perf_counter()
    check_targets(options, reads=[certificate, f, g])
    proof, nets = Certificate.read(certificate), [load_network(path, options) for path in (f, g)]
    verdict = run(proof, *nets)
    body = verdict.to_dict()
    body["certificate"] = {
        "path": certificate, "kind": proof.data["kind"], "moves": len(proof.steps) + len(proof.back),
        "bound": proof.data.get("bound"),
    }  # fmt: skip
    word = "accepted" if verdict.answer is Answer.YES else "rejected"
    emit("check", body, f"{word}: {verdict.reason}", nets, options, begin)
    return EXIT_OF[verdict.answer.name]


@program.command(
    short_help="BibTeX of theorems, or of those a saved result rests on.",
    epilog="Example: fiberscope cite equitable-sim, or: fiberscope cite result.json",
)
@click.argument("what", nargs=-1)
@common_options(domain=False, networks=False, search=False)
def cite(what: tuple[str, ...], **options: Any) -> int:
    """Print BibTeX for theorems, or for those a saved JSON result rests on; without arguments list the theorems."""
    from fiberscope.theorems import THEOREMS, theorem
    from fiberscope.theorems import cite as run

    begin = time.perf_counter()
    check_targets(options, reads=what)
    keys = list(dict.fromkeys(key for word in what for key in theorem_keys(word))) if what else list(THEOREMS)
    rows = [theorem(key) for key in keys]
    text = run(*keys) if what else "\n".join(f"{row.key}: {row.name}" for row in rows)
    body = {"theorems": keys, "statements": [vars(row) for row in rows], "bibtex": run(*keys)}
    emit("cite", body, text, [], options, begin)
    return DONE


@program.command(
    short_help="A tour on small bundled networks: six questions, one page.",
    epilog="Example: fiberscope demo --out fiberscope-demo",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="fiberscope-demo",
    show_default=True,
    metavar="DIR",
    help="Folder for the page and the files it is about.",
)
@common_options(domain=False, networks=False)
def demo(out: str, **options: Any) -> int:
    """Ask six questions about small networks that come with the package, and write one page with all answers.

    Every number is computed by the commands that the page names; --budget is for the whole tour.
    """
    if "numpy" not in sys.modules:  # the matrices of the tour are small: threads would only wait for each other
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fiberscope.cli.tour import guided_tour as run

    begin = time.perf_counter()
    if options["html"]:
        check_targets(options)
    with working(options) as work, work.progress() as progress:
        tour = run(
            out, page=options["html"], force=options["force"], budget=work.budget, seed=options["seed"],
            progress=progress,
        )  # fmt: skip
    emit("demo", tour.to_dict(), str(tour), tour.networks, {**options, "html": None}, begin)
    return INTERRUPTED if tour.interrupted else work.code(DONE)
