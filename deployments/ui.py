"""Prefect on this machine: server, process work pool, deployments and a worker, until Ctrl-C.

python deployments/ui.py [--port 4200]
python deployments/ui.py --worker     all but the server, which PREFECT_API_URL names (in a container: compose.yaml)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.errors import UserError
from tasks.machine import ready
from tasks.settings import Settings, read_settings
from tasks.workspace import open_workspace

REPOSITORY = Path(__file__).parent.parent
POOL = "distill"
START_S = 90.0


def main() -> int:
    """Start everything in order and stay until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=4200, help="of the server on localhost (default 4200)")
    parser.add_argument("--worker", action="store_true", help="start no server; relative paths start at the work root")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        return _worker_only() if options.worker else _server_and_worker(options.port)
    return 0


def _server_and_worker(port: int) -> int:
    _check_containers(REPOSITORY)
    environment = _environment(f"http://127.0.0.1:{port}/api", REPOSITORY)
    with _running(environment, "server", "start", "--host", "127.0.0.1", "--port", str(port)) as server:
        if not _answers(environment["PREFECT_API_URL"], lambda: server.poll() is None):
            sys.exit(f"no server on port {port} within {START_S:g} s; is the port taken? Try --port 4201.")
        return _work(environment)


def _worker_only() -> int:
    root = Settings().work_root.absolute()
    _check_containers(root)
    _place_examples(root)
    environment = _environment(os.environ["PREFECT_API_URL"], root)
    if not _answers(environment["PREFECT_API_URL"], lambda: True):
        sys.exit(f"no Prefect server answered at {environment['PREFECT_API_URL']} within {START_S:g} s.")
    return _work(environment)


def _check_containers(root: Path) -> None:
    """The deployments' steps run in containers: what they lack is told now, not by the first run."""
    try:
        settings = read_settings().model_copy(update={"runner": "docker"})
        with ready(open_workspace(root, settings)):
            return
    except UserError as error:
        sys.exit(f"error: {error}\nThe deployments run their steps in containers (prefect.yaml: DISTILL_RUNNER).")


def _place_examples(root: Path) -> None:
    """The engine cannot see a worker image's own files: the deployments' example is read from the work root."""
    made, examples = root / ".examples.new", root / "examples"
    if not examples.exists():
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(REPOSITORY / "examples", made)
        made.rename(examples)


def _environment(api: str, root: Path) -> dict[str, str]:
    """`PWD` is where the deployments' relative paths start (prefect.yaml)."""
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**os.environ, **quiet, "PREFECT_API_URL": api, "PWD": str(root)}


def _work(environment: dict[str, str]) -> int:
    _prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect(environment, "--no-prompt", "deploy", "--all", "--prefect-file", str(REPOSITORY / "prefect.yaml"))
    with _running(environment, "worker", "start", "--pool", POOL, "--name", "this-machine") as worker:
        ui = environment.get("PREFECT_SERVER_UI_API_URL", environment["PREFECT_API_URL"]).removesuffix("/api")
        print(f"\nReady: {ui}   (Ctrl-C ends server and worker)", flush=True)
        return worker.wait()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


def _prefect(environment: dict[str, str], *words: str) -> None:
    subprocess.run(_command(*words), env=environment, cwd=environment["PWD"], stdin=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def _running(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(_command(*words), env=environment, cwd=environment["PWD"], stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()  # not SIGINT: a shell's background jobs ignore it
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(api: str, alive: Callable[[], bool]) -> bool:
    """Wait for the server; one of ours that gave up because its port is taken must not be mistaken for another's."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and alive():
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{api}/health", timeout=5).close()  # noqa: S310  of our own making
            time.sleep(1)  # a server whose port is taken ends within it
            if alive():
                return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
