"""A small step run through a real folder: what is accepted, what is refused, what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from containers import contract, step
from containers.contract import BadInput, Closed, Inputs, Machine, Report, Request, file_digest
from containers.environment import lock_digest

REPOSITORY = Path(__file__).parents[3]
Work = Callable[[Inputs, Path, Any, Machine], dict[str, Any]]


class FakeParams(Closed):
    times: int = 1


def copy_text(inputs: Inputs, outputs: Path, params: FakeParams, machine: Machine) -> dict[str, Any]:
    """The good way: the input's text, some times over."""
    machine.progress(1, 2, "half")
    (outputs / "result.txt").write_text(inputs.one("text").read_text() * params.times)
    return {"letters": len(inputs.one("text").read_text())}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A step called `fake`; a test may put another `run` into it."""
    module = ModuleType("fake_step")
    module.__dict__.update(
        IMAGE="mace",
        VERSION=3,
        INPUTS={"text": "a text"},
        OUTPUTS={"result": "result.txt"},
        Params=FakeParams,
        run=copy_text,
        stub=lambda inputs, outputs, params, machine: (outputs / "result.txt").write_text("stub") and {},
    )
    monkeypatch.setitem(sys.modules, "fake_step", module)
    monkeypatch.setitem(contract.STEPS, "fake", "fake_step")
    monkeypatch.setattr(step, "check_environment", lambda image, in_part=False: {"of": image})
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder whose request asks for the fake step on `text.txt`."""
    text = tmp_path / "text.txt"
    text.write_text("abc")
    run = tmp_path / "run"
    run.mkdir()
    request = Request(
        step="fake",
        version=3,
        lock=lock_digest("mace"),
        params={"times": 2},
        inputs={"text": ({"path": text, "sha256": file_digest(text)},)},
    )
    (run / "request.json").write_text(request.model_dump_json())
    return run


def change_request(folder: Path, **changes: Any) -> None:
    path = folder / "request.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def saved(folder: Path) -> Report:
    return Report.model_validate_json((folder / "report.json").read_bytes())


def failure(folder: Path) -> contract.Failure:
    report = step.execute(folder)
    assert report == saved(folder)
    assert report.intact
    assert report.status == "failed"
    assert report.outputs == {}
    return report.error


def test_the_good_way_with_resources_and_progress(fake: ModuleType, folder: Path) -> None:
    report = step.execute(folder)
    assert report == saved(folder)
    assert report.intact
    assert (report.status, report.error) == ("ok", None)
    assert report.metrics == {"letters": 3}
    assert report.versions == {"of": "mace"}
    assert report.key == Request.model_validate_json((folder / "request.json").read_bytes()).key
    assert (folder / "outputs" / "result.txt").read_text() == "abcabc"
    assert report.outputs["result"].sha256 == file_digest(folder / "outputs" / "result.txt")
    assert report.outputs["result"].size == 6
    assert {path.name for path in folder.iterdir()} == {"request.json", "outputs", "report.json"}
    seen: list[Any] = []

    def run(inputs: Inputs, outputs: Path, params: Any, machine: Machine) -> dict[str, Any]:
        seen.append(machine.resources.threads)
        return copy_text(inputs, outputs, params, machine)

    fake.__dict__["run"] = run
    change_request(folder, resources={"threads": 5})
    step.execute(folder, lambda done, total, text="": seen.append((done, total, text)))
    assert seen == [5, (1, 2, "half")]


def test_old_outputs_and_report_do_not_survive_and_a_stub_is_run_on_request(fake: ModuleType, folder: Path) -> None:
    change_request(folder, stub=True)
    assert step.execute(folder).status == "ok"
    assert (folder / "outputs" / "result.txt").read_text() == "stub"
    (folder / "outputs" / "old.txt").touch()
    (folder / "report.json").write_text("old")
    assert step.execute(folder).status == "ok"
    assert [path.name for path in (folder / "outputs").iterdir()] == ["result.txt"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda result: result.with_name("more.txt").touch(), "not declared ['more.txt']"),
        (lambda result: result.unlink(), "missing ['result.txt']"),
        (lambda result: result.symlink_to(result.rename(result.parents[1] / "moved.txt")), "not links or folders"),
        (lambda result: (result.unlink(), result.mkdir()), "not links or folders"),
    ],
    ids=["more", "less", "a link", "a folder"],
)
def test_other_outputs_than_declared_fail(
    fake: ModuleType, folder: Path, spoil: Callable[[Path], object], words: str
) -> None:
    def run(inputs: Inputs, outputs: Path, params: Any, machine: Machine) -> dict[str, Any]:
        metrics = copy_text(inputs, outputs, params, machine)
        spoil(outputs / "result.txt")
        return metrics

    fake.__dict__["run"] = run
    error = failure(folder)
    assert error.kind == "StepError"
    assert words in error.message


