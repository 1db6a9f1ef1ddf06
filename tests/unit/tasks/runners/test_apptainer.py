"""The command line for Apptainer, and the runner with a program of that name that stands in for it.

The stand-in is a mock at a border that is ours: it knows the words that `command` writes, checks nothing that the real
program would, and runs the step with this interpreter. What the real one does is tests/e2e/engine/test_apptainer.py.
"""

from __future__ import annotations

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from containers.contract import InputFile, Request, Resources
from containers.environment import lock_digest, sources_digest
from tasks.artefact import Artefact, StepCall, external
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.runners.apptainer import ApptainerRunner, command, environment
from tasks.runners.base import CannotStart
from tasks.runners.container_owner import PREFIX
from tasks.settings import Settings
from tasks.workspace import Workspace

SIF = Path("/images/mace.sif")
FOLDER = Path("/work/store/work/ingest-1")


def request(*paths: str, step: str = "ingest", **resources: Any) -> Request:
    files = tuple(InputFile(path=Path(path), sha256="0") for path in paths)
    inputs = {"files": files}
    return Request(step=step, version=1, lock="", params={}, inputs=inputs, resources=Resources(**resources))


def values(words: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(words) if word == option]


def mounts(words: list[str]) -> list[list[str]]:
    """As Apptainer reads them: each a line of CSV."""
    return list(csv.reader(values(words, "--mount")))


def test_the_command_line() -> None:
    words = command(SIF, FOLDER, request("/data/pool.xyz"))
    assert words[:5] == ["apptainer", "exec", "--containall", "--no-home", "--cleanenv"]
    assert words[-5:] == [str(SIF), "python", "-m", "containers.step", str(FOLDER)]
    assert values(words, "--network") == ["none"]
    assert values(words, "--pwd") == ["/tmp"]
    assert "--net" in words
    assert not {"--nv", "--memory", "--writable", "--bind"} & set(words)
    words = command(SIF, FOLDER, request("/data/pool.xyz", "/data/pool.xyz"))
    seen = {fields[1]: fields[3:] for fields in mounts(words)}
    assert seen == {
        f"source={FOLDER}": [],
        f"source={FOLDER}/request.json": ["ro"],
        "source=/data/pool.xyz": ["ro"],
    }
    assert "--nv" in command(SIF, FOLDER, request(device="cuda"))
    assert values(command(SIF, FOLDER, request(), 1.5), "--memory") == ["1500000000"]
    assert "--net" not in command(SIF, FOLDER, request(step="teacher_fetch"))
    with pytest.raises(CannotStart, match=r"cannot mount a path with a line break: '/data/a\\nb'. Rename it") as caught:
        command(SIF, FOLDER, request("/data/a\nb"))
    assert caught.value.kind == "BadInput"


@pytest.mark.parametrize("name", ["with space", "a,b", "a:b", 'a"b', "a,ro", "ü=1"])
def test_any_path_is_mounted_at_itself(name: str) -> None:
    words = command(SIF, FOLDER, request(f"/data/{name}/pool.xyz"))
    path = f"/data/{name}/pool.xyz"
    assert ["type=bind", f"source={path}", f"destination={path}", "ro"] in mounts(words)


