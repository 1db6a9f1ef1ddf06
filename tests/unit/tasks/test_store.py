from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from containers.contract import Report
from tasks.artefact import Artefact, StepCall
from tasks.errors import StoreError
from tasks.run import request_of, run_step
from tasks.workspace import Workspace


def entry(workspace: Workspace, artefact: Artefact) -> Path:
    return workspace.store.root / artefact.step / artefact.key


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_result_is_computed_once(workspace: Workspace, call: StepCall) -> None:
    first, second = run_step(call, workspace), run_step(call, workspace)
    assert (first.cached, second.cached) == (False, True)
    assert first.outputs == second.outputs
    assert workspace.store.path(first.file("text")).read_text() == "HELLO"


def test_nothing_is_left_in_the_work_folder(workspace: Workspace, call: StepCall) -> None:
    run_step(call, workspace)
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
def test_a_damaged_side_file_is_mended_without_computing(workspace, call, file, damage) -> None:
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


def test_publishing_refuses_what_its_report_does_not_say(workspace: Workspace, call: StepCall) -> None:
    request = request_of(call, workspace)
    folder = workspace.store.stage(request)
    with pytest.raises(StoreError, match="no valid report"):
        workspace.store.publish(folder, request)
    assert folder.is_dir()


def test_a_report_of_another_key_is_refused(workspace: Workspace, call: StepCall) -> None:
    artefact = run_step(call, workspace)
    path = entry(workspace, artefact) / "report.json"
    report = Report.model_validate_json(path.read_bytes())
    path.write_text(report.model_copy(update={"key": "0" * 64}).sealed().model_dump_json())
    assert not run_step(call, workspace).cached


def test_two_runs_at_once_compute_once(workspace: Workspace, call: StepCall) -> None:
    results: list[Artefact] = []
    threads = [threading.Thread(target=lambda: results.append(run_step(call, workspace))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.cached for result in results) == [False, True, True, True]


def test_a_store_that_cannot_be_made_is_told(workspace: Workspace, call: StepCall) -> None:
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    workspace.root.write_text("a file, not a folder")
    with pytest.raises(StoreError, match="Choose another --work-root"):
        run_step(call, workspace)


def test_stale_leftovers_do_not_count(workspace: Workspace, call: StepCall) -> None:
    request = request_of(call, workspace)
    (workspace.store.root / request.step / request.key / "outputs").mkdir(parents=True)
    assert not run_step(call, workspace).cached
