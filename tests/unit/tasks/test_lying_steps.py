"""What a step that was taken over may leave: nothing of it becomes a result, no link of it is followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.contract import OutputFile, Progress, Report, Request
from containers.step import execute
from tasks import run_step as run
from tasks.artefact import StepCall
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.runners.base import Ended
from tasks.workspace import Workspace

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


def failure(
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
    assert words in str(failure(told_by, call, workspace, monkeypatch))


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
    told = str(failure(lie, call, workspace, monkeypatch, code))
    assert words in told
    assert never not in told


def arm(path: Path) -> None:
    path.touch()
    path.chmod(0o6755)


def test_a_program_of_another_s_rights_loses_them(call: StepCall, workspace: Workspace, monkeypatch) -> None:
    kept = failure(lambda folder: arm(folder / "more"), call, workspace, monkeypatch, 1).folder
    assert (kept / "more").stat().st_mode & 0o7777 == 0o755
    assert kept.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(run, "runner_of", lambda workspace: Lying(lambda folder: arm(folder / "outputs" / "text.txt")))
    artefact = run_step(call, workspace)
    assert (workspace.store.path(artefact.file("text")).stat().st_mode & 0o7777) == 0o755


def test_an_honest_step_is_published(call: StepCall, workspace: Workspace, monkeypatch) -> None:
    monkeypatch.setattr(run, "runner_of", lambda workspace: Lying(lambda folder: None))
    assert run_step(call, workspace).cached is False
