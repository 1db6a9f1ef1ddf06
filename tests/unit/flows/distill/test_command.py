"""The command line with a fake flow: exit codes, messages and help."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flows.config.schema import DistillConfig
from flows.distill import __main__ as command
from flows.distill.summary import Outcome
from tasks.errors import StepFailed, StoreError
from tasks.settings import Settings

OUTCOME = Outcome(
    name="silicon", folder=Path("runs/silicon"), stub=False, converged=True, not_converged_because=None,
    figures={"force_mae_meV_per_A": 44.321},
)  # fmt: skip
MISSED = OUTCOME.model_copy(update={"converged": False, "not_converged_because": "the force MAE is large"})


class FakeFlow:
    """Remembers its arguments; answers or raises."""

    def __init__(self, answer: Outcome | BaseException = OUTCOME) -> None:
        self.answer = answer
        self.calls: list[tuple[DistillConfig, Path, bool, bool]] = []

    def __call__(
        self, config: DistillConfig, work_root: Path, verify: bool, replace: bool, approve_labels: bool
    ) -> Outcome:
        self.calls.append((config, work_root, verify, replace))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings of the caller's, another working directory, and the signal handler put back."""
    for name in os.environ:
        if name.startswith("DISTILL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    yield
    signal.signal(signal.SIGTERM, before)
    os.environ.clear()
    os.environ.update(environment)


def ended(monkeypatch: pytest.MonkeyPatch, fake: FakeFlow, *arguments: str) -> int:
    monkeypatch.setattr(command, "distill", fake)
    return command.main(list(arguments))


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (OUTCOME, 0, ""),
        (MISSED, 3, ""),
        (StepFailed("pace_train", "Crashed", "it fell", Path("kept")), 1, "it fell"),
        (StepFailed("ingest", "BadInput", "row 3 is wrong", Path("kept")), 2, "row 3 is wrong"),
        (StoreError("the disk is full"), 1, "\nerror: the disk is full\n"),
        (KeyboardInterrupt(), 1, "run the same command to continue"),
    ],
)
def test_exit_code_and_stderr_say_how_it_ended(monkeypatch, capsys, answer, code, message) -> None:
    assert ended(monkeypatch, FakeFlow(answer)) == code
    written = capsys.readouterr()
    assert message in written.err
    assert bool(written.out) == isinstance(answer, Outcome)


def test_a_bug_is_not_hidden(monkeypatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ended(monkeypatch, FakeFlow(ZeroDivisionError()))


def test_the_options_reach_the_flow_and_the_bundled_example_is_the_default(monkeypatch, tmp_path) -> None:
    fake, changes = FakeFlow(), ("--set", "train.maxiter=7", "--set", "name=mine")
    ended(monkeypatch, fake, *changes, "--work-root", "there", "--verify", "--replace")
    ended(monkeypatch, fake)
    (config, *options), (example, *defaults) = fake.calls
    assert (config.name, config.train.maxiter, example.name) == ("mine", 7, "silicon")
    assert (options, defaults) == ([tmp_path / "there", True, True], [tmp_path, False, False])
    assert Path(example.pool.files[0]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        (["--set", "train.maxitr=3"], "did you mean maxiter?"),
        (["--set", "pool.files=[nowhere.xyz]"], "nowhere.xyz"),
        (["--set", "teacher.model=nowhere.model"], "nowhere.model"),
        (["--work-root", __file__], "Choose another --work-root"),
        ("DISTILL_RUNER=stub", "no such setting: DISTILL_RUNER"),
        ("DISTILL_CORES=0", "DISTILL_CORES: "),
        ("DISTILL_RUNNER=podman", "DISTILL_RUNNER: "),
        ("DISTILL_STEP_TIMEOUT_S=soon", "DISTILL_STEP_TIMEOUT_S: "),
    ],
)
def test_a_wrong_argument_or_variable_is_2_and_starts_nothing(
    monkeypatch, capsys, tmp_path, arguments, message
) -> None:
    fake = FakeFlow()
    if isinstance(arguments, str):
        monkeypatch.setenv(*arguments.split("="))
        arguments = []
    assert ended(monkeypatch, fake, *arguments) == 2
    assert fake.calls == []
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("runs/*")) == []


def test_a_dry_run_starts_no_flow(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("DISTILL_RUNNER", "stub")
    fake = FakeFlow()
    assert ended(monkeypatch, fake, "--dry-run") == 0
    assert fake.calls == []
    assert "would run" in capsys.readouterr().out
    assert (tmp_path / "runs/silicon/dry-run/plan.json").is_file()


def test_another_config_with_the_same_name_is_2_and_starts_nothing(monkeypatch, capsys, tmp_path) -> None:
    fake = FakeFlow()
    ended(monkeypatch, fake)
    manifest = tmp_path / "runs/silicon/manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"config": fake.calls[0][0].model_dump(mode="json"), "inputs": {}}))
    assert ended(monkeypatch, fake) == 0
    assert ended(monkeypatch, fake, "--set", "train.seed=7") == 2
    assert "  train.seed: 42 there, 7 here\n" in capsys.readouterr().err
    assert ended(monkeypatch, fake, "--set", "train.seed=7", "--set", "name=other") == 0
    assert ended(monkeypatch, fake, "--set", "train.seed=7", "--replace") == 0
    assert [call[3] for call in fake.calls] == [False, False, False, True]
    monkeypatch.setenv("DISTILL_RUNNER", "stub")
    assert ended(monkeypatch, fake, "--set", "train.seed=7", "--dry-run") == 0
    assert "The run will need --replace, or another name." in capsys.readouterr().err


def test_the_result_is_verdict_figures_and_report() -> None:
    text = command.summary_lines(OUTCOME)
    assert "silicon: converged\n" in text
    assert "force_mae_meV_per_A          44.32\n" in text
    assert text.endswith("runs/silicon/report.html")
    assert "STUB" not in text
    stub = command.summary_lines(MISSED.model_copy(update={"stub": True}))
    assert "not converged: the force MAE is large" in stub
    assert "STUB RUN" in stub


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_help_has_every_key_and_every_setting(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    lines: list[Any] = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {words[0] for words in lines if words} >= set(leaves(DistillConfig))
    said = {word.split("=")[0].rstrip(",;") for words in lines for word in words}
    assert said >= {f"DISTILL_{name.upper()}" for name in Settings.model_fields}
    assert ["train.maxiter", "150"] in [words[:2] for words in lines]


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["one.yaml", "two.yaml"]])
def test_a_wrong_option_is_2(arguments) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)


def test_sigterm_leaves_in_order(monkeypatch) -> None:
    def terminated(*_: object) -> Outcome:
        signal.raise_signal(signal.SIGTERM)
        return OUTCOME

    monkeypatch.setattr(command, "distill", terminated)
    with pytest.raises(SystemExit) as caught:
        command.main([])
    assert caught.value.code == 128 + signal.SIGTERM
