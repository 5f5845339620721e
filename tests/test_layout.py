"""The layer order of the package, the doors of foreign packages, and what an import costs."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fiberscope

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "fiberscope"

# Top to bottom. A part imports only parts below its line, or itself; parts of one line never import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("pages",),  # the function is fiberscope.report, so the package cannot be
    ("inspection", "training"),
    ("invariants", "fibers", "meanfield", "io"),
    ("reduction",),
    ("certificates",),
    ("symmetries",),  # quotients by the classes that neurons finds
    ("neurons",),
    ("rowclasses",),  # the rows under the neurons
    ("programs",),  # proposes slopes for bounds
    ("bounds", "sweeps"),
    ("models",),
    ("autodiff",),
    ("network",),
    ("layers",),
    ("activations",),
    ("domains",),
    ("arguments",),  # what users hand over, read or refused
    ("rationals", "balls", "results"),
    ("theorems",),
    ("errors",),
    ("_version", "facades"),
)
LEVEL = {part: depth for depth, line in enumerate(ORDER) for part in line}

# The checker shares as little as possible with what it checks.
CHECKER_MAY_USE = {"network", "activations", "domains", "rationals", "results", "theorems", "errors"}

# Foreign package -> prefixes of the modules that may import it. Nothing else outside the standard library may be
# imported at all, except numpy anywhere. Inside the room of a door its types may be named under TYPE_CHECKING.
DOORS: dict[str, tuple[str, ...]] = {
    "flint": ("rationals", "balls"),
    "highspy": ("programs",),
    "onnx": ("io.onnx",),
    "google": ("io.onnx",),  # protobuf, which onnx brings
    "h5py": ("io.keras",),
    "torch": ("io.torch", "autodiff.torch", "training"),
    "jax": ("io.jax", "autodiff.jax", "meanfield.particles.jax", "training"),
    "optax": ("training",),
    "flax": ("training",),
    "equinox": ("training",),
    "keras": ("training",),
    "lightning": ("training",),
    "pytorch_lightning": ("training",),
    "transformers": ("training",),
    "tensorboard": ("training",),
    "sympy": ("",),
    "scipy": ("",),
    "distributed": ("sweeps",),
    "click": ("cli",),
    "rich": ("cli",),
}
DEFERRED_ONLY = {"scipy", "sympy", "distributed"}
HEAVY = (
    "scipy", "flint", "highspy", "onnx", "h5py", "torch", "jax", "optax", "flax", "equinox", "keras", "lightning",
    "transformers", "tensorboard", "sympy", "click", "rich",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module: `deferred` inside a function, `typing` under TYPE_CHECKING."""

    target: str
    line: int
    deferred: bool
    typing: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
MODULES = {module_name(p): p for p in FILES}


def imports_of(name: str, tree: ast.Module, is_package: bool) -> Iterator[Import]:
    """Every import of a module, wherever it stands; `from . import x` is made absolute."""
    todo: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while todo:
        node, deferred, typing = todo.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred, typing)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["fiberscope", *([p for p in name.split(".") if p])]
                keep = len(parents) - node.level + (1 if is_package else 0)
                base = ".".join([*parents[:keep], *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if _is_module(full) else base, node.lineno, deferred, typing)
        else:
            inner = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                todo += [(child, inner, True) for child in node.body]
                todo += [(child, inner, typing) for child in node.orelse]
                continue
            if isinstance(node, ast.Call) and _called(node) in (
                "import_module",
                "import_optional",
                "__import__",
            ):
                if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                    yield Import(node.args[0].value, node.lineno, deferred, typing)
            todo += [(child, inner, typing) for child in ast.iter_child_nodes(node)]


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_module(full: str) -> bool:
    head, _, rest = full.partition(".")
    return head == "fiberscope" and rest in MODULES


def own(target: str) -> str | None:
    """The dotted name inside fiberscope, or None for a foreign module."""
    head, _, rest = target.partition(".")
    return rest if head == "fiberscope" else None


@functools.cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def imports_in(name: str) -> list[Import]:
    return list(imports_of(name, tree_of(name), MODULES[name].name == "__init__.py"))


def layer_faults(name: str, imports: list[Import]) -> list[str]:
    part = name.partition(".")[0]
    faults = []
    for item in imports:
        target = own(item.target)
        if target is None or part == "":
            continue  # the façade `fiberscope/__init__.py` may name anything
        goal = target.partition(".")[0]
        if goal in ("", part):
            if goal == "" and part not in ("cli", "__main__"):
                faults.append(f"{name}:{item.line} imports the façade; import the module that defines the name")
            continue
        if goal == "_version":
            continue
        if LEVEL[goal] <= LEVEL[part]:
            faults.append(f"{name}:{item.line} imports {target}, which is not below it")
        if part == "certificates" and goal not in CHECKER_MAY_USE:
            faults.append(f"{name}:{item.line} imports {target}; the checker may use only {sorted(CHECKER_MAY_USE)}")
    return faults


def door_faults(name: str, imports: list[Import]) -> list[str]:
    faults = []
    for item in imports:
        package = item.target.partition(".")[0]
        if package in ("fiberscope", "numpy") or package in sys.stdlib_module_names:
            continue
        if package not in DOORS:
            faults.append(f"{name}:{item.line} imports {package}, which has no door")
        elif item.typing and name.partition(".")[0] in {door.partition(".")[0] for door in DOORS[package]}:
            continue
        elif not any(name == door or name.startswith(door) for door in DOORS[package]):
            faults.append(f"{name}:{item.line} imports {package}; its doors are {DOORS[package]}")
        elif package in DEFERRED_ONLY and not (item.deferred or item.typing):
            faults.append(f"{name}:{item.line} imports {package} at the top; import it where it is used")
    return faults


def test_every_part_has_a_line() -> None:
    parts = {name.partition(".")[0] for name in MODULES} - {""}
    assert parts <= set(LEVEL), f"give {sorted(parts - set(LEVEL))} a line in ORDER"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name: str) -> None:
    assert layer_faults(name, imports_in(name)) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_foreign_packages_come_in_by_their_doors(name: str) -> None:
    assert door_faults(name, imports_in(name)) == []


