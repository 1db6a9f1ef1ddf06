"""What a user's mistake looks like: one clear message, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\nSi 0 0 0\nSi 2 2 2\n'


@pytest.fixture(scope="module", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One home for all runs: a new one costs its server a database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_TEST_PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": os.environ["DISTILL_TEST_PREFECT_HOME"],
    }
    return subprocess.run(
        [sys.executable, "-m", "flows.distill", *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def config(tmp_path: Path, text: str = FRAME, **changes: object) -> Path:
    (tmp_path / "pool.xyz").write_text(text)
    values = {
        "name": "mistake",
        "teacher": {"model": str(EXAMPLE / "teacher.model")},
        "pool": {"files": ["pool.xyz"]},
        **changes,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refused(tmp_path: Path, path: Path, *words: str, dry_run: bool = False) -> None:
    root = tmp_path / "root"
    done = command(str(path), "--work-root", str(root), *(["--dry-run"] if dry_run else []))
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "Traceback" not in output
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in done.stderr.split("error:")[1], told
    assert not (root / "runs" / "mistake" / "report.json").exists()


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (FRAME + FRAME.replace("2 2 2", "2 2"), ["pool.xyz", "frame 1"]),
        (FRAME + FRAME.replace("Si 2 2 2\n", ""), ["pool.xyz", "frame 1"]),
        (FRAME.replace("2 2 2", "2 nan 2"), ["pool.xyz", "frame 0"]),
        (FRAME.replace("2\nLattice", "0\nLattice", 1).split("Si 0")[0], ["pool.xyz"]),
        ("", ["pool.xyz"]),
        (FRAME.replace("Si ", "Ge "), ["Ge", "Si"]),
    ],
    ids=["not a number", "truncated", "NaN", "zero atoms", "empty", "unknown to the teacher"],
)
def test_a_broken_pool(tmp_path: Path, pool: str, words: list[str]) -> None:
    refused(tmp_path, config(tmp_path, pool), *words, dry_run=True)


def test_a_broken_pool_in_a_run_under_prefect(tmp_path: Path) -> None:
    refused(tmp_path, config(tmp_path, FRAME.replace("2 2 2", "2 2 x")), "pool.xyz", "frame 0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": {"files": ["nowhere.xyz"]}}, ["nowhere.xyz"]),
        ({"teacher": {"model": "nowhere.model"}}, ["nowhere.model", "teacher.model"]),
        ({"pacemaker": {"cutoff": 0}}, ["pacemaker.cutoff"]),
        ({"pacemaker": {"cutof": 5}}, ["did you mean cutoff?"]),
        ({"train": {"maxiter": "x"}}, ["train.maxiter"]),
        ({"pacemaker": {"elements": ["Si", "Ge"]}}, ["Ge", "pacemaker.elements"]),
        ({"teacher": {"model": str(EXAMPLE / "teacher.model"), "head": "other"}}, ["other", "Default"]),
    ],
)
def test_a_wrong_config(tmp_path: Path, changes: dict[str, object], words: list[str]) -> None:
    refused(tmp_path, config(tmp_path, **changes), *words, dry_run=True)


def test_a_missing_file_in_a_run_under_prefect(tmp_path: Path) -> None:
    refused(tmp_path, config(tmp_path, pool={"files": ["nowhere.xyz"]}), "nowhere.xyz")


@pytest.mark.parametrize("content", [b"not a pickle", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_mace_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.model").write_bytes(content)
    refused(tmp_path, config(tmp_path, teacher={"model": "other.model"}), "MACE", dry_run=True)


def test_a_work_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(str(config(tmp_path)), "--work-root", str(tmp_path / "file"))
    assert done.returncode == 2
    assert "--work-root" in done.stderr


def test_the_help_lists_every_key_and_the_exit_codes(tmp_path: Path) -> None:
    done = command("--help")
    assert done.returncode == 0
    for word in ("pacemaker.reference_potential", "train.max_attempts", "--dry-run", "3 finished but not converged"):
        assert word in done.stdout


def test_a_dry_run_labels_and_fits_nothing_and_writes_the_plan(tmp_path: Path) -> None:
    done = command(str(EXAMPLE / "distill.yaml"), "--dry-run", "--work-root", str(tmp_path / "root"))
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
