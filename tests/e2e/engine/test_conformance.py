"""Every step through every runner on tiny data: the same keys, the same bytes, and one store for all; and as a stub.

Byte for byte, with one thread, on one machine: no tolerance is needed. On a CPU of another kind the libraries take
other kernels, and last digits differ.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ase.io import read, write

from containers.contract import STEPS, Report, Request
from tasks.artefact import Artefact
from tasks.settings import step_environment

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[3]
SILICON = REPOSITORY / "examples" / "silicon"
CHAIN = Path(__file__).with_name("chain.py")

RUNNERS = [
    pytest.param("in_process", marks=pytest.mark.long),
    pytest.param("docker", marks=pytest.mark.engine),
    pytest.param("podman", marks=[pytest.mark.engine, pytest.mark.podman, pytest.mark.root]),
    pytest.param("apptainer", marks=[pytest.mark.engine, pytest.mark.apptainer]),
]
"""What is compared with the subprocess runner. One more: here, and its variables in `variables`."""
FEW = {"podman": ("teacher_info", "mace_label", "pace_train", "evaluate")}
"""Steps of a runner that differs from another by its engine alone; it finds the results of the others."""


def variables(runner: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """The machine settings of a runner."""
    if runner == "podman":
        return {"DISTILL_RUNNER": "docker", "DISTILL_ENGINE_URL": request.getfixturevalue("podman")}
    if runner == "apptainer":
        files = {f"DISTILL_{image.upper()}_IMAGE": image_file(image, folder) for image in ("mace", "tensorpot")}
        return {"DISTILL_RUNNER": runner, **files}
    return {"DISTILL_RUNNER": runner}


def image_file(image: str, folder: Path) -> str:
    """The image for Apptainer, by the commands that its runner tells."""
    archive, sif = folder / f"{image}.tar", folder / f"{image}.sif"
    subprocess.run(["docker", "save", f"mace-to-ace/{image}:cpu", "-o", str(archive)], check=True)
    subprocess.run(["apptainer", "build", str(sif), f"docker-archive:{archive}"], check=True)
    archive.unlink()
    return str(sif)


@dataclass(frozen=True)
class Chain:
    """A work root, and the settings of the runner that fills it."""

    root: Path
    pool: Path
    settings: dict[str, str]

    def run(self, root: Path | None = None) -> dict[str, Artefact]:
        """Every step's result; what is in the store of `root` is not computed again."""
        command = [sys.executable, str(CHAIN), str(self.pool), str(SILICON / "teacher.model"), str(root or self.root)]
        ours = {name: value for name, value in step_environment(1).items() if not name.startswith("DISTILL_")}
        done = subprocess.run(command, env={**ours, **self.settings}, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout.splitlines()[-1])
        return {step: Artefact.model_validate(answer) for step, answer in answers.items()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 structures of 2 to 16 atoms from the example: the fewest that leave none of the three sides empty."""
    path = tmp_path_factory.mktemp("conformance") / "pool.extxyz"
    write(path, read(SILICON / "pool.extxyz", "::5"))
    return path


@pytest.fixture(scope="module")
def reference(pool: Path) -> Chain:
    """The subprocess runner's."""
    return Chain(pool.parent / "subprocess", pool, {"DISTILL_RUNNER": "subprocess"})


@pytest.fixture(scope="module")
def expected(reference: Chain) -> dict[str, Artefact]:
    """What the subprocess runner computed."""
    return reference.run()


@pytest.fixture(scope="module", params=RUNNERS)
def other(request: pytest.FixtureRequest, pool: Path) -> Chain:
    """Another runner's."""
    return Chain(pool.parent / request.param, pool, variables(request.param, request, pool.parent))


@pytest.fixture(scope="module")
def found(other: Chain, reference: Chain, expected: dict[str, Artefact]) -> dict[str, Artefact]:
    """What the other runner computed, from the pool on, with nothing of the reference's (but for FEW)."""
    if few := FEW.get(other.root.name):
        shutil.copytree(reference.root, other.root)
        for step in few:
            shutil.rmtree(other.root / "store" / step / expected[step].key)
    return other.run()


def test_no_step_is_left_out(other: Chain, expected: dict[str, Artefact], found: dict[str, Artefact]) -> None:
    assert set(expected) == set(found) == set(STEPS)
    assert not any(artefact.cached for artefact in expected.values())
    computed = {step for step, artefact in found.items() if not artefact.cached}
    assert computed == set(FEW.get(other.root.name, STEPS))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_the_same_key_and_bytes(
    step: str, expected: dict[str, Artefact], found: dict[str, Artefact]
) -> None:
    assert found[step].outputs == expected[step].outputs
    assert found[step].key == expected[step].key
    assert found[step].versions == expected[step].versions


def test_what_one_runner_stored_another_finds(
    other: Chain, reference: Chain, expected: dict[str, Artefact], found: dict[str, Artefact]
) -> None:
    again = other.run(reference.root)
    assert [step for step, artefact in again.items() if not artefact.cached] == []
    assert {step: artefact.key for step, artefact in again.items()} == {
        step: artefact.key for step, artefact in expected.items()
    }


STUBS = """
import sys
from pathlib import Path
from containers.step import execute
for folder in map(Path, sys.argv[1:]):
    execute(folder)
"""


@pytest.fixture(scope="module")
def stubs(reference: Chain, expected: dict[str, Artefact]) -> dict[str, Report]:
    """The reports of the stubs of all steps, for the requests that the subprocess runner had."""
    folders = {step: reference.root / "stubs" / step for step in expected}
    for step, folder in folders.items():
        folder.mkdir(parents=True)
        text = (reference.root / "store" / step / expected[step].key / "request.json").read_bytes()
        request = Request.model_validate_json(text).model_copy(update={"stub": True})
        (folder / "request.json").write_text(request.model_dump_json())
    subprocess.run([sys.executable, "-c", STUBS, *map(str, folders.values())], check=True, capture_output=True)
    return {step: Report.model_validate_json((at / "report.json").read_bytes()) for step, at in folders.items()}


@pytest.mark.parametrize("step", [step for step in STEPS if step != "teacher_fetch"])  # a stub above, too
def test_a_stub_reports_the_figures_of_a_run(
    step: str, expected: dict[str, Artefact], stubs: dict[str, Report]
) -> None:
    assert stubs[step].status == "ok", stubs[step].error
    assert set(stubs[step].metrics) == set(expected[step].metrics)
    assert set(stubs[step].outputs) == set(expected[step].outputs)
