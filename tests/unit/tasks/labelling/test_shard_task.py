"""One shard, at its edges: what is kept of a machine's speed, and of a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ase.build import bulk

from containers.contract import file_digest
from containers.mace.labelling import mace_label as step
from containers.structures.table import structure_id, structures_table, write_table
from tasks.artefact import external
from tasks.errors import StepFailed
from tasks.labelling import shard_task
from tasks.labelling.shard_task import TeacherCall, label_shard, machine_name
from tasks.labelling.shards import ShardFile
from tasks.settings import Settings
from tasks.workspace import Workspace

METRICS = {"edges": 200_000, "edges_per_s": 50_000.0, "atoms": 8_000, "edges_per_batch": 4_000, "calibration": {}}


@pytest.fixture
def shard(tmp_path: Path) -> ShardFile:
    atoms = bulk("Si")
    atoms.info = {"id": structure_id(atoms), "source": "pool.extxyz", "row": 0, "group": "", "family": "f"}
    file = tmp_path / "claims" / "00001.parquet"
    file.parent.mkdir()
    write_table(file, structures_table([atoms]))
    return ShardFile(file=file, sha256=file_digest(file), structures=1, atoms=2)


@pytest.fixture
def asked(tmp_path: Path) -> TeacherCall:
    (tmp_path / "teacher.model").write_text("a stub reads nothing")
    return TeacherCall(model=external(tmp_path / "teacher.model"), params=step.Params(head="Default"), cutoff_A=5.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path, settings=Settings(runner="stub", cores=1))


def computing(monkeypatch: pytest.MonkeyPatch, **metrics: Any) -> None:
    """Let the stub tell of a real computation."""
    stub = step.stub
    monkeypatch.setattr(step, "stub", lambda *given: {**stub(*given), **METRICS, **metrics})


def test_a_shard_is_labelled_once(shard: ShardFile, asked: TeacherCall, workspace: Workspace) -> None:
    assert label_shard.fn(shard, asked, workspace).labelled == 1
    assert label_shard.fn(shard, asked, workspace).labelled == 0
    assert list((workspace.store.root / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [({}, True), ({"edges": 2_000, "edges_per_s": 100.0}, True), ({"edges": 2_000, "edges_per_s": 1_700.0}, False)],
)
def test_a_short_shard_does_not_tell_the_machine_s_speed(
    shard: ShardFile,
    asked: TeacherCall,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    metrics: Any,
    kept: bool,
) -> None:
    """A pool that grows by one structure must not cut the next large one into shards of seconds."""
    computing(monkeypatch, **metrics)
    done = label_shard.fn(shard, asked, workspace)
    assert (asked.store(workspace).calibration(machine_name(workspace.settings)) == done.calibration) is kept


def test_an_attempt_that_comes_late_is_no_failure(
    shard: ShardFile, asked: TeacherCall, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask may run a shard twice when it takes a living worker for dead."""

    def faster(*given: Any) -> dict[str, Any]:
        shard.file.unlink()
        return stub(*given)

    stub = step.stub
    monkeypatch.setattr(step, "stub", faster)
    assert label_shard.fn(shard, asked, workspace).labelled == 0


def test_a_failed_shard_keeps_its_structures(
    shard: ShardFile, asked: TeacherCall, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> dict[str, Any]:
        raise ValueError("as asked")

    monkeypatch.setattr(step, "stub", fails)
    with pytest.raises(StepFailed, match="as asked") as failed:
        label_shard.fn(shard, asked, workspace)
    kept = failed.value.folder / "structures.parquet"
    assert pq.read_table(kept).equals(pq.read_table(shard.file))
    assert str(kept) in (failed.value.folder / "request.json").read_text()


def test_a_failure_is_reported_also_where_there_are_no_links(
    shard: ShardFile, asked: TeacherCall, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise PermissionError("no links here")

    monkeypatch.setattr(step, "stub", fails)
    monkeypatch.setattr(shard_task.os, "link", fails)
    with pytest.raises(StepFailed, match="mace_label failed"):
        label_shard.fn(shard, asked, workspace)


def test_a_machine_is_named_by_its_gpu_and_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine_name(Settings(cores=2, device="cuda")) == "cuda, acceleration none"
    assert machine_name(Settings(cores=1)) != machine_name(Settings(cores=2))
