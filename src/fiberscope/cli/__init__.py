"""The command line: parse, call the function of the same name, print, exit with 0, 1, 2, 3, 70 or 130."""

from fiberscope.cli import commands as _one_network  # noqa: F401 - registers its commands
from fiberscope.cli import comparing as _two_networks  # noqa: F401 - registers its commands
from fiberscope.cli import invariants as _training  # noqa: F401 - registers its commands
from fiberscope.cli import meanfield as _infinite_width  # noqa: F401 - registers its commands
from fiberscope.cli import recovery as _targets  # noqa: F401 - registers its commands
from fiberscope.cli import training as _runs  # noqa: F401 - registers its commands
from fiberscope.cli.group import program
from fiberscope.cli.running import main, run

__all__ = ["main", "program", "run"]
