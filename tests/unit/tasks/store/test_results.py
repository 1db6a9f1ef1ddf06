from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from containers.contract import Failure, Report
from tasks.artefact import Artefact, StepCall
from tasks.errors import StoreError
from tasks.run_step import request_of, run_step
from tasks.store import results as store
from tasks.workspace import Workspace


def entry(workspace: Workspace, artefact: Artefact) -> Path:
    return workspace.store.root / artefact.step / artefact.key


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_result_is_computed_once_and_leaves_nothing_in_the_work_folder(workspace: Workspace, call: StepCall) -> None:
    first, second = run_step(call, workspace), run_step(call, workspace)
    assert (first.cached, second.cached) == (False, True)
    assert first.outputs == second.outputs
    assert workspace.store.path(first.file("text")).read_text() == "HELLO"
    assert list((workspace.store.root / "work").iterdir()) == []


@pytest.mark.parametrize("file", ["outputs/text.txt", "report.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_computed_again_and_kept_aside(workspace, call, file, damage) -> None:
    first = run_step(call, workspace)
    damage(entry(workspace, first) / file)
    assert workspace.store.peek(request_of(call, workspace)) is None
    again = run_step(call, workspace)
    assert not again.cached
    assert again.outputs == first.outputs
    assert len(list((workspace.store.root / "damaged").iterdir())) == 1
    assert run_step(call, workspace).cached


@pytest.mark.parametrize("file", ["request.json", "stamps.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_side_file_is_repaired_without_computing(workspace, call, file, damage) -> None:
    path = entry(workspace, run_step(call, workspace)) / file
    run_step(call, workspace)
    before = path.read_bytes()
    damage(path)
    assert run_step(call, workspace).cached
    assert path.read_bytes() == before


def test_same_size_and_time_is_seen_with_verify(workspace: Workspace, call: StepCall) -> None:
    path = workspace.store.path(run_step(call, workspace).file("text"))
    run_step(call, workspace)
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verified = workspace.model_copy(update={"verify": True})
    assert not run_step(call, verified).cached


def test_a_copied_store_is_valid(workspace: Workspace, call: StepCall, tmp_path: Path) -> None:
    run_step(call, workspace)
    workspace.root.rename(tmp_path / "elsewhere")
    assert run_step(call, workspace.model_copy(update={"root": tmp_path / "elsewhere"})).cached


def test_a_symlinked_output_is_not_trusted(workspace: Workspace, call: StepCall, tmp_path: Path) -> None:
    path = workspace.store.path(run_step(call, workspace).file("text"))
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert not run_step(call, workspace).cached


def test_a_report_of_another_key_and_a_folder_without_one_are_refused(workspace: Workspace, call: StepCall) -> None:
    artefact = run_step(call, workspace)
    path = entry(workspace, artefact) / "report.json"
    report = Report.model_validate_json(path.read_bytes())
    path.write_text(report.model_copy(update={"key": "0" * 64}).sealed().model_dump_json())
    assert not run_step(call, workspace).cached
    request = request_of(call.model_copy(update={"params": {"fail": "x"}}), workspace)
    folder = workspace.store.stage(request)
    with pytest.raises(StoreError, match="no valid report"):
        workspace.store.publish(folder, request)
    assert folder.is_dir()


def test_two_runs_at_once_compute_once(workspace: Workspace, call: StepCall) -> None:
    results: list[Artefact] = []
    threads = [threading.Thread(target=lambda: results.append(run_step(call, workspace))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.cached for result in results) == [False, True, True, True]


def test_a_store_that_cannot_be_made_is_reported(workspace: Workspace, call: StepCall) -> None:
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    workspace.root.write_text("a file, not a folder")
    with pytest.raises(StoreError, match="Choose another --work-root"):
        run_step(call, workspace)


def test_stale_leftovers_do_not_count(workspace: Workspace, call: StepCall) -> None:
    request = request_of(call, workspace)
    (workspace.store.root / request.step / request.key / "outputs").mkdir(parents=True)
    assert not run_step(call, workspace).cached


@pytest.fixture
def resuming(call: StepCall, monkeypatch: pytest.MonkeyPatch) -> StepCall:
    """A call of a step that takes up what was interrupted."""
    monkeypatch.setattr(store, "RESUMES", {"shout"})
    return call


def interrupted(workspace: Workspace, call: StepCall) -> Path:
    """The folder of a run of the call that was killed."""
    folder = workspace.store.stage(request_of(call, workspace))
    (folder / "work").mkdir(exist_ok=True)
    (folder / "work" / "state").write_text(folder.name)
    return folder


def test_what_an_interrupted_run_left_is_moved_to_the_next(workspace: Workspace, resuming: StepCall) -> None:
    first = interrupted(workspace, resuming)
    second = workspace.store.stage(request_of(resuming, workspace))
    assert (second / "left" / "state").read_text() == first.name
    assert not first.exists()


def test_the_last_of_several_is_taken_and_what_it_had_taken_itself(workspace: Workspace, resuming: StepCall) -> None:
    interrupted(workspace, resuming)
    second = interrupted(workspace, resuming)
    third = workspace.store.stage(request_of(resuming, workspace))
    assert (third / "left" / "state").read_text() == second.name
    fourth = workspace.store.stage(request_of(resuming, workspace))  # the third had not even begun
    assert (fourth / "left" / "state").read_text() == second.name
    assert [path.name for path in (workspace.store.root / "work").iterdir()] == [fourth.name]


def test_nothing_of_an_interruption_is_left_when_it_went_well(workspace: Workspace, resuming: StepCall) -> None:
    interrupted(workspace, resuming)
    artefact = run_step(resuming, workspace)
    assert list((workspace.store.root / "work").iterdir()) == []
    assert {path.name for path in entry(workspace, artefact).iterdir()} == {
        "request.json", "report.json", "outputs", "stamps.json",
    }  # fmt: skip


def test_a_step_that_does_not_resume_is_given_nothing(workspace: Workspace, call: StepCall) -> None:
    first = interrupted(workspace, call)
    assert not (workspace.store.stage(request_of(call, workspace)) / "left").exists()
    assert (first / "work").is_dir()


@pytest.mark.parametrize(("kind", "taken"), [("Cancelled", True), ("DiskFull", True), ("OutOfMemory", False)])
def test_a_run_that_failed_is_kept_and_one_that_was_cancelled_or_had_no_room_taken_up(
    workspace: Workspace, resuming: StepCall, kind: str, taken: bool
) -> None:
    first = interrupted(workspace, resuming)
    error = Failure(kind=kind, message="so it was")
    key = request_of(resuming, workspace).key
    report = Report(status="failed", step="shout", key=key, seconds=1, peak_memory_MB=1, error=error).sealed()
    (first / "report.json").write_text(report.model_dump_json())
    second = workspace.store.stage(request_of(resuming, workspace))
    assert (second / "left").is_dir() is taken
    assert first.is_dir() is not taken


def test_another_request_is_not_taken_up(workspace: Workspace, resuming: StepCall) -> None:
    first = interrupted(workspace, resuming)
    other = request_of(resuming.model_copy(update={"params": {"fail": "other"}}), workspace)
    text = (first / "request.json").read_text().replace('"params": {}', '"params": {"fail": "x"}')
    (first / "request.json").write_text(text)
    for request in (other, request_of(resuming, workspace)):
        assert not (workspace.store.stage(request) / "left").exists()
    assert (first / "work").is_dir()


def test_a_link_in_place_of_the_scratch_is_not_moved(workspace: Workspace, resuming: StepCall, tmp_path: Path) -> None:
    first = workspace.store.stage(request_of(resuming, workspace))
    (tmp_path / "precious").mkdir()
    (first / "work").symlink_to(tmp_path / "precious")
    assert not (workspace.store.stage(request_of(resuming, workspace)) / "left").exists()
    assert (tmp_path / "precious").is_dir()


def test_scratch_is_moved_whatever_its_mode(workspace: Workspace, resuming: StepCall) -> None:
    first = interrupted(workspace, resuming)
    (first / "work").chmod(0o500)
    second = workspace.store.stage(request_of(resuming, workspace))
    assert (second / "left").stat().st_mode & 0o777 == 0o700


def test_scratch_that_cannot_be_moved_is_passed_over(
    workspace: Workspace, resuming: StepCall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    newer = interrupted(workspace, resuming)
    older = newer.with_name(newer.name.rpartition("-")[0] + "-1")
    shutil.copytree(newer, older)
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path == newer / "work":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    second = workspace.store.stage(request_of(resuming, workspace))
    assert (second / "left").is_dir()
    assert (older.exists(), (newer / "work").is_dir()) == (False, True)
    assert f"{newer / 'work'} is not gone on from: Permission denied" in caplog.text