def test_a_changed_or_missing_input_is_refused_before_anything_is_written(fake: ModuleType, folder: Path) -> None:
    (folder.parent / "text.txt").write_text("abd")
    error = failure(folder)
    assert error.kind == "BadInput"
    assert "changed since" in error.message
    assert str(folder.parent / "text.txt") in error.message
    assert not (folder / "outputs").exists()
    (folder.parent / "text.txt").unlink()
    assert "does not exist" in failure(folder).message


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"inputs": {"txt": []}}, "StepError", "no input called txt"),
        ({"inputs": {}}, "StepError", "needs an input called text"),
        ({"version": 4}, "StepError", "version 4, this is 3"),
        ({"step": "unheard"}, "StepError", "no step is called 'unheard'"),
        ({"params": {"tmies": 2}}, "BadInput", "tmies"),
        ({"params": {"times": "two"}}, "BadInput", "times"),
    ],
)
def test_a_request_that_does_not_fit_fails(
    fake: ModuleType, folder: Path, changes: dict[str, Any], kind: str, words: str
) -> None:
    change_request(folder, **changes)
    error = failure(folder)
    assert error.kind == kind
    assert words in error.message


def test_a_metric_that_is_declared_must_be_reported(fake: ModuleType, folder: Path) -> None:
    class Metrics(contract.StepMetrics):
        letters: int

    fake.__dict__["Metrics"] = Metrics
    assert step.execute(folder).error is None
    fake.__dict__["run"] = lambda *given: copy_text(*given) and {"leters": 3}
    assert "metrics of fake are not those that it declares" in failure(folder).message


@pytest.mark.parametrize("metrics", [{"error_meV": float("nan")}, {"error_meV": float("inf")}, {"path": Path("/a")}])
def test_metrics_that_json_cannot_hold_fail_with_a_report(
    fake: ModuleType, folder: Path, metrics: dict[str, Any]
) -> None:
    fake.__dict__["run"] = lambda *given: copy_text(*given) and metrics
    assert "finite and plain JSON" in failure(folder).message


def raising(error: Exception) -> Work:
    def run(inputs: Inputs, outputs: Path, params: Any, machine: Machine) -> dict[str, Any]:
        raise error

    return run


def test_running_out_of_memory_and_another_environment_fail_as_such(
    fake: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.__dict__["run"] = raising(MemoryError())
    assert failure(folder).kind == "OutOfMemory"

    def differs(image: str, in_part: bool = False) -> dict[str, str]:
        raise contract.StepError(f"{image} differs")

    monkeypatch.setattr(step, "check_environment", differs)
    assert failure(folder).message == "mace differs"


def test_main_ends_with_2_for_bad_input_with_1_for_a_bug_and_with_0(
    fake: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.__dict__["run"] = raising(BadInput("pool.xyz: frame 3 (from 0): zero atoms"))
    assert step.main([str(folder)]) == 2
    assert capsys.readouterr().err == "BadInput: pool.xyz: frame 3 (from 0): zero atoms\n"
    assert saved(folder).status == "failed"
    fake.__dict__["run"] = raising(ZeroDivisionError("by nothing"))
    assert step.main([str(folder)]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("ZeroDivisionError: ZeroDivisionError: by nothing\n")
    error = saved(folder).error
    assert (error.kind, error.message) == ("ZeroDivisionError", "ZeroDivisionError: by nothing")
    fake.__dict__["run"] = copy_text
    assert step.main([str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.out == '@progress [1, 2, "half"]\n'
    assert shown.err == ""


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b"]])
def test_main_without_a_run_folder_tells_its_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(arguments) == 2
    assert "usage: python -m containers.step FOLDER" in capsys.readouterr().err


def test_progress_lines_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    step.print_progress(3, 10.5, 'a "quoted"\nname')
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(step.PROGRESS_MARK)
    assert json.loads(line.removeprefix(step.PROGRESS_MARK)) == [3, 10.5, 'a "quoted"\nname']


def test_peak_memory_is_the_steps_own_and_not_its_parents() -> None:
    ballast = bytearray(b"x") * 300_000_000
    code = "from containers import step; print(step._peak_memory_MB())"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 10 < float(result.stdout) < len(ballast) / 1e6
