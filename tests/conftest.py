"""Which tests need what this machine may lack, and which of them run beside others under `pytest -n`.

An engine must be there; a GPU or Podman may be missing, not unsaid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

ONE_BY_ONE = (
    "tests/integration/",
    "tests/e2e/engine/",
    "tests/e2e/test_fit_faults.py",
    "tests/e2e/test_labelling_faults.py",
    "tests/e2e/test_pace_train.py",
    "tests/e2e/test_repair.py",
)
"""They look at what a machine has once: one Prefect server, an engine's containers, the kernel's count of kills."""


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
    for marker, reason in _lacking(config):
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    not_run: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        not_run.setdefault(reason, []).append(report.nodeid)
    for reason, names in not_run.items():
        terminalreporter.section(f"NOT RUN, {reason}")
        for name in names:
            terminalreporter.line(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2`: a file is one worker's, and all of ONE_BY_ONE are the same one's."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "one by one" if nodeid.startswith(ONE_BY_ONE) else nodeid.partition("::")[0]

    return ByFile(config, log)