def test_no_import_cycles() -> None:
    # a package's __init__ runs before its modules, but naming the package for a sibling is no cycle of its own
    graph: dict[str, set[str]] = {name: set() for name in MODULES if name}
    for name in MODULES:
        for item in imports_in(name):
            target = own(item.target)
            if name and target and target != name and not (item.typing or item.deferred):
                graph[name].add(target)
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) >= set(graph)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from fiberscope.cli import main", "not below"),
        ("from fiberscope.symmetries import x", "not below"),
        ("def f():\n    from fiberscope.pages import x", "not below"),
        ("if TYPE_CHECKING:\n    from fiberscope.pages import x", "not below"),
        ("from . import cli", "not below"),
        ("import fiberscope", "façade"),
        ("import flint", "doors"),
        ("import pandas", "no door"),
        ("import scipy.optimize", "at the top"),
        ("def f():\n    importlib.import_module('torch')", "doors"),
    ],
)
def test_the_rules_catch_offenders(source: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULES, "cli", PACKAGE / "cli.py")
    found = list(imports_of("neurons", ast.parse(source), False))
    assert any(fault in line for line in layer_faults("neurons", found) + door_faults("neurons", found))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_file_says_what_it_is(name: str) -> None:
    docstring = ast.get_docstring(tree_of(name))
    assert docstring, f"{MODULES[name].name} has no docstring"
    assert not any(word in docstring for word in ("TODO", "FIXME", "XXX"))


def test_no_public_function_has_its_sibling_modules_name() -> None:
    # `from .watch import watch` in a package makes `import package.watch` yield the function
    clashes = []
    for name, path in MODULES.items():
        if name == "cli":
            continue  # its functions are commands, named after what they call; nobody imports them
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        siblings = {m.rpartition(".")[2] for m in MODULES if m and m.rpartition(".")[0] == package and m != package}
        functions = {node.name for node in tree_of(name).body if isinstance(node, ast.FunctionDef)}
        clashes += [f"{name or 'fiberscope'}.{f}" for f in sorted(functions & siblings)]
    assert clashes == []


def test_no_public_name_hides_a_module() -> None:
    # importing fiberscope.x sets the attribute x of fiberscope, whatever function it was before
    assert [name for name in fiberscope.__all__ if name in MODULES] == []


def test_the_library_never_prints_or_asserts() -> None:
    offenders = []
    for name in MODULES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.Assert):
                offenders.append(f"{name}:{node.lineno} assert")
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                offenders.append(f"{name}:{node.lineno} print")
    assert offenders == []


def loaded_after(code: str) -> set[str]:
    """Top-level packages in sys.modules of a fresh interpreter after running `code`."""
    tail = "\nimport sys; print('\\n'.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_costs_numpy_only() -> None:
    loaded = loaded_after("import fiberscope; fiberscope.Network.random((2, 3, 1))")
    assert "numpy" in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))


def test_every_module_imports_without_the_extras() -> None:
    absent = ["onnx", "onnxruntime", "h5py", "torch", "jax", "flax", "equinox", "optax", "sympy", "distributed"]
    absent += ["keras", "lightning", "pytorch_lightning", "transformers", "tensorboard"]
    names = sorted(f"fiberscope.{name}" if name else "fiberscope" for name in MODULES if name != "__main__")
    block = f"import importlib, sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    loaded_after(block + f"for name in {names}:\n    importlib.import_module(name)")


def test_help_imports_neither_scipy_nor_a_framework() -> None:
    call = "from fiberscope.cli import main\ntry:\n    main(['--help'])\n"
    code = call + "except SystemExit as stop:\n    assert not stop.code"
    loaded = loaded_after(code)
    assert "click" in loaded
    allowed = {"click", "rich"}
    assert loaded.isdisjoint(set(HEAVY) - allowed), sorted(loaded & set(HEAVY) - allowed)
