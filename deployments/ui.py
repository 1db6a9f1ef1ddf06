"""Prefect on this machine: server, process work pool, deployments and a worker, until Ctrl-C.

Ctrl-C, SIGTERM and a closed terminal end all of it, the runs too, within ten seconds. SIGKILL ends it too.

python deployments/ui.py [--port 4200]
python deployments/ui.py --worker     all but the server, which PREFECT_API_URL names (in a container: compose.yaml)
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Crashed

from tasks.errors import UserError
from tasks.guard import MARK, end_marked, guard, kill_marked, marked
from tasks.prefect_logging import check_home
from tasks.runners.readiness import ready, remove_containers_of_dead_runs
from tasks.settings import Settings, prefect_environment, prepare_process, read_settings
from tasks.workspace import open_workspace

REPOSITORY = Path(__file__).parent.parent
POOL = "distill"
START_S = 180.0
ENDS_S = 2.0  # after SIGTERM: the worker with its runs, then the server; what is left is killed
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The user ends it."""


class Stop:
    """Remembers that a signal came. It interrupts nothing, so that no process is started and forgotten."""

    def __init__(self) -> None:
        self.came = False
        for number in STOPS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True

    def wait(self, seconds: float) -> None:
        """Sleep; raises `Stopped` when a signal came."""
        time.sleep(0 if self.came else seconds)
        if self.came:
            raise Stopped


def main() -> int:
    """Start everything in order and stay until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=4200, help="of the server on localhost (default 4200)")
    parser.add_argument("--worker", action="store_true", help="start no server; relative paths start at the work root")
    options = parser.parse_args()
    prepare_process()
    stop = Stop()
    try:
        check_home()
        return _worker_only(stop) if options.worker else _server_and_worker(options.port, stop)
    except UserError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        return 0
    finally:
        _end_all()


def _server_and_worker(port: int, stop: Stop) -> int:
    _check_containers(REPOSITORY)
    environment = _environment(f"http://127.0.0.1:{port}/api", REPOSITORY)
    server = _start(environment, "server", "start", "--host", "127.0.0.1", "--port", str(port))
    if not _answers(environment["PREFECT_API_URL"], lambda: server.poll() is None, stop):
        sys.exit(f"no server on port {port} within {START_S:g} s; is the port taken? Try --port 4201.")
    return _work(environment, stop)


def _worker_only(stop: Stop) -> int:
    api = prefect_environment().get("PREFECT_API_URL")
    if not api:
        raise UserError("--worker needs PREFECT_API_URL, the address of a Prefect server: http://HOST:4200/api")
    root = Settings().work_root.absolute()
    _check_containers(root)
    _place_examples(root)
    environment = _environment(api, root)
    if not _answers(api, lambda: True, stop):
        sys.exit(f"no Prefect server answered at {api} within {START_S:g} s.")
    return _work(environment, stop)


def _check_containers(root: Path) -> None:
    """The deployments' steps run in containers: report what they lack now, not in the first run."""
    try:
        settings = read_settings().model_copy(update={"runner": "docker"})
        with ready(open_workspace(root, settings)):
            return
    except UserError as error:
        raise UserError(
            f"{error}\nThe deployments run their steps in containers (prefect.yaml: DISTILL_RUNNER)."
        ) from None


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
    return {**prefect_environment(), **quiet, "PREFECT_API_URL": api, "PWD": str(root)}


def _work(environment: dict[str, str], stop: Stop) -> int:
    deploy = ("--no-prompt", "deploy", "--all", "--prefect-file", str(REPOSITORY / "prefect.yaml"))
    for words in (("work-pool", "create", POOL, "--type", "process", "--overwrite"), deploy):
        if code := _ended(_start(environment, *words), stop):
            return code
    marked = {**environment, MARK: _worker_mark()}
    worker = _start(marked, "worker", "start", "--pool", POOL, "--name", "this-machine")
    ui = environment.get("PREFECT_SERVER_UI_API_URL", environment["PREFECT_API_URL"]).removesuffix("/api")
    print(f"\nReady: {ui}   (Ctrl-C ends server, worker and runs)", flush=True)
    return _ended(worker, stop)


def _worker_mark() -> str:
    return f"{guard()}.worker"


def _start(environment: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    """A Prefect command in a session of its own, where the terminal's signals do not reach it."""
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *words],
        env=environment,
        cwd=environment["PWD"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _ended(process: subprocess.Popen[bytes], stop: Stop) -> int:
    """The exit code of a process; raises `Stopped` when a signal comes first."""
    while (code := process.poll()) is None:
        stop.wait(0.2)
    return code


def _end_all() -> None:
    """End the worker and its runs, then the server, then whatever is left, and remove the runs' containers.

    The server comes last, so that the runs can still say that they ended. No further signal hurries or stops this.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    worker = marked(_worker_mark()).values()
    api = next((one["PREFECT_API_URL"] for one in worker), "")
    runs = {one["PREFECT__FLOW_RUN_ID"] for one in worker if "PREFECT__FLOW_RUN_ID" in one}
    end_marked(_worker_mark(), ENDS_S)
    kill_marked(_worker_mark(), 1.0)
    _report_ended(api, runs)
    end_marked(guard(), ENDS_S)
    kill_marked(guard(), 1.0)
    with contextlib.suppress(UserError):  # a wrong setting was reported at the start
        remove_containers_of_dead_runs(read_settings())


def _report_ended(api: str, runs: Iterable[str]) -> None:
    """Give the runs that had no time to say it the state Crashed, or the UI would show them running for ever."""
    quick = {PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ENDS_S}
    for run in map(UUID, runs):
        try:
            with temporary_settings(quick), get_client(sync_client=True) as client:
                state = client.read_flow_run(run).state
                if state is None or not state.is_final():
                    client.set_flow_run_state(run, Crashed(message="make ui ended while it ran"), force=True)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: Prefect's for a server that does not answer
            print(f"warning: the run {run} has ended, but the server does not know: {error}", file=sys.stderr)


def _answers(api: str, alive: Callable[[], bool], stop: Stop) -> bool:
    """Wait for the server; one of ours that gave up because its port is taken must not be mistaken for another's."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and alive():
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{api}/health", timeout=5).close()  # noqa: S310  of our own making
            stop.wait(1)  # a server whose port is taken ends within it
            if alive():
                return True
        stop.wait(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
