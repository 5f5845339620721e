"""Fixtures and options of the test suite."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("pagetools")
from pagetools import browser, opened  # noqa: E402, F401 - fixtures of all tests of pages

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow (always run where CI is set)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow") or bool(os.environ.get("CI"))
    chromium = _chromium()
    for item in items:
        if "slow" in item.keywords and not slow:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "browser" in item.keywords and chromium is None:
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))
    # files with slow tests first, the package's doctests last: no worker is left alone with a long file at the end
    long = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: (item.path.parent.name != "tests", not long[item.path]))


def _chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def quick_jax() -> Iterator[None]:
    """JAX compiles without most optimisations: tests compile much and run little."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; skips where there is none."""
    found = _chromium()
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder beside the repository with real networks in `models/`; skips where it is absent."""
    folder = Path(os.environ.get("FIBERSCOPE_SHARED") or ROOT.parent / "shared")
    if not (folder / "models").is_dir():
        pytest.skip("no folder of real networks beside the repository")
    return folder
