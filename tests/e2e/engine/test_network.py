"""`teacher_fetch` alone has a network in its container, and what it fetched it does not open."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import docker
import pytest
import torch

from containers.contract import NETWORK
from flows.data.steps import fetch_call
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

REPOSITORY = Path(__file__).parents[3]
TEACHER = REPOSITORY / "examples" / "silicon" / "teacher.model"
FETCHING = '''
"""The steps of the image `mace`, with models on a web site of the test's."""
import sys

from containers import step
from containers.mace.teacher import teacher_fetch as fetch

fetch.address = lambda name: f"{SITE}/{name}.model"
sys.exit(step.main(sys.argv[1:]))
'''


class Telling:
    """Tells the web site when it is unpickled."""

    def __init__(self, site: str) -> None:
        self.site = site

    def __reduce__(self) -> tuple[object, ...]:
        return (urlopen, (f"{self.site}/opened",))


class Site(ThreadingHTTPServer):
    """The teacher as `small`, a model that tells of its opening as `medium`, and no model as `large`."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Answers)
        self.url = f"http://{address}:{self.server_port}"
        self.asked: list[str] = []
        telling = io.BytesIO()
        torch.save(Telling(self.url), telling)
        self.pages = {
            "/small.model": TEACHER.read_bytes(),
            "/medium.model": telling.getvalue(),
            "/large.model": b"<html>sign in</html>",
            "/opened": b"",
        }


class _Answers(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.pages[self.path])))
        self.end_headers()
        self.wfile.write(self.server.pages[self.path])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(client: docker.DockerClient) -> Iterator[Site]:
    """On the address that this machine has in the engine's own network."""
    ours = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    gateway = ours.get("Gateway") or str(ip_network(ours["Subnet"])[1])
    with Site(gateway) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def fetching_image(derive: Callable[..., str], site: Site) -> str:
    """The image `mace` with its models on our site."""
    lines = 'FROM mace-to-ace/mace:cpu\nCOPY fetching.py /opt/\nENTRYPOINT ["python", "/opt/fetching.py"]'
    return derive("fetching", lines, {"fetching.py": FETCHING.replace("{SITE}", site.url)})


@pytest.fixture
def workspace(fetching_image: str, tmp_path: Path) -> Workspace:
    """Where `teacher_fetch` runs in that image."""
    return Workspace(root=tmp_path / "root", settings=Settings(runner="docker", cores=1, mace_image=fetching_image))


def test_a_model_is_fetched_in_a_container(workspace: Workspace) -> None:
    artefact = run_step(fetch_call("small"), workspace)
    assert workspace.store.path(artefact.file("model")).read_bytes() == TEACHER.read_bytes()


def test_a_hostile_model_is_not_opened_where_there_is_a_network(workspace: Workspace, site: Site) -> None:
    artefact = run_step(fetch_call("medium"), workspace)
    assert "/medium.model" in site.asked
    assert "/opened" not in site.asked
    torch.load(workspace.store.path(artefact.file("model")), weights_only=False)
    assert "/opened" in site.asked, "the control: this model does tell when it is opened"


def test_what_is_no_model_is_told(workspace: Workspace) -> None:
    with pytest.raises(StepFailed, match="the download of large is damaged: it is not a file as torch saves it"):
        run_step(fetch_call("large"), workspace)


def test_other_steps_reach_nothing(obedient, site: Site) -> None:
    failure = obedient.failure(f"import urllib.request\nurllib.request.urlopen('{site.url}/small.model', timeout=5)")
    assert "Network is unreachable" in failure.message
    assert {"teacher_fetch"} == NETWORK


def test_other_steps_are_not_told_of_proxies(obedient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = {"default": {"httpProxy": "http://name:password@proxy.invalid:3128"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    told = "import os\nmetrics['proxies'] = [name for name in os.environ if 'proxy' in name.lower()]\ndone(outputs)"
    assert obedient.run(told).metrics["proxies"] == []
