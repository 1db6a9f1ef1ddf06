"""A kept folder is run again alone, and what it says is told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.contract import Request
from tasks import repeat
from tasks.artefact import StepCall
from tasks.errors import StepFailed, UserError
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace


@pytest.fixture(autouse=True)
def no_other_handler() -> Iterator[None]:
    """The command sets a signal handler; a test process keeps its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def kept(workspace: Workspace, call: StepCall) -> Path:
    """The folder of a step that failed."""
    with pytest.raises(StepFailed) as caught:
        run_step(call.model_copy(update={"params": {"fail": "bad luck"}}), workspace)
    return caught.value.folder


def test_a_failed_step_fails_again_says_so_and_what_was_kept_stays_as_it_is(kept: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DISTILL_RUNNER", "in_process")
    assert repeat.main([str(kept)]) == 1
    assert "RuntimeError: bad luck" in capsys.readouterr().out
    # A later run of the same request may go on from it.
    (kept / "work").mkdir()
    (kept / "work" / "state").write_text("20 iterations")
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    repeat.main([str(kept)])
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_a_fixed_step_is_ok_and_published_nowhere(kept: Path, workspace: Workspace, monkeypatch, capsys) -> None:
    path = kept / "request.json"
    request = Request.model_validate_json(path.read_bytes())
    path.write_text(request.model_copy(update={"params": {}}).model_dump_json())
    monkeypatch.setenv("DISTILL_RUNNER", "in_process")
    assert repeat.main([str(kept)]) == 0
    assert "; ok; " in capsys.readouterr().out
    (made,) = kept.parent.glob("repeat-*")
    assert (made / "outputs" / "text.txt").read_text() == "HELLO"
    assert not (workspace.root / "store" / "shout").exists()


def test_no_request_and_no_folder_are_2_without_a_traceback(tmp_path: Path, capsys) -> None:
    assert repeat.main([str(tmp_path)]) == 2
    assert "no readable request.json" in capsys.readouterr().err
    assert repeat.main([]) == 2
    assert "python -m tasks.repeat FOLDER" in capsys.readouterr().err


def test_a_runner_that_cannot_start_is_reported(kept: Path) -> None:
    settings = Settings(runner="subprocess", tensorpot_python=kept / "nowhere")
    with pytest.raises(UserError, match="DISTILL_TENSORPOT_PYTHON"):
        repeat.repeat(kept, settings)


@pytest.mark.parametrize(("name", "value"), [("DISTILL_RUNNER", "nope"), ("DISTILL_RUNER", "docker")])
def test_a_wrong_setting_is_2_and_named(kept: Path, monkeypatch, capsys, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert repeat.main([str(kept)]) == 2
    assert name in capsys.readouterr().err