@pytest.mark.parametrize(("uid", "dropped"), [(0, True), (1000, False)])
def test_a_root_has_no_privileges_inside(uid: int, dropped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert ("--no-privs" in command(SIF, FOLDER, request())) == dropped


def test_variables_of_the_user_stay_outside_and_proxies_are_for_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_BIND", "APPTAINERENV_OMP_NUM_THREADS", "SINGULARITY_WRITABLE", "APPTAINER_TMPDIR"):
        monkeypatch.setenv(name, "theirs")
    seen = environment(request(threads=3))
    assert {name: value for name, value in seen.items() if value == "theirs"} == {"APPTAINER_TMPDIR": "theirs"}
    assert seen["APPTAINERENV_OMP_NUM_THREADS"] == seen["APPTAINERENV_TF_NUM_INTRAOP_THREADS"] == "3"
    monkeypatch.setenv("https_proxy", "http://user:password@proxy")
    step = request(step="teacher_fetch")
    assert environment(step)["APPTAINERENV_https_proxy"] == "http://user:password@proxy"
    assert "password" not in str(command(SIF, FOLDER, step))
    assert "APPTAINERENV_https_proxy" not in environment(request())


STAND_IN = """#!{python}
import json, os, sys
words = sys.argv[1:]
if words[0] == "inspect":
    sys.exit(print(open(words[-1]).read()))
inside = {{name.removeprefix("APPTAINERENV_"): value for name, value in os.environ.items() if "APPTAINERENV_" in name}}
kept = {{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME")}}
command = [sys.executable, *words[words.index("python") + 1:]]
print("threads", inside["OMP_NUM_THREADS"], flush=True)
{body}
os.execve(command[0], command, {{**kept, **inside, "PYTHONPATH": {repository!r}}})
"""
LABELS = {"lock": lock_digest("tensorpot"), "sources": sources_digest(), "variant": "cpu"}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program called `apptainer` first on PATH; its `body` runs before the step."""

    def install(body: str = "") -> None:
        program = tmp_path / "bin" / "apptainer"
        program.parent.mkdir(exist_ok=True)
        repository = str(Path(__file__).parents[4])
        program.write_text(STAND_IN.format(python=sys.executable, body=body, repository=repository))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    return install


def sif(tmp_path: Path, **labels: str) -> Path:
    """A file that the stand-in takes for an image: what `inspect` would print."""
    told = {f"{PREFIX}{name}": value for name, value in {**LABELS, **labels}.items()}
    path = tmp_path / "tensorpot.sif"
    path.write_text(json.dumps({"data": {"attributes": {"labels": told}}, "type": "container"}))
    return path


def ingest(tmp_path: Path, image: Path, **settings: Any) -> Artefact:
    pool = tmp_path / "a, pool.xyz"
    pool.write_text("1\nLattice='4 0 0 0 4 0 0 0 4' pbc='T T T'\nSi 0 0 0\n".replace("'", '"'))
    call = StepCall(step="ingest", params={"file_names": ["pool.xyz"]}, inputs={"files": (external(pool),)})
    chosen = Settings(runner="apptainer", tensorpot_image=str(image), **settings)
    told = run_step(call, Workspace(root=tmp_path / "root", settings=chosen), lambda *_: None)
    assert told.key
    return told


def test_a_deadline_ends_a_step_that_else_ends_well(tmp_path: Path, stand_in: Any) -> None:
    stand_in("import time; time.sleep(600)")
    with pytest.raises(StepFailed, match="DISTILL_STEP_TIMEOUT_S"):
        ingest(tmp_path, sif(tmp_path), step_timeout_s=1)
    stand_in()
    assert ingest(tmp_path, sif(tmp_path)).metrics["structures"] == 1


def test_progress_log_and_exit_code_come_through(tmp_path: Path, stand_in: Any) -> None:
    stand_in(
        """print('@progress [1, 4, "quarter"]', flush=True); print("FATAL: no mount", flush=True); sys.exit(255)"""
    )
    seen: list[tuple[float, float, str]] = []
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = request(threads=2).model_copy(update={"lock": LABELS["lock"]})
    runner = ApptainerRunner(Settings(tensorpot_image=str(sif(tmp_path))))
    ended = runner.run(folder, "tensorpot", asked, lambda done, total, text="": seen.append((done, total, text)))
    assert (ended.exit_code, ended.kind) == (255, "Died")
    assert seen == [(1, 4, "quarter")]
    assert (folder / "log.txt").read_text() == "threads 2\nFATAL: no mount\n"


def test_a_missing_image_file_or_apptainer_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailed) as caught:
        ingest(tmp_path, tmp_path / "none.sif")
    assert caught.value.message == (
        f"there is no image file {tmp_path}/none.sif for Apptainer. Make one: docker save mace-to-ace/tensorpot:cpu -o"
        " tensorpot.tar; apptainer build tensorpot.sif docker-archive:tensorpot.tar; set DISTILL_TENSORPOT_IMAGE to it."
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepFailed, match=r"cannot start apptainer: No such file or directory\. Install Apptainer"):
        ingest(tmp_path, sif(tmp_path))


@pytest.mark.parametrize(("label", "what"), [("lock", "packages"), ("sources", "step sources")])
def test_an_image_file_of_another_state_is_refused(label: str, what: str, tmp_path: Path, stand_in: Any) -> None:
    stand_in()
    with pytest.raises(StepFailed, match=f"built from other {what} than these") as caught:
        ingest(tmp_path, sif(tmp_path, **{label: "other"}))
    assert caught.value.kind == "EnvironmentDiffers"
    assert "make images. Then: docker save mace-to-ace/tensorpot:cpu" in caught.value.message


@pytest.mark.parametrize("answer", ["no JSON", "{}", '{"data": null}'])
def test_a_file_without_labels_is_refused(answer: str, tmp_path: Path, stand_in: Any) -> None:
    stand_in()
    path = tmp_path / "other.sif"
    path.write_text(answer)
    with pytest.raises(StepFailed, match="tells no labels of"):
        ingest(tmp_path, path)


def test_both_image_files_are_looked_at_before_a_run(tmp_path: Path, stand_in: Any) -> None:
    stand_in()
    mace = tmp_path / "mace.sif"
    mace.write_text(sif(tmp_path).read_text().replace(LABELS["lock"], lock_digest("mace")))
    images = {"mace_image": str(mace), "tensorpot_image": str(tmp_path / "tensorpot.sif")}
    runner = ApptainerRunner(Settings.model_validate(images))
    runner.prepare("cpu")
    with pytest.raises(CannotStart, match="is the CPU variant, the device is cuda"):
        runner.prepare("cuda")
    with pytest.raises(CannotStart, match="no image file mace-to-ace/mace:cpu for Apptainer"):
        ApptainerRunner(Settings()).prepare("cpu")
