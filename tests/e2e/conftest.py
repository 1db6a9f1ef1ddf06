"""What costs seconds and many tests share: a Prefect server for the commands that they run, and a real fit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from filelock import FileLock

from tests.e2e.copper import Fit, shared_student

START_S = 600


@pytest.fixture(scope="session", autouse=True)
def no_fused_operations() -> None:
    """As `load_model` leaves torch: a test that asks MACE's own calculator first must not change later digits."""
    import torch

    torch.jit.set_fusion_strategy([])


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands that share one server; none of the caller's settings is in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect-server")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + START_S
            while not _answers(environment["PREFECT_API_URL"]):
                assert server.poll() is None, (home / "log.txt").read_text()
                assert time.monotonic() < until, f"no server within {START_S} s"
                time.sleep(0.3)
            yield environment
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(scope="session")
def copper_fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A fit to copper, made once for all workers of `pytest -n`."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with FileLock(base / "copper.lock"):
        return shared_student(base)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health", timeout=10).is_success
    return False
