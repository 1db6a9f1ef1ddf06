from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from containers.contract import Resources, StepMetrics
from tasks.artefact import StepCall, external
from tasks.errors import StepCancelled, StepFailed, UserError
from tasks.run_step import look_up, request_of, run_step
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace


def with_params(call: StepCall, **params: str) -> StepCall:
    return call.model_copy(update={"params": {**call.params, **params}})


def test_a_failure_is_one_sentence_keeps_its_folder_and_is_not_cached(workspace: Workspace, call: StepCall) -> None:
    with pytest.raises(StepFailed) as caught:
        run_step(with_params(call, fail="input"), workspace)
    assert caught.value.exit_code == 2
    assert str(caught.value) == "shout: row 3 of it is wrong"
    with pytest.raises(StepFailed) as caught:
        run_step(with_params(call, fail="the disk is on fire"), workspace)
    error = caught.value
    assert (error.exit_code, error.kind) == (1, "RuntimeError")
    assert (error.folder / "request.json").is_file()
    assert f"DISTILL_RUNNER=in_process python -m tasks.repeat {error.folder}" in str(error)
    assert "the disk is on fire" in str(error)
    failing = with_params(call, fail="once")
    for _ in range(2):
        with pytest.raises(StepFailed):
            run_step(failing, workspace)
    assert look_up(failing, workspace) is None


def test_an_old_result_is_read_without_what_only_newer_ones_report(workspace: Workspace, call: StepCall) -> None:
    class Newer(StepMetrics):
        letters: int
        words: int = 0
        lines: int

    read = run_step(call, workspace).read(Newer)
    assert (read.letters, read.words) == (5, 0)
    with pytest.raises(AttributeError, match="lines"):
        print(read.lines)


def test_a_step_that_was_ended_is_no_failure_and_progress_reaches_the_caller(
    workspace: Workspace, call: StepCall
) -> None:
    """`except StepFailed` goes on with something else; nobody does after this one. It survives the way to a worker."""
    with pytest.raises(StepCancelled) as caught:
        run_step(with_params(call, fail="end"), workspace)
    assert not isinstance(caught.value, StepFailed)
    assert type(pickle.loads(pickle.dumps(caught.value))) is StepCancelled
    seen: list[tuple[float, float, str]] = []
    run_step(call, workspace, lambda done, total, text="": seen.append((done, total, text)))
    assert seen == [(1, 2, "half")]


def test_look_up_computes_nothing_and_stub_results_have_keys_of_their_own(workspace: Workspace, call: StepCall) -> None:
    assert look_up(call, workspace) is None
    stubbed = workspace.model_copy(update={"settings": Settings(runner="stub")})
    stub, done = run_step(call, stubbed), run_step(call, workspace)
    assert stub.key != done.key
    assert not done.cached
    assert stubbed.store.path(stub.file("text")).read_text() == "stub"
    found = look_up(call, workspace)
    assert found is not None
    assert (found.key, found.cached) == (done.key, True)


def test_the_key_depends_on_content_not_on_place_or_machine(workspace, call, tmp_path) -> None:
    key = request_of(call, workspace).key
    moved = tmp_path / "other name"
    moved.write_text("hello")
    elsewhere = call.model_copy(update={"inputs": {"text": (external(moved),)}, "resources": Resources(threads=7)})
    assert request_of(elsewhere, workspace).key == key
    moved.write_text("hellp")
    changed = call.model_copy(update={"inputs": {"text": (external(moved),)}})
    assert request_of(changed, workspace).key != key


@pytest.mark.parametrize("name", ["nowhere.xyz", "a\0b", "\ud800", "n" * 300], ids=range(4))
def test_a_file_that_cannot_be_read_is_named(tmp_path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.xyz" if name == "nowhere.xyz" else "cannot read"):
        external(tmp_path / name)


def test_files_in_the_place_of_folders_are_named(tmp_path) -> None:
    workspace = open_workspace(tmp_path, Settings())
    (tmp_path / "runs" / "mine").write_text("")
    with pytest.raises(UserError, match="in the way"):
        workspace.run_folder("mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--work-root"):
        open_workspace(tmp_path / "file", Settings())


def test_no_two_runs_have_one_name(tmp_path: Path) -> None:
    """A run removes the containers that are labelled with its name."""
    opened = {open_workspace(tmp_path, Settings()).run_id for _ in range(3)}
    made = {Workspace(root=tmp_path, settings=Settings()).run_id for _ in range(3)}
    assert len(opened | made) == 6
    assert open_workspace(tmp_path, Settings(), run_id="of the flow").run_id == "of the flow"
