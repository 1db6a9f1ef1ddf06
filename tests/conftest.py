"""Leave out and list the tests that need what this machine lacks; order and share out the rest under `pytest -n`.

Only `--without-engine` leaves out the tests of containers: a missing engine is otherwise an error. `--without-long`
leaves out the longest tests, whose parts other tests hold.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = "tests/integration/"
ENGINE = (
    "tests/e2e/engine/",
    "tests/e2e/test_labelling_faults.py",
    "tests/integration/test_cancellation.py",
    "tests/integration/test_deployments.py",
    "tests/integration/test_interruption.py",
    "tests/integration/test_ui_end.py",
    "tests/integration/test_worker_container.py",
)
"""They look at all containers of the engine: a run that starts removes what dead runs have left."""
KILLS = (
    "tests/e2e/engine/test_deaths.py",
    "tests/e2e/engine/test_podman.py",
    "tests/e2e/test_fit_faults.py",
    "tests/e2e/test_labelling_faults.py",
    "tests/e2e/test_pace_train.py",
    "tests/e2e/test_repair.py",
)
"""They raise the kernel's count of processes killed for memory, or look at it: one test at a time."""
ORDER = ("tests/integration/", "tests/e2e/test_whole_way.py", "tests/e2e/test_repair.py", "tests/e2e/", "tests/unit/")
"""The longest begin first; the fast ones fill the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-engine", action="store_true", help="leave out the tests that need a container engine, and list them"
    )
    parser.addoption("--without-long", action="store_true", help="leave out the longest tests, and list them")


def _gpu_is_missing() -> bool:
    found = shutil.which("nvidia-smi")
    return found is None or subprocess.run([found, "-L"], capture_output=True).returncode != 0


def _lacking(config: pytest.Config) -> Iterator[tuple[str, str]]:
    """Marker and reason of the tests that cannot run here. A missing engine is no reason: those tests then fail."""
    if config.getoption("--without-engine"):
        yield "engine", "needs a container engine: `make check` runs it"
    if config.getoption("--without-long"):
        yield "long", "one of the longest: `make check` runs it"
    if _gpu_is_missing():
        yield "gpu", "no GPU"
    if os.geteuid() != 0:
        yield "root", "not root"
    for program in ("podman", "apptainer"):
        if shutil.which(program) is None:
            yield program, f"{program} is not installed"


@pytest.fixture(autouse=True)
def alone_with_the_count_of_kills(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let one worker at a time run a test of KILLS."""
    if not request.node.nodeid.startswith(KILLS):
        yield
        return
    with (Path(tempfile.gettempdir()) / f"distill-tests-{os.geteuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, reason in _lacking(config):
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in ORDER])


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
    """`pytest -n 3`: one worker runs all of a file; one runs all that share the engine, one all that share a server."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(ENGINE):
                return "engine"
            return "server" if nodeid.startswith(SERVER) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # in the order of collection, not by how many tests a file has
    return ByFile(config, log)
