"""Run the fiberscope commands of the README's first terminal block and put their output below them.

Run: python scripts/refresh_readme.py [--check]
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BUNDLED = ROOT / "src" / "fiberscope" / "data" / "digits-mlp.safetensors"
BLOCK = re.compile(r"^```console\n(\$ fiberscope .*?)^```", re.MULTILINE | re.DOTALL)


def refreshed(text: str) -> str:
    """The README with the output that its commands have now, in a folder with the bundled network."""
    found = BLOCK.search(text)
    if found is None:
        raise SystemExit("README.md has no ```console block that starts with a fiberscope command")
    commands = [line for line in found[1].splitlines() if line.startswith("$ ")]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(BUNDLED, folder)
        lines = [line for command in commands for line in (command, *output(command[2:], folder))]
    return text[: found.start(1)] + "\n".join(lines) + "\n" + text[found.end(1) :]


def output(command: str, folder: str) -> list[str]:
    """What a command prints."""
    words = [sys.executable, "-m", "fiberscope", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout.rstrip().splitlines()


def main() -> int:
    """Write the README, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if the README is stale; write nothing")
    check = parser.parse_args().check
    old = README.read_text(encoding="utf-8")
    new = refreshed(old)
    if check:
        if new != old:
            sys.stderr.write("README.md shows stale output: run python scripts/refresh_readme.py\n")
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
