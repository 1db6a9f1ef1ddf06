"""Prefect on this machine: server, process work pool, deployments and a worker, until Ctrl-C.

python deployments/ui.py [--port 4200]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
POOL = "distill"
START_S = 90.0


def main() -> int:
    """Start everything in order and stay until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=4200, help="of the server on localhost (default 4200)")
    port = parser.parse_args().port
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PWD": str(REPOSITORY),
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        contextlib.suppress(KeyboardInterrupt),
        _running(environment, "server", "start", "--host", "127.0.0.1", "--port", str(port)) as server,
    ):
        _wait_for(server, port)
        _prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
        _prefect(environment, "--no-prompt", "deploy", "--all")
        with _running(environment, "worker", "start", "--pool", POOL, "--name", "this-machine") as worker:
            print(f"\nReady: http://127.0.0.1:{port}   (Ctrl-C ends server and worker)", flush=True)
            return worker.wait()
    return 0


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


def _prefect(environment: dict[str, str], *words: str) -> None:
    subprocess.run(_command(*words), env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def _running(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(_command(*words), env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()  # not SIGINT: a shell's background jobs ignore it
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Until our own server answers; one that gave up because the port is taken must not be mistaken for another's."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
            time.sleep(1)  # a server whose port is taken ends within it
            if server.poll() is None:
                return
        time.sleep(0.5)
    sys.exit(f"the server did not answer on port {port} within {START_S:g} s; is the port taken? Try --port 4201.")


if __name__ == "__main__":
    sys.exit(main())
