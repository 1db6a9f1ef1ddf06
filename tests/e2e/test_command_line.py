"""What a user's mistake looks like: one clear message, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
TEACHER = str(EXAMPLE / "teacher.model")
FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\nSi 0 0 0\nSi 2 2 2\n'


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.distill", *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def config(folder: Path, text: str = FRAME, model: bytes = b"", **changes: object) -> Path:
    """A config with this pool, and this content of `other.model`."""
    folder.mkdir(exist_ok=True)
    (folder / "pool.xyz").write_text(text)
    (folder / "other.model").write_bytes(model)
    values = {"name": "mistake", "teacher": {"model": TEACHER}, "pool": {"files": ["pool.xyz"]}, **changes}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def assert_refused(root: Path, code: int, stdout: str, stderr: str, words: list[str]) -> None:
    assert code == 2, stdout + stderr
    assert "Traceback" not in stdout + stderr
    (told,) = [line for line in stderr.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in stderr.split("error:")[1], told
    assert not (root / "runs" / "mistake" / "report.json").exists()


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "not a number": ({"text": FRAME + FRAME.replace("2 2 2", "2 2")}, ["pool.xyz", "frame 1"]),
    "truncated": ({"text": FRAME + FRAME.replace("Si 2 2 2\n", "")}, ["pool.xyz", "frame 1"]),
    "NaN": ({"text": FRAME.replace("2 2 2", "2 nan 2")}, ["pool.xyz", "frame 0"]),
    "zero atoms": ({"text": FRAME.replace("2\nLattice", "0\nLattice", 1).split("Si 0")[0]}, ["pool.xyz"]),
    "empty": ({"text": ""}, ["pool.xyz"]),
    "unknown to the teacher": ({"text": FRAME.replace("Si ", "Ge ")}, ["Ge", "Si"]),
    "no pool": ({"pool": {"files": ["nowhere.xyz"]}}, ["nowhere.xyz"]),
    "no teacher": ({"teacher": {"model": "nowhere.model"}}, ["nowhere.model", "teacher.model"]),
    "no cutoff": ({"pacemaker": {"cutoff": 0}}, ["pacemaker.cutoff"]),
    "misspelt key": ({"pacemaker": {"cutof": 5}}, ["did you mean cutoff?"]),
    "no iterations": ({"train": {"maxiter": "x"}}, ["train.maxiter"]),
    "an element too many": ({"pacemaker": {"elements": ["Si", "Ge"]}}, ["Ge", "pacemaker.elements"]),
    "another head": ({"teacher": {"model": TEACHER, "head": "other"}}, ["other", "Default"]),
    "no pickle": ({"teacher": {"model": "other.model"}, "model": b"not a pickle"}, ["MACE"]),
    "no model": ({"teacher": {"model": "other.model"}, "model": pickle.dumps({"a": 1})}, ["MACE"]),
}
DRY_RUNS = """
import contextlib, io, json, sys
from flows.distill.__main__ import main
for path in sys.argv[1:]:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main([path, "--dry-run", "--work-root", path.removesuffix("config.yaml") + "root"])
    print("DONE " + json.dumps([code, out.getvalue(), error.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def dry_runs(
    tmp_path_factory: pytest.TempPathFactory, command_environment: dict[str, str]
) -> dict[str, tuple[Path, int, str, str]]:
    """Work root, exit code, output and error output of the command for every mistake, all in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    paths = [config(folder / name, **changes) for name, (changes, _) in MISTAKES.items()]
    done = subprocess.run(
        [sys.executable, "-c", DRY_RUNS, *map(str, paths)],
        cwd=REPOSITORY, env={**command_environment, "DISTILL_RUNNER": "in_process"}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    lines = [line.removeprefix("DONE ") for line in done.stdout.splitlines() if line.startswith("DONE ")]
    assert len(lines) == len(MISTAKES), done.stdout + done.stderr
    return {name: (folder / name / "root", *json.loads(line)) for name, line in zip(MISTAKES, lines, strict=True)}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake(mistake: str, dry_runs: dict[str, tuple[Path, int, str, str]]) -> None:
    assert_refused(*dry_runs[mistake], MISTAKES[mistake][1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": FRAME.replace("2 2 2", "2 2 x")}, ["pool.xyz", "frame 0"]),
        ({"pool": {"files": ["nowhere.xyz"]}}, ["nowhere.xyz"]),
    ],
    ids=["a broken pool", "a missing file"],
)
def test_a_mistake_in_a_run_under_prefect(
    changes: dict[str, Any], words: list[str], tmp_path: Path, command_environment: dict[str, str]
) -> None:
    done = command(command_environment, str(config(tmp_path, **changes)), "--work-root", str(tmp_path / "root"))
    assert_refused(tmp_path / "root", done.returncode, done.stdout, done.stderr, words)


def test_a_work_root_that_cannot_be_written(tmp_path: Path, command_environment: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    done = command(command_environment, str(config(tmp_path)), "--work-root", str(tmp_path / "file"))
    assert done.returncode == 2
    assert "--work-root" in done.stderr


def test_the_help_lists_every_key_and_the_exit_codes(command_environment: dict[str, str]) -> None:
    done = command(command_environment, "--help")
    assert done.returncode == 0
    for word in ("pacemaker.reference_potential", "train.max_attempts", "--dry-run", "3 finished but not converged"):
        assert word in done.stdout


def test_a_dry_run_labels_and_fits_nothing_and_writes_the_plan(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    done = command(
        command_environment, str(EXAMPLE / "distill.yaml"), "--dry-run", "--work-root", str(tmp_path / "root")
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "root" / "runs" / "silicon" / "dry-run"
    written = yaml.safe_load((folder / "input.yaml").read_text())
    assert written["potential"]["elements"] == ["Si"]
    assert written["fit"]["repulsion"] == "auto"
    assert {path.name for path in (folder / "requests").iterdir()} == {
        "ingest.json",
        "teacher_info.json",
        "pool_labels.json",
    }
    ran = {path.name for path in (tmp_path / "root" / "store").iterdir()} - {"work", "locks"}
    assert ran == {"ingest", "teacher_info"}
    assert "would run" in done.stdout
