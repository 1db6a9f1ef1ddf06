"""Which tests need what this machine may lack: an engine must be there, a GPU or Podman may be missing, not unsaid."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

NOT_RUN = pytest.StashKey[dict[str, list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-engine", action="store_true", help="leave out the tests that need a container engine, and say which"
    )


def _gpu_is_missing() -> bool:
    found = shutil.which("nvidia-smi")
    return found is None or subprocess.run([found, "-L"], capture_output=True).returncode != 0


def _lacking(config: pytest.Config) -> Iterator[tuple[str, str]]:
    """Marker and reason of the tests that cannot run here. A missing engine is no reason: those tests then fail."""
    if config.getoption("--without-engine"):
        yield "engine", "--without-engine was given"
    if _gpu_is_missing():
        yield "gpu", "no GPU"
    if os.geteuid() != 0:
        yield "root", "not root"
    for program in ("podman", "apptainer"):
        if shutil.which(program) is None:
            yield program, f"{program} is not installed"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    not_run = config.stash[NOT_RUN] = {}
    for marker, reason in _lacking(config):
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
                not_run.setdefault(reason, []).append(item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason, names in terminalreporter.config.stash.get(NOT_RUN, {}).items():
        terminalreporter.section(f"NOT RUN, {reason}")
        for name in names:
            terminalreporter.line(name)
