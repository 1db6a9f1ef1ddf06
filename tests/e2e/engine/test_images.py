"""The images of `make images`: what they say of themselves, what is in them, and what of the host is not."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import certifi
import docker
import pytest
from docker.models.images import Image as EngineImage
from docker.types import Mount

from containers.contract import Image
from containers.environment import lock_digest, locked, sources_digest

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

REPOSITORY = Path(__file__).parents[3]
LIMITS_GB = {"mace": 1.75, "tensorpot": 2.0, "worker": 0.85}
FIRST_OF_OURS = "COPY /opt/venv /opt/venv"
LOOK = """
import hashlib, importlib.metadata as m, importlib.util as u, json, pathlib
distilled = pathlib.Path("/opt/distill")
files = [path for path in distilled.rglob("*") if path.is_file() and path.suffix != ".pyc"]
print(json.dumps({
    "packages": [[d.name, d.version] for d in m.distributions()],
    "pip": u.find_spec("pip") is not None,
    "cuda": [str(p) for kind in ("cuda", "cublas", "cudnn") for p in pathlib.Path("/opt").rglob(f"lib{kind}*")],
    "sources": {str(p.relative_to(distilled)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
}))
"""
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
TRACE = Path(__file__).with_name("trace.py")


@pytest.fixture(scope="module", params=LIMITS_GB)
def image(request: pytest.FixtureRequest, client: docker.DockerClient) -> EngineImage:
    """One of the three as `make images` tagged it."""
    return client.images.get(f"mace-to-ace/{request.param}:cpu")


@pytest.fixture(scope="module")
def name(image: EngineImage) -> str:
    """mace, tensorpot or worker."""
    return str(image.labels["org.opencontainers.image.title"])


@pytest.fixture(scope="module")
def inside(image: EngineImage, client: docker.DockerClient) -> dict[str, Any]:
    """What the image's own Python finds in it."""
    options = {"entrypoint": ["python", "-c", LOOK], "command": [], "network_mode": "none", "remove": True}
    return json.loads(client.containers.run(image.id, **options))


def test_the_labels_say_what_it_was_built_from(image: EngineImage, name: str) -> None:
    labels = image.labels
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert labels["org.opencontainers.image.version"] == version
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    assert labels["mace-to-ace.lock"] == lock_digest(cast(Image, name))
    assert labels["mace-to-ace.sources"] == sources_digest(), "build them again: make images"
    assert labels["mace-to-ace.variant"] == "cpu"


def test_it_is_small_and_nobody_is_root(image: EngineImage, name: str) -> None:
    assert image.attrs["Size"] <= LIMITS_GB[name] * 1e9
    assert int(image.attrs["Config"]["User"].split(":")[0]) != 0


def test_its_packages_are_those_of_its_lock(inside: dict[str, Any], name: str) -> None:
    installed = {re.sub(r"[-_.]+", "-", package).lower(): pin.split("+")[0] for package, pin in inside["packages"]}
    assert installed == locked(cast(Image, name))
    assert len(inside["packages"]) == len(installed)
    assert inside["pip"] is False


def test_a_cpu_image_has_no_cuda(inside: dict[str, Any]) -> None:
    assert [package for package, _ in inside["packages"] if package.startswith(("nvidia", "cuda", "triton"))] == []
    assert inside["cuda"] == []


def test_its_sources_are_those_of_this_checkout(inside: dict[str, Any], name: str) -> None:
    sources = inside["sources"]
    ours = {path: hashlib.sha256((REPOSITORY / path).read_bytes()).hexdigest() for path in sources}
    assert sources == ours
    folders = ("containers", "flows", "tasks") if name == "worker" else ("containers",)
    wanted = {str(path.relative_to(REPOSITORY)) for folder in folders for path in (REPOSITORY / folder).rglob("*.py")}
    assert wanted <= set(sources)
    for path in wanted:
        ast.parse((REPOSITORY / path).read_bytes(), path, feature_version=(3, 11))


@pytest.fixture(scope="module")
def needles() -> dict[str, Any]:
    """What this host would leave: pip's addresses, certificates that not everybody has, and its name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    configured = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    variables = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "HTTPS_PROXY", "https_proxy")
    words = " ".join([configured, *(os.environ.get(name, "") for name in variables)])
    addresses = set(re.findall(r"\w+://[^\s']+", words))
    bundle = Path(os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or certifi.where())
    own = set(CERTIFICATE.findall(bundle.read_text())) - set(CERTIFICATE.findall(Path(certifi.where()).read_text()))
    return {"addresses": sorted(addresses), "certificates": sorted(own), "host": socket.gethostname()}


def test_nothing_of_the_host_is_in_its_files(
    image: EngineImage, needles: dict[str, Any], client: docker.DockerClient
) -> None:
    options = {"entrypoint": ["python", "/trace.py", "/", json.dumps(needles)], "command": [], "user": "0:0"}
    mounts = [Mount("/trace.py", str(TRACE), type="bind", read_only=True)]
    looked = json.loads(client.containers.run(image.id, network_mode="none", remove=True, mounts=mounts, **options))
    assert looked["files"] > 5000
    assert looked["found"] == []


def test_our_layers_write_to_opt_alone(image: EngineImage, needles: dict[str, Any]) -> None:
    """Read from the history, newest first; nor does it tell what was given to the build as a secret."""
    history = [(step["CreatedBy"], step["Size"]) for step in image.history()]
    ours = history[: next(place for place, (made_by, _) in enumerate(history) if FIRST_OF_OURS in made_by) + 1]
    writing = [made_by for made_by, size in ours if size > 0]
    assert all(re.match(r"COPY \S+ /opt/|RUN .*compileall .* /opt/distill", made_by) for made_by in writing), writing
    told = json.dumps([ours, image.attrs["Config"], image.attrs.get("ContainerConfig")])
    assert [address for address in needles["addresses"] if address in told] == []
    assert "secret" not in told
    assert not re.search(rf"(?<![\w.-]){re.escape(needles['host'])}(?![\w-])", told)


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The control: a trace of each kind, and a file without."""
    certificate = "-----BEGIN CERTIFICATE-----A-----END CERTIFICATE-----"
    texts = {
        "root/.netrc": "",
        "opt/venv/lib/site-packages/x.dist-info/direct_url.json": "https://registry.invalid/simple",
        "opt/a.pem": f"text {certificate}",
        "opt/venv/pyvenv.cfg": "home = /mnt on this-host",
        "opt/venv/bin/fine": "this-host-not",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    needles = {"addresses": ["https://registry.invalid"], "certificates": [certificate], "host": "this-host"}
    command = [sys.executable, str(TRACE), str(tmp_path), json.dumps(needles)]
    looked = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert looked["files"] == len(texts)
    assert sorted(line.split(":")[0] for line in looked["found"]) == sorted(set(texts) - {"opt/venv/bin/fine"})
