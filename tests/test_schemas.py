"""The JSON Schemas shipped with the package describe what the commands print: every field, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fiberscope as fs
from fiberscope.cli import program
from fiberscope.cli.group import leaves

jsonschema = pytest.importorskip("jsonschema")

FOLDER = Path(fs.__file__).parent / "schemas"
SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
ACTIVATIONS = ("relu", "tanh", "softplus", "leaky_relu", "sin", "square", "identity")


def nodes(value: Any) -> Any:
    """Every object inside a schema."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every object closed, so that a field it does not describe is an error."""
    out: dict[str, Any] = copy.deepcopy(schema)
    merged = [id(part) for node in nodes(out) for part in node.get("allOf", [])]
    shared = {name for node in nodes(out) for part in node.get("allOf", []) if (name := part.get("$ref"))}
    open_too = merged + [id(out["$defs"][name.rpartition("/")[2]]) for name in shared]
    for node in nodes(out):
        if "allOf" in node:
            node["unevaluatedProperties"] = False
        elif "properties" in node and id(node) not in open_too and node.get("type") == "object":
            node["additionalProperties"] = False
    return out


def reached(schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator(closed(schema)).validate(value)


def printed(*argv: str | Path, code: int = 0) -> Any:
    """The JSON document of a command, which is all that it prints to stdout."""
    done = CliRunner().invoke(program, [str(word) for word in argv], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    assert done.return_value == code, done.output

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} in JSON")

    return json.loads(done.stdout, parse_constant=refuse)


def networks() -> list[fs.Network]:
    """Every activation, one to four layers, and each kind of redundancy."""
    out = [
        fs.Network.random(widths, activation=name, seed=len(name))
        for name in ACTIVATIONS
        for widths in ((2, 3, 2), (2, 3, 3, 1), (2, 2))
    ]
    weights = [[1.0, 2.0], [1.0, 2.0], [2.0, 4.0], [0.0, 0.0], [-1.0, -2.0], [3.0, 1.0]]
    biases = [1.0, 1.0, 2.0, -1.0, -1.0, 0.5]
    above = [[1.0, 1.0, 0.5, 1.0, 1.0, 0.0]]
    out += [fs.Network.from_arrays((weights, biases), (above, [0.0]), activation=name) for name in ACTIVATIONS]
    out.append(fs.Network.from_arrays((weights, [9.0] * 6), (above, [0.0]), activation="relu"))
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "twin.safetensors"
    rows = [[0.5, 1.0], [0.5, 1.0], [1.5, 3.0], [0.1, 0.2]]
    net = fs.Network.from_arrays(
        (rows, [0.125, 0.125, 0.375, 0.0]), ([[1.0, 0.5, 0.25, 0.9]], [0.0]), activation="relu"
    )
    fs.save(net, path)
    return path


def test_there_is_a_schema_for_every_command() -> None:
    assert set(SCHEMAS) == {name.replace(" ", "-") for name in leaves()}
    for name, schema in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"urn:fiberscope:{name}:1"
        tags = [node["schema"]["const"] for node in nodes(schema) if "const" in str(node.get("schema", ""))]
        assert tags and set(tags) == {f"fiberscope/{name}/1"}


def test_definitions_of_one_name_are_the_same_everywhere() -> None:
    seen: dict[str, Any] = {}
    for schema in SCHEMAS.values():
        for name, definition in schema["$defs"].items():
            assert seen.setdefault(name, definition) == definition, name


def test_every_definition_is_used() -> None:
    for command, schema in SCHEMAS.items():
        used = {node["$ref"].rpartition("/")[2] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
        assert used == set(schema["$defs"]), command


@pytest.mark.parametrize("domain", [None, "nonnegative", "[-1,1]"])
def test_inspections_of_all_kinds(domain: str | None, tmp_path: Path) -> None:
    paths = [tmp_path / f"{k:02}.npz" for k in range(len(networks()))]
    for path, net in zip(paths, networks(), strict=True):
        fs.save(net, path)
    (tmp_path / "zz.npz").write_bytes(b"PK\x03\x04")
    chosen = ["--domain", domain] if domain else []
    data = printed("inspect", tmp_path, "--json", *chosen, code=2)
    reached(SCHEMAS["inspect"], data)
    assert data["counts"]["files"] == len(paths) + 1 == len(data["results"])
    assert data["counts"]["refused"] == 1
    assert [row["path"] for row in data["results"]] == [str(p) for p in (*paths, tmp_path / "zz.npz")]
    one = printed("inspect", paths[-1], "--json", *chosen)
    reached(SCHEMAS["inspect"], one)
    same = {key: value for key, value in data["results"][-2].items() if key not in ("path", "wall_s", "reduction")}
    assert {key: one[key] for key in same} == same


MANNERS = [(), ("--exact",), ("--dtype", "float16"), ("--domain", "[0,1]", "--tolerance", "0.5")]


@pytest.mark.parametrize("more", MANNERS)
def test_reductions(more: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    reached(SCHEMAS["reduce"], printed("reduce", model, "--json", *more))
    data = printed("reduce", model, "-o", tmp_path / "small.safetensors", "--json", *more)
    reached(SCHEMAS["reduce"], data)
    assert data["hidden_after"] < data["hidden_before"] == 4
    proof = data["output"]["certificate"]
    verdict = printed("check", proof, model, data["output"]["path"], "--json")
    reached(SCHEMAS["check"], verdict)
    assert (verdict["answer"], verdict["certificate"]["path"]) == ("YES", proof)
    assert verdict["inputs"][1]["sha256"] == data["output"]["sha256"]
    refused = printed("check", proof, model, model, "--json", code=1)
    reached(SCHEMAS["check"], refused)
    assert refused["answer"] == "NO" and refused["counterexample"]


def test_the_other_commands(model: Path, tmp_path: Path) -> None:
    reached(SCHEMAS["smallest-sim"], printed("smallest-sim", model, "--json"))
    for net in networks():
        fs.save(net, tmp_path / "net.npz", force=True)
        reached(SCHEMAS["smallest-sim"], printed("smallest-sim", tmp_path / "net.npz", "--json"))
    reached(SCHEMAS["cite"], printed("cite", "--json"))
    reached(SCHEMAS["cite"], printed("cite", "scaling-balance", "lossless-moves", "--json"))
    reached(SCHEMAS["demo"], printed("demo", "--out", tmp_path / "tour", "--json"))


@pytest.mark.parametrize("name", ["relu", "tanh", "gaussian", "identity", "gelu"])
def test_training_commands(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    rows = [[1.0, 2.0], [1.0, 2.0], [3.0, -1.0]]
    fs.save(fs.Network.from_arrays((rows, [0.5, 0.5, 1.0]), ([[1.0, 1.0, 2.0]], [0.0]), activation=name), path)
    given = ("--activation", name, "--json")
    reached(SCHEMAS["orbit"], printed("orbit", path, *given))
    reached(SCHEMAS["orbit"], printed("orbit", "--widths", "2,3,1", *given))
    reached(SCHEMAS["sims"], printed("sims", path, *given))
    reached(SCHEMAS["sims"], printed("sims", "--widths", "3,8,1", "--count", *given))
    reached(SCHEMAS["conserved"], printed("conserved", path, *given))
    reached(SCHEMAS["smallest-sim"], printed("smallest-sim", path, "--tolerance", "0.01", *given))


def bent(c: float = -6.0, b: float = 0.0) -> fs.Network:
    """Two second-layer neurons that hide the first first-layer kink: b moves it, with c following, unseen."""
    first, second = ([[1.0, 0.0], [0.0, 1.0]], [b, 0.0]), ([[2.0, -1.0], [1.0, -3.0]], [-4.0 - 2 * b, c - b])
    return fs.Network.from_arrays(first, second, ([[1.0, 1.0]], [0.0]), activation="relu")


def test_comparisons_of_all_outcomes(tmp_path: Path) -> None:
    smooth = [fs.Network.random((2, 3, 1), activation="tanh", seed=k) for k in range(2)]
    nets = {"f": bent(), "same": bent(b=-1.0), "other": bent(c=-5.75), "smooth": smooth[0], "smooth2": smooth[1]}
    for name, net in nets.items():
        fs.save(net, tmp_path / f"{name}.npz")
    f = tmp_path / "f.npz"
    cases = [(f, tmp_path / "same.npz", 0), (f, tmp_path / "other.npz", 1), (f, f, 0),
             (tmp_path / "smooth.npz", tmp_path / "smooth2.npz", 1)]  # fmt: skip
    seen = {}
    for a, b, code in cases:
        data = printed("equal", a, b, "--json", code=code)
        reached(SCHEMAS["equal"], data)
        seen[a.stem, b.stem] = data
    proof = tmp_path / "proof.json"
    written = printed("equal", f, tmp_path / "same.npz", "--certificate", proof, "--json")
    reached(SCHEMAS["equal"], written)
    assert written["certificate"]["path"] == str(proof) and seen["f", "same"]["certificate"]["path"] is None
    assert sum(written["certificate"]["move_counts"].values()) == written["certificate"]["moves"] > 0
    reached(SCHEMAS["check"], printed("check", proof, f, tmp_path / "same.npz", "--json"))
    reached(SCHEMAS["check"], printed("check", proof, f, f, "--json", code=1))
    assert seen["f", "other"]["counterexample"]["exact"] and not seen["smooth", "smooth2"]["counterexample"]["exact"]
    reached(SCHEMAS["equal"], undecided(tmp_path))
    for name, rows in (("x", [[1.0, -1.0], [0.0, 1.0], [0.0, -1.0]]), ("y", [[-1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])):
        biggest = fs.Network.from_arrays(
            (rows, [0.0] * 3), ([[1.0, 1.0, -1.0]], [0.0]), ([[1.0]], [0.0]), activation="relu"
        )
        fs.save(biggest, tmp_path / f"{name}.npz")  # relu(max(x, y)), from either side
    data = printed("equal", tmp_path / "x.npz", tmp_path / "y.npz", "--certificate", tmp_path / "tree.json", "--json")
    reached(SCHEMAS["equal"], data)
    assert data["certificate"]["kind"] == "cases" and data["certificate"]["cases"] >= 1
    argv = ("check", tmp_path / "tree.json", tmp_path / "x.npz", tmp_path / "y.npz", "--json")
    reached(SCHEMAS["check"], printed(*argv))


def undecided(folder: Path) -> Any:
    """Two networks that are told apart only by their heads."""
    for name, head in (("plain", None), ("soft", "softmax")):
        arrays = ([[1.0, 0.0]], [0.0]), ([[1.0], [2.0]], [0.0, 1.0])
        fs.save(fs.Network.from_arrays(*arrays, activation="relu", head=head), folder / f"{name}.safetensors")
    return printed("equal", folder / "plain.safetensors", folder / "soft.safetensors", "--json", code=3)


def test_normal_forms_and_fingerprints(tmp_path: Path) -> None:
    for k, net in enumerate([*networks(), bent(), bent(b=-1.0)]):
        fs.save(net, tmp_path / f"{k:02}.npz")
        form = printed("canonical", tmp_path / f"{k:02}.npz", "--json")
        reached(SCHEMAS["canonical"], form)
        assert form["fingerprint"].startswith("fs1:" if form["unique"] else "fs1s:")
    reached(SCHEMAS["canonical"], printed("canonical", tmp_path / "00.npz", "--domain", "[0,1]", "--json"))
    (tmp_path / "zz.npz").write_bytes(b"PK")
    data = printed("fingerprint", tmp_path, "--json", code=2)
    reached(SCHEMAS["fingerprint"], data)
    assert data["groups"] and data["counts"]["refused"] == 1
    for change in ({"groups": [{"fingerprint": "fs1:0", "networks": ["a", "b"]}]}, {"results": [{"path": "x"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**data, **change}, SCHEMAS["fingerprint"])


def test_alignments(tmp_path: Path) -> None:
    for k in range(2):
        fs.save(fs.Network.random((3, 5, 2), activation=("relu", "tanh")[k], seed=k), tmp_path / f"{k}.npz")
        fs.save(fs.Network.random((3, 5, 2), activation=("relu", "tanh")[k], seed=k + 5), tmp_path / f"{k}b.npz")
        reached(SCHEMAS["align"], printed("align", tmp_path / f"{k}.npz", tmp_path / f"{k}b.npz", "--json"))


def test_distances(tmp_path: Path) -> None:
    """The two differ by relu(z + 1/4) - relu(z) <= 1/4, and by 1/4 where x is large."""
    for name, net in (("f", bent()), ("g", bent(c=-5.75, b=-1.0))):
        fs.save(net, tmp_path / f"{name}.npz")
    pair = (tmp_path / "f.npz", tmp_path / "g.npz", "--json", "--budget", "5")
    for more, code, answer in (
        (("--domain", "[0,9]"), 0, None), (("--domain", "[0,9]", "--below", "0.5"), 0, "YES"),
        (("--domain", "[0,9]", "--below", "0.1"), 1, "NO"), (("--below", "0.5"), 3, "UNDECIDED"),
    ):  # fmt: skip
        data = printed("distance", *pair, *more, code=code)
        reached(SCHEMAS["distance"], data)
        assert data["answer"] == answer and data["lower"] <= 0.25
        assert data["upper"] == "inf" or data["upper"] >= 0.25


def described(node: Any, where: str) -> Any:
    """Places of objects whose required fields are not exactly those they describe, or lack a type."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node and "required" not in node:
            yield where
        for key, item in node.items():
            yield from described(item, f"{where}/{key}")
    elif isinstance(node, list):
        for k, item in enumerate(node):
            yield from described(item, f"{where}/{k}")


def test_required_fields_are_described() -> None:
    for command in ("equal", "canonical", "fingerprint", "align", "distance", "fiber"):
        assert list(described(SCHEMAS[command], command)) == []
        for node in nodes(SCHEMAS[command]):
            assert set(node.get("required", ())) <= set(node.get("properties", ())) or "properties" not in node


def test_a_schema_refuses_what_is_wrong(model: Path) -> None:
    good = printed("inspect", model, "--json")
    schema = SCHEMAS["inspect"]
    jsonschema.validate(good, schema)
    for change in (
        {"schema": "fiberscope/inspect/2"},
        {"inputs": [{"path": "x"}]},
        {"fiber": {}},
        {"findings": [{"text": "x", "rigor": "CERTAIN", "level": "note", "layer": None}]},
        {"reduction": None},
        {"wall_s": -1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **change}, schema)
    for name in good:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in good.items() if key != name}, schema)
    with pytest.raises(jsonschema.ValidationError):
        reached(schema, {**good, "surprise": 1})


def test_networks_whose_floats_overflow_give_json_without_nan(tmp_path: Path) -> None:
    big = fs.Network.from_arrays(([[1e200], [1e200]], [0.0, 1.0]), ([[1e200, 1e200]], [0.0]), activation="relu")
    fs.save(big, tmp_path / "big.npz")
    data = printed("inspect", tmp_path / "big.npz", "--json")
    reached(SCHEMAS["inspect"], data)
    assert data["balance"][0]["min"] is None or abs(float(data["balance"][0]["min"])) > 1e300


def test_real_networks(shared: Path) -> None:
    folders = [shared / "models" / name for name in ("vnncomp2020_tanh", "nnequivalence_h5", "lyapunov_stable")]
    for folder in filter(Path.is_dir, folders):
        argv = ["inspect", str(folder), "--json", "--budget", "2"]
        done = CliRunner().invoke(program, argv, standalone_mode=False)
        assert done.exception is None and done.return_value in (0, 2), done.output
        data = json.loads(done.stdout)
        reached(SCHEMAS["inspect"], data)
        assert all("\n" not in row.get("error", "") for row in data["results"])


def test_fibers(tmp_path: Path) -> None:
    dead = fs.Network.from_arrays(
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, 2.0], [-1.0, 0.0], [1.0, -1.0]], [1.0, -1.0, 1.0]),
        ([[1.0, 2.0, 3.0]], [0.0]), activation="relu",
    )  # fmt: skip
    for k, net in enumerate([*networks(), bent(), dead]):
        fs.save(net, tmp_path / "net.npz", force=True)
        data = printed("fiber", tmp_path / "net.npz", "--json")
        reached(SCHEMAS["fiber"], data)
        assert data["parameters"] == net.parameter_count, k
    reached(SCHEMAS["fiber"], printed("fiber", tmp_path / "net.npz", "--html", tmp_path / "page.html", "--json"))
    assert data["types"] == {"active": [0], "dead": [1], "split": [2]}


FLOWS = {
    "angle": [["--until", "20", "--outputs", "3", "--refine"], ["--dimension", "2", "--subspace", "1", "--times", "0,1",
               "--init", "quantile", "--nodes", "4"], ["--budget", "0"]],
    "odd": [[], ["--slope-norm", "0", "--variance", "2"]],
    "linear": [["DATA"], ["DATA", "--centre", "--relu", "--times", "0"]],
    "lowdim": [["--target", "abs", "--subspace", "1", "--dimension", "3", "--until", "2", "--outputs", "2"],
               ["--target", "relu", "--subspace", "1", "--dimension", "3", "--nodes", "4", "--times", "0,1",
                "--refine"]],
    "particles": [["--target", "l1:2", "--dimension", "3", "--width", "48", "--symmetric", "--outputs", "2"],
                  ["--target", "relu", "--dimension", "2", "--width", "3", "--outputs", "2"], ["--target", "abs",
                   "--dimension", "2", "--width", "8", "--start", "axes", "--budget", "0"]],
    "reduction": [["--target", "norm:2", "--dimension", "4"], ["--target", "linear:1,2", "--dimension", "3"],
                  ["--target", "l1:2", "--dimension", "3"], ["--target", "index:tanh", "--dimension", "2"],
                  ["--target", '{"kind": "constant", "value": 1, "dimension": 2}']],
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, runs in FLOWS.items() for words in runs])
def test_flows_of_infinite_width(name: str, words: list[str], tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("a,b,y\n1,2,3\n0,1,-1\n2,0.5,1\n-1,1,0\n")
    given = [str(table) if word == "DATA" else word for word in words]
    reached(SCHEMAS[f"meanfield-{name}"], printed("meanfield", name, *given, "--json"))


def test_commands_about_recovery(tmp_path: Path) -> None:
    made = {
        "target": fs.Network.from_arrays(([[0.6, 0.8], [0, 0.6]], [0, 0.2]), ([[1, 1]], [0.0]), activation="tanh"),
        "one": fs.Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], [0.0]), activation="tanh"),
        "deep": fs.Network.random((2, 3, 3, 1), activation="tanh", seed=1),
        "relu": fs.Network.random((2, 3, 2), activation="relu", seed=1),
    }
    for name, net in made.items():
        fs.save(net, tmp_path / f"{name}.npz")
    x = np.random.default_rng(0).normal(size=(12, 2))
    np.savez(tmp_path / "planted.npz", X=x, y=made["target"](x)[:, 0])
    np.savez(tmp_path / "noise.npz", X=x, y=np.random.default_rng(1).normal(size=12))
    np.savez(tmp_path / "diagonal.npz", X=[[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], y=[1.0, 0])
    runs = [
        ("rank", "target"), ("rank", "deep"), ("rank", "relu", "--no-bias"),
        ("predict-recovery", "target", "--widths", "4"),
        ("predict-recovery", "deep", "--widths", "4,4", "--output-bias"),
        ("recover", "planted", "--widths", "1-3", "--starts", "16"),
        ("recover", "noise", "--widths", "1,2", "--starts", "4", "--noise", "bic"),
        ("recover", "noise", "--widths", "1", "--starts", "4", "--noise", "held-out", "--wide", "4"),
        ("recover", "planted", "--widths", "2", "--budget", "0"),
        ("embed", "target", "--widths", "4"), ("embed", "deep", "--widths", "4,5", "--how", "mixed"),
        ("embed", "target", "--widths", "3", "--how", "compatible"),
        ("diagonal", "diagonal"), ("diagonal", "diagonal", "--depth", "3", "--flow", "--scales", "0.3"),
        ("diagonal", "diagonal", "--floats"), ("diagonal", "diagonal", "--flow", "--budget", "0"),
        ("phase-diagram", "one", "--samples", "3,6", "--widths", "1,2", "--seeds", "2", "--workers", "1"),
        ("phase-diagram", "one", "--samples", "6", "--widths", "1", "--workers", "1", "--budget", "0"),
        ("condensation", "target"), ("condensation", "deep"), ("condensation", "relu"),
    ]  # fmt: skip
    for command, name, *words in runs:
        reached(SCHEMAS[command], printed(command, tmp_path / f"{name}.npz", *words, "--json"))
    for words in (["--width", "5", "--target-width", "2"], ["--width", "3", "--target-width", "1", "--bias",
                   "--activation", "tanh"]):  # fmt: skip
        reached(SCHEMAS["strata"], printed("strata", *words, "--inputs", "2", "--json"))
