"""A work root of version 0.1 (tests/data/store_0_1): its labels are not computed again, its results are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from containers.contract import Request
from containers.labels.rows import LabelRows
from containers.mace.labelling import mace_label
from tasks.artefact import StepCall, external
from tasks.label_store import files
from tasks.label_store.store import LabelStore
from tasks.labelling.shard_task import TeacherCall
from tasks.labelling.shards import StructurePool
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace

WRITTEN = Path(__file__).parents[3] / "data" / "store_0_1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return shutil.copytree(WRITTEN, tmp_path / "root")


def labels(root: Path) -> LabelStore:
    params = mace_label.Params(head="Default")
    teacher = TeacherCall(model=external(root / "teacher.model"), params=params, cutoff_A=5.0)
    return teacher.store(Workspace(root=root, settings=Settings(runner="stub")))


def pool(root: Path, elsewhere: Path) -> StructurePool:
    """Its pool, read by the step `ingest` of today."""
    inputs = {"files": (external(root / "pool.extxyz"),)}
    place = Workspace(root=elsewhere, settings=Settings(runner="in_process"))
    table = run_step(StepCall(step="ingest", params={"file_names": ["pool.extxyz"]}, inputs=inputs), place)
    return StructurePool(place.store.path(table.file("structures")))


def test_no_label_is_computed_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    structures, store = pool(root, tmp_path / "elsewhere"), labels(root)
    with store.claim(structures.ids) as claim:
        assert (len(structures), claim.mine.sum(), claim.elsewhere) == (8, 0, 0)
    with store.reading() as paths:
        assert {path.parent.name for path in paths} == {"fresh", "buckets"}
        before = LabelRows(paths).take(structures.ids)
    assert [len(forces) for forces in before["forces"].to_pylist()] == (3 * structures.atoms).tolist()

    shard = next((store.folder / "buckets").iterdir())  # the same rows again, as of a compaction that was killed
    shutil.copy(shard, store.folder / "fresh" / shard.name.partition("-")[2])
    monkeypatch.setattr(files, "MOST_FRESH", 1)
    store.compact()
    with store.reading() as paths:
        assert LabelRows(paths).take(structures.ids).equals(before)


def test_its_calibration_is_known_and_its_results_are_found_by_their_keys(root: Path) -> None:
    known = labels(root).calibration("a machine")
    assert known.edges_per_batch == 8000
    (entry,) = (root / "store" / "ingest").iterdir()
    request = Request.model_validate_json((entry / "request.json").read_bytes())
    report = Workspace(root=root, settings=Settings()).store.peek(request)
    assert entry.name == request.key
    assert report.metrics["structures"] == 8
