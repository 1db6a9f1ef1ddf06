"""Real DFT data beside a teacher, and a run that goes on from it: references, leaks, weights, what stays selected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.integration, pytest.mark.long]
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "nial"
DATA = REPOSITORY / "tests" / "data" / "nial"


def command(folder: Path, environment: dict[str, str], name: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    """`python -m flows.distill` on a tiny config with DFT data."""
    config = {
        "name": name,
        "teacher": {"model": str(EXAMPLE / "teacher.model"), "dtype": "float64"},
        "pool": {"files": ["pool.extxyz"]},
        "dft": {"files": [str(DATA / "dft.extxyz")], "test_files": [str(DATA / "dft_test.extxyz")]},
        "dataset": {"test_leaks": "set_aside"},
        "pacemaker": {"functions_per_element": 15, "b_basis": "small", "energy_weights": False},
        "selection": {"max_structures": 20},
        "train": {"maxiter": 3, "max_attempts": 1, "threads": 1},
        "stability": {"picoseconds": 0},
        "properties": {"from_pool": 0},
        "trajectory": {"picoseconds": 0},
        "convergence": {"force_mae_meV_per_A": 100000, "energy_mae_meV_per_atom": 100000},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return subprocess.run(
        [sys.executable, "-m", "flows.distill", str(folder / "config.yaml"), "--work-root", str(folder)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, command_environment: dict[str, str]) -> Path:
    """The work root of a finished run on 60 pool structures and 31 reference structures."""
    folder = tmp_path_factory.mktemp("dft")
    ase.io.write(folder / "pool.extxyz", ase.io.read(EXAMPLE / "pool.extxyz", "::5"))
    done = command(folder, command_environment, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def report(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "runs" / name / "report.json").read_text())


def test_the_teacher_s_own_error_against_dft_is_reported(first: Path) -> None:
    metrics = report(first, "first")["metrics"]["baseline"]  # the figures of its labels in float64
    assert metrics["teacher_test_force_mae_meV_per_A"] == pytest.approx(76.35, abs=0.5)
    assert metrics["teacher_test_energy_mae_meV_per_atom"] == pytest.approx(7.93, abs=0.05)
    assert metrics["dft_offsets_eV"] == {}


def test_dft_structures_are_trained_on_with_their_weight_and_test_structures_are_not(first: Path) -> None:
    folder = first / "runs" / "first"
    frames = ase.io.read(folder / "frames.extxyz", ":")
    train = [atoms for atoms in frames if atoms.info["side"] == "train"]
    dft = [atoms for atoms in train if atoms.info["origin"] == "dft"]
    others = [atoms for atoms in train if atoms.info["origin"] == "teacher"]
    assert len(dft) == report(first, "first")["metrics"]["frames"]["dft_structures"] > 10
    assert {atoms.info["w_energy"] for atoms in dft} == {10.0}
    assert sum(atoms.info["w_energy"] for atoms in others) == pytest.approx(len(others)), "shared among the pool's"
    tested = {len(atoms) and atoms.positions.tobytes() for atoms in ase.io.read(DATA / "dft_test.extxyz", ":")}
    assert not tested & {atoms.positions.tobytes() for atoms in frames if atoms.info["side"] != "test"}


def test_a_run_goes_on_from_another_with_more_structures(first: Path, command_environment: dict[str, str]) -> None:
    ase.io.write(first / "more.extxyz", ase.io.read(EXAMPLE / "pool.extxyz", "1::10"))
    changes = {"pool": {"files": ["more.extxyz"]}, "dft": {}, "selection": {"max_structures": 26}}
    done = command(first, command_environment, "second", dataset={"base": "runs/first"}, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(first / "runs/second/selection.parquet").to_pylist()
    before = pq.read_table(first / "runs/first/selection.parquet")["id"].to_pylist()
    assert [row["id"] for row in rows if row["how"] == "given"] == before
    assert len(rows) == 26
    old, new = (pq.read_table(first / "runs" / name / "dataset.parquet") for name in ("first", "second"))
    assert new.slice(0, len(old)).equals(old)
    assert len(new) > len(old)
    assert report(first, "second")["metrics"]["frames"]["dft_structures"] > 10, "the earlier run's DFT data stay in"


def test_data_of_another_zero_of_energy_are_refused(first: Path, command_environment: dict[str, str]) -> None:
    shifted = ase.io.read(DATA / "dft.extxyz", ":")
    for atoms in shifted:
        atoms.info["REF_energy"] += 0.3 * len(atoms)
    ase.io.write(first / "shifted.extxyz", shifted)
    done = command(first, command_environment, "shifted", dft={"files": ["shifted.extxyz"]})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "another zero" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (first / "runs" / "shifted").exists()
