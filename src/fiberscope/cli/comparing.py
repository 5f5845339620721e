"""Commands about which networks are the same: equal, distance, align, canonical, fingerprint, fiber."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fiberscope.cli.files import check_format, check_targets, in_floats, load_network, network_files, write_page
from fiberscope.cli.group import FILE, PATH, program
from fiberscope.cli.options import (
    BAD_INPUT,
    DONE,
    EXIT_OF,
    Number,
    common_options,
    output_option,
    sweep_options,
)
from fiberscope.cli.output import described, emit, propose, put
from fiberscope.cli.running import working

if TYPE_CHECKING:
    from fiberscope.network import Network

_WALKED = 300
"""Hidden neurons up to which members are sampled: their weights are rationals."""


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
    how = "found by trying inputs" if verdict.method == "samples" else f"method: {verdict.method}"
    body, text = verdict.to_dict(), f"{verdict.answer.name}: {verdict.reason}\n  {how}"
    body["verdict"], body["certificate"] = verdict.answer.name, None
    if verdict.answer is Answer.YES:
        proof = verdict.certificate
        body["certificate"] = {
            "kind": proof.data["kind"],
            "moves": len(proof.steps) + len(proof.back),
            "move_counts": dict(Counter(step["move"] for step in (*proof.steps, *proof.back))),
            "cases": sum("leaf" in node for node in proof.data["nodes"]) if "nodes" in proof.data else None,
            "path": certificate,
        }
        if certificate:
            proof.write(certificate, force=options["force"])
            text += f"\nwrote {certificate}: accepted by the checker (fiberscope check {certificate} {f} {g})"
    elif verdict.answer is Answer.NO:
        text += f"\n{verdict.counterexample.table()}"
        snippet = verdict.counterexample.snippet(*(_loading(net) for net in nets))
        body["counterexample"]["snippet"] = f"import fiberscope as fs\n{snippet}"
    emit("equal", body, text, nets, options, begin)
    return work.code(EXIT_OF[verdict.answer.name])


def _loading(net: Network) -> str:
    """Python that reads the network again."""
    source = net.source
    part = f", part={source.part!r}" if source and source.part else ""
    return f"fs.load({source.path if source else ''!r}{part})"


@program.command(
    short_help="The exact normal form of a network, and whether it is unique.",
    epilog="Example: fiberscope canonical model.onnx -o form.json",
)
@click.argument("path", type=PATH)
@output_option("Where the form with its exact weights goes, as JSON.")
@common_options(search=False)
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


@program.command(
    short_help="A name for the function of each network; equal ones are grouped.",
    epilog="Example: fiberscope fingerprint zoo/ --resume zoo.jsonl --workers 8",
)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@sweep_options("Keep results here, line by line; the same command goes on where it ended.", "this process alone")
@common_options(domain=False, search=False)
def fingerprint(paths: tuple[str, ...], resume: str | None, workers: int | None, cluster: str | None,
                **options: Any) -> int:  # fmt: skip
    """Name functions: two fs1: names are equal exactly if the functions are.

    Where that is not proved for a network its name begins with fs1s: and equal names prove equality, different ones
    nothing. PATHS are files, or folders that are searched for known formats.
    """
    from fiberscope.cli.fingerprints import fingerprint_files, groups_of, name_of, rows_of
    from fiberscope.results import Budget

    begin, files = time.perf_counter(), network_files(paths)
    check_targets(options, reads=[*files, *([resume] if resume else [])])
    with working(options) as work, work.progress() as progress:
        budget = Budget(cancelled=lambda: work.interrupted)
        run = fingerprint_files(
            files, options, path=resume, workers=workers, cluster=cluster, budget=budget, progress=progress
        )
    rows = rows_of(run)
    groups = groups_of(rows)
    refused = sum("error" in row for row in rows)
    counts = {
        "files": len(files), "networks": len(rows) - refused, "refused": refused, "groups": len(groups),
        "unfinished": run.cells - run.finished,
    }  # fmt: skip
    theorems = list(dict.fromkeys(key for row in rows for key in row.get("theorems", ())))
    body = {"results": rows, "groups": groups, "counts": counts, "theorems": theorems}
    data = described("fingerprint", body, [], options["seed"], begin)
    if options["as_json"]:
        put(json.dumps(data, allow_nan=False))
    else:
        lines = [f"{row.get('fingerprint') or 'refused: ' + row['error']}  {name_of(row)}" for row in rows]
        for group in groups:
            lines += ["the same function:", *(f"  {name}" for name in group["networks"])]
        if len(files) > 1:
            several = "" if len(groups) == 1 else "s"
            unfinished = f", {counts['unfinished']} not done" if counts["unfinished"] else ""
            lines.append(
                f"{len(files)} files: {counts['networks']} network{'' if counts['networks'] == 1 else 's'}, "
                f"{len(groups)} group{several} of equal ones, "
                f"{refused} refused{unfinished}"
            )
        put("\n".join(lines))
    write_page(options, [data])
    propose(data, options)
    return work.code(BAD_INPUT if refused else DONE)


@program.command(
    short_help="A certified enclosure of the largest difference of two networks on a box.",
    epilog="Example: fiberscope distance before.onnx after.onnx --domain '[0,1]' --below 1e-3",
)
@click.argument("f", type=PATH)
@click.argument("g", type=PATH)
@click.option(
    "--below", type=Number(min=0, min_open=True), metavar="EPS",
    help="Stop once decided whether every output differs by less: exit 0 if so, 1 if not, 3 if undecided.",
)  # fmt: skip
@common_options()
def distance(f: str, g: str, below: float | None, **options: Any) -> int:
    """Enclose the largest difference of any output of F and G on a box: [lower, upper].

    The lower end is shown by an input, evaluated exactly; the upper end is proved, with every rounding error counted.
    """
    from fiberscope.fibers import distance as run

    begin = time.perf_counter()
    check_targets(options, reads=[f, g])
    nets = [load_network(path, options) for path in (f, g)]
    with working(options) as work, work.progress() as progress:
        bound = run(
            nets[0], nets[1], nets[0].domain(options["domain"]), below=below, budget=work.budget, progress=progress,
            seed=options["seed"],
        )  # fmt: skip
    emit("distance", bound.to_dict(), str(bound), nets, options, begin)
    return work.code(DONE if bound.answer is None else EXIT_OF[bound.answer.name])


@program.command(
    short_help="Bring the neurons of one network into the order and scale of another.",
    epilog="Example: fiberscope align base.safetensors tuned.safetensors -o aligned.safetensors",
)
@click.argument("f", type=PATH)
@click.argument("g", type=PATH)
@output_option("Where the aligned G goes.")
@common_options(domain=False, search=False)
def align(f: str, g: str, output: str | None, **options: Any) -> int:
    """Permute and rescale the hidden neurons of G so that its weights come near those of F; its function stays.

    For merging, averaging and comparing models of one architecture.
    """
    from fiberscope.fibers import align as run
    from fiberscope.io import save

    begin = time.perf_counter()
    check_targets(options, output, reads=[f, g])
    if output:
        check_format(output)
    nets = [load_network(path, options) for path in (f, g)]
    result = run(*nets)
    text = f"{g} aligned with {f}\n{result}"
    if output:
        written, how = in_floats(result.network, nets[1].dtype)
        save(written, output, force=options["force"], drop_in=False)
        text += f"\nwrote {output}: {written.architecture}{how}"
    emit("align", result.to_dict(), text, nets, options, begin)
    return DONE


@program.command(
    short_help="All parameters of a network's function: dimension, types, equations, samples.",
    epilog="Example: fiberscope fiber model.onnx --html fiber.html",
)
@click.argument("path", type=PATH)
@click.option("--samples", type=click.IntRange(min=0), default=4, show_default=True, help="Random members to draw.")
@common_options(domain=False, search=False)
def fiber(path: str, samples: int, **options: Any) -> int:
    """Describe the set of all parameters that compute the function of a network.

    The page of --html draws the kinks in a two-dimensional slice of input space and a sampled walk in the fiber.
    """
    from fiberscope.fibers import fiber as run
    from fiberscope.fibers.slices import kinks_in_slice, sampled_walk

    begin = time.perf_counter()
    check_targets(options, reads=[path])
    net = load_network(path, options)
    found = run(net)
    linear = all(row.activation.pieces for row in net.layers)
    cut = kinks_in_slice(net, seed=options["seed"]) if options["html"] and linear else None
    walk = sampled_walk(found, cut, samples, seed=options["seed"]) if net.hidden_count <= _WALKED else []
    body = {**found.to_dict(), "slice": None if cut is None else cut.to_dict(), "walk": walk}
    text = f"{path}\n{found}"
    if walk:
        moves = ", ".join(dict.fromkeys(move for step in walk for move in step["moves"])) or "none is known"
        text += f"\nsampled members: {len(walk)}, each with exactly this function; moves: {moves}"
    emit("fiber", body, text, [net], options, begin)
    return DONE
