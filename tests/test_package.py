"""The wheel: what it holds, and that it works installed alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import fiberscope
from fiberscope._version import __version__

FORGOTTEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
CORE = {"numpy", "scipy", "python-flint", "highspy", "click", "rich"}


def call(*command: str | Path, cwd: Path) -> str:
    """Run outside the repository, without its paths, and return stdout."""
    # bytecode is kept: the environment is installed without, and started several times
    clean = {k: v for k, v in os.environ.items() if k not in FORGOTTEN}
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_version() -> None:
    assert fiberscope.__version__ == __version__


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, root, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(root: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of executables of an environment that holds the wheel and its core dependencies only."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip(scripts, "install", "-qq", "--no-compile", "-c", root / "constraints.txt", wheel, cwd=folder)
    return scripts


def pip(scripts: Path, *words: str | Path, cwd: Path) -> str:
    """This environment's pip, at work on the other one."""
    return call(sys.executable, "-m", "pip", "--python", scripts / "python", *words, cwd=cwd)


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(root: Path, wheel: Path) -> None:
    source = root / "src"
    wanted = {
        p.relative_to(source).as_posix()
        for p in (source / "fiberscope").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    held = {name for name in names if name.startswith("fiberscope/")}
    assert held == wanted
    assert "fiberscope/py.typed" in held
    assert any(name.startswith("fiberscope/data/") for name in held)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {n.partition("/")[0] for n in names} == {"fiberscope", f"fiberscope-{__version__}.dist-info"}


@pytest.mark.slow
def test_core_install_brings_no_framework(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(pip(installed, "list", "--format", "json", cwd=tmp_path))
    names = {item["name"].lower() for item in listed}
    assert names >= CORE
    assert names.isdisjoint({"torch", "jax", "onnx", "h5py", "sympy", "pytest", "hypothesis"})


@pytest.mark.slow
def test_commands_of_a_core_install(installed: Path, tmp_path: Path) -> None:
    assert __version__ in call(installed / "fiberscope", "--version", cwd=tmp_path)
    assert "inspect" in call(installed / "fiberscope", "--help", cwd=tmp_path)
    assert __version__ in call(installed / "python", "-m", "fiberscope", "--version", cwd=tmp_path)


@pytest.mark.slow
def test_inspect_reads_the_bundled_network_without_extras(installed: Path, tmp_path: Path) -> None:
    find = (
        "import pathlib, fiberscope\n"
        "data = pathlib.Path(fiberscope.__file__).parent / 'data'\n"
        "print(*sorted(p for p in data.rglob('*') if p.suffix in ('.npz', '.safetensors')), sep='\\n')"
    )
    models = call(installed / "python", "-c", find, cwd=tmp_path).split()
    assert models, "no bundled network that needs no extra"
    for model in models:
        out = json.loads(call(installed / "fiberscope", "inspect", model, "--json", cwd=tmp_path))
        assert out["schema"] == "fiberscope/inspect/1"
        assert out["version"] == __version__
        assert out["inputs"][0]["sha256"]


@pytest.mark.slow
def test_types_reach_users(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "user.py"
    program.write_text("import fiberscope as fs\nnet = fs.Network.random((2, 3, 1))\nreveal_type(net.widths)\n")
    out = call(sys.executable, "-m", "mypy", "--python-executable", installed / "python", program, cwd=tmp_path)
    assert "tuple[int, ...]" in out.replace("builtins.", "")
