from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.contract import OutputFile, Progress, Report, Request, Resources, StepMetrics
from containers.step import execute
from tasks import run_step as run
from tasks.artefact import StepCall, external
from tasks.errors import StepCancelled, StepFailed, UserError
from tasks.run_step import look_up, request_of, run_step
from tasks.runners.base import Ended
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


# ---- what a step that was taken over may leave: nothing of it becomes a result, no link of it is followed


SECRET = "what only the host may know"


class Lying:
    """A runner whose step does its work and then `lie`s; its words are those of a good end unless told otherwise."""

    def __init__(self, lie: Callable[[Path], object], exit_code: int = 0) -> None:
        self.lie, self.exit_code = lie, exit_code

    def run(self, folder: Path, image: str, request: Request, progress: Progress) -> Ended:
        execute(folder)
        (folder / "log.txt").write_text("a log\n")
        self.lie(folder)
        return Ended(f"exit code {self.exit_code}", self.exit_code)


def forged(folder: Path, **changes: object) -> None:
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    (folder / "report.json").write_text(report.model_copy(update=changes).sealed().model_dump_json())


def link(folder: Path, name: str) -> None:
    secret = folder.parent / "secret"
    secret.write_text(SECRET)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)


def other_name(folder: Path) -> None:
    output = OutputFile(name="../../secret", sha256="0" * 64, size=1)
    forged(folder, outputs={"text": output})


def moved_and_linked(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / f"{name} elsewhere")
    (folder / name).symlink_to(folder.parent / f"{name} elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


LIES = {
    "a file that was not declared": (lambda folder: (folder / "outputs" / "more").touch(), "not declared"),
    "a link as an output": (lambda folder: link(folder, "outputs/text.txt"), "plain files"),
    "an output elsewhere": (other_name, "other outputs"),
    "an output that is none": (lambda folder: forged(folder, outputs={}), "other outputs"),
    "no report": (lambda folder: (folder / "report.json").unlink(), "without a report"),
    "a report that is a link": (lambda folder: moved_and_linked(folder, "report.json"), "without a report"),
    "a report that is a pipe": (lambda folder: pipe(folder / "report.json"), "without a report"),
    "outputs that are a link": (lambda folder: moved_and_linked(folder, "outputs"), "plain"),
}


def failure_of(
    lie: Callable[[Path], object], call: StepCall, workspace: Workspace, monkeypatch, code: int = 0
) -> StepFailed:
    monkeypatch.setattr(run, "runner_of", lambda workspace: Lying(lie, code))
    with pytest.raises(StepFailed) as caught:
        run_step(call, workspace)
    assert not (workspace.root / "store" / "shout").exists()
    return caught.value


@pytest.mark.parametrize("lie", LIES)
def test_it_is_refused(lie: str, call: StepCall, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    told_by, words = LIES[lie]
    assert words in str(failure_of(told_by, call, workspace, monkeypatch))


def linked_log(folder: Path) -> None:
    (folder / "report.json").unlink()
    link(folder, "log.txt")


def endless(folder: Path) -> None:
    for name in ("report.json", "log.txt"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 40)  # a sparse terabyte


def commanding(folder: Path) -> None:
    (folder / "log.txt").write_text("\x1b[2Jgone\n")
    (folder / "report.json").unlink()


@pytest.mark.parametrize(
    ("lie", "code", "words", "never"),
    [
        (lambda folder: None, 9, "did not end well (exit code 9)", SECRET),  # an ok report does not change a bad exit
        (linked_log, 0, "without a report", SECRET),
        (endless, 0, "without a report", SECRET),  # endless files are not read whole
        (commanding, 0, "?[2Jgone", "\x1b"),
    ],
)
def test_its_words_are_not_trusted(
    lie: Callable[[Path], object], code: int, words: str, never: str, call: StepCall, workspace: Workspace, monkeypatch
) -> None:
    told = str(failure_of(lie, call, workspace, monkeypatch, code))
    assert words in told
    assert never not in told


def arm(path: Path) -> None:
    path.touch()
    path.chmod(0o6755)


def test_a_program_of_another_s_rights_loses_them(call: StepCall, workspace: Workspace, monkeypatch) -> None:
    kept = failure_of(lambda folder: arm(folder / "more"), call, workspace, monkeypatch, 1).folder
    assert (kept / "more").stat().st_mode & 0o7777 == 0o755
    assert kept.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(run, "runner_of", lambda workspace: Lying(lambda folder: arm(folder / "outputs" / "text.txt")))
    artefact = run_step(call, workspace)
    assert (workspace.store.path(artefact.file("text")).stat().st_mode & 0o7777) == 0o755


def test_an_honest_step_is_published(call: StepCall, workspace: Workspace, monkeypatch) -> None:
    monkeypatch.setattr(run, "runner_of", lambda workspace: Lying(lambda folder: None))
    assert run_step(call, workspace).cached is False
