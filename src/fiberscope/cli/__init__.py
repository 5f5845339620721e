"""The command line: parse, call the function of the same name, print, exit with 0, 1, 2, 3, 70 or 130."""

from fiberscope.cli.commands import program
from fiberscope.cli.running import main, run

__all__ = ["main", "program", "run"]
