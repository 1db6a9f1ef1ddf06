from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from containers.contract import Inputs, Machine, ProgramMissing, Resources, StepError, file_digest
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.follow import ends_at
from containers.tensorpot.fit.history import HISTORY
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.pacemaker.program import (
    Cancelled,
    End,
    cancellable,
    check_device,
    child_environment,
    find_program,
    run_pacemaker,
)

PARAMS = pace_train.Params(potential=Potential(elements=("Al", "Ni"), cutoff=5.0), maxiter=5)


def stubbed(outputs: Path) -> dict[str, object]:
    outputs.mkdir()
    return pace_train.stub(Inputs({}), outputs, PARAMS, Machine())


def test_the_stub_writes_what_is_declared_in_the_form_of_the_real_thing(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    metrics = stubbed(outputs)
    assert {path.name for path in outputs.iterdir()} == set(pace_train.OUTPUTS.values())
    assert pq.read_table(outputs / "history.parquet").schema == HISTORY
    yaml = YAML(typ="safe", pure=True)
    assert yaml.load(outputs / "input.yaml")["fit"]["maxiter"] == 5
    assert [block["speciesblock"] for block in yaml.load(outputs / "interim.yaml")["species"]] == ["Al", "Ni"]
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    stubbed(tmp_path / "two")
    for name in pace_train.OUTPUTS.values():
        assert file_digest(outputs / name) == file_digest(tmp_path / "two" / name)


def test_an_automatic_batch_fits_the_memory_and_a_share_is_of_it_alone() -> None:
    given = PARAMS.model_copy(update={"batch_size": 7})
    assert pace_train.pacemaker_input(given, 300, 15000, "fresh", Resources(memory_bytes=2**20)).batch_size == 7
    small = pace_train.pacemaker_input(PARAMS, 300, 15000, "fresh", Resources(memory_bytes=2**20))
    assert small.batch_size == 1
    memory = Resources(memory_bytes=2**31)
    near, far = (pace_train.pacemaker_input(PARAMS, 300, 15000, "fresh", memory, n).batch_size for n in (28, 209))
    assert near > far

    def batch(size: object, share: float) -> int:
        given = PARAMS.model_copy(update={"batch_size": size, "batch_share": share})
        return pace_train.pacemaker_input(given, 300, 15000, "fresh").batch_size

    assert [batch("auto", share) for share in (1.0, 0.5, 0.25, 2**-6)] == [30, 15, 7, 1]
    assert batch(8, 0.5) == 8


def test_core_chance_and_cycles_reach_the_input() -> None:
    for core in (True, False):
        plain = pace_train.pacemaker_input(PARAMS.model_copy(update={"core": core}), 10, 100, "fresh").text()
        assert YAML(typ="safe", pure=True).load(plain)["fit"].get("repulsion") == ("auto" if core else None)
        assert ("repulsion" in plain) is core
    asked = PARAMS.model_copy(update={"coefficients": "random", "cycles": 3, "noise": 0.05, "seed": 7})
    sections = YAML(typ="safe", pure=True).load(pace_train.pacemaker_input(asked, 10, 100, "fresh").text())
    blocks = [block for name, block in sections["potential"]["functions"].items() if isinstance(block, dict)]
    assert {block["coefs_init"] for block in blocks} == {"random"}
    assert (sections["fit"]["fit_cycles"], sections["fit"]["noise_relative_sigma"], sections["seed"]) == (3, 0.05, 7)


@pytest.mark.parametrize(("limit", "ends"), [(None, None), (1000.0, 905.0), (100.0, 90.0), (10.0, 10.0)])
def test_a_fit_ends_before_its_time_is_over(limit: float | None, ends: float | None) -> None:
    assert ends_at(5.0, limit) == ends


def test_a_missing_program_is_named_and_the_child_sees_threads_and_no_gpu() -> None:
    with pytest.raises(ProgramMissing, match="python-ace"):
        find_program("pacemaker-that-is-not-there")
    environment = child_environment(Resources(threads=3))
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["OMP_NUM_THREADS"] == "3"
    assert environment["TF_NUM_INTEROP_THREADS"] == "3"
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment["USER"]
    assert environment["TF_USE_LEGACY_KERAS"] == "1"


def test_a_gpu_that_tensorflow_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow itself would compute on the CPU without a word."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    check_device(Resources(device="cpu"))
    with pytest.raises(StepError, match="TensorFlow sees no GPU; set the device to cpu"):
        check_device(Resources(device="cuda"))


def program(folder: Path, script: str) -> tuple[str]:
    path = folder / "fake"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return (str(path),)


def test_lines_threads_and_the_exit_code_go_through(tmp_path: Path) -> None:
    lines: list[str] = []
    code = run_pacemaker(
        program(tmp_path, "echo one; echo two >&2; exit 3"), tmp_path, Resources(), lambda line: not lines.append(line)
    )
    assert (code, lines) == (3, ["one\n", "two\n"])
    resources = Resources(threads=3, inter_op_threads=2)
    lines.clear()
    run_pacemaker(
        program(tmp_path, "tr '\\0' '\\n' < /proc/$$/environ"), tmp_path, resources, lambda line: not lines.append(line)
    )
    told = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    assert [told[name] for name in names] == ["3", "3", "2"]


def test_it_ends_on_request_also_of_another_thread_and_takes_its_children_along(tmp_path: Path) -> None:
    end = End()
    threading.Timer(0.3, end.now).start()
    assert run_pacemaker(program(tmp_path, "exec sleep 60"), tmp_path, Resources(), lambda line: True, end) == -9
    assert run_pacemaker(program(tmp_path, "exec sleep 60"), tmp_path, Resources(), lambda line: True, end) == -9
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo ready; sleep 60"
    assert run_pacemaker(program(tmp_path, script), tmp_path, Resources(), lambda line: False) == -9
    assert ends(tmp_path / "child")


def test_sigterm_is_a_cancellation_and_the_program_ends(tmp_path: Path) -> None:
    fake = program(tmp_path, f"echo $$ > {tmp_path}/child; echo ready; exec sleep 60")

    def terminated(line: str) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    with pytest.raises(Cancelled, match="continues where it was"), cancellable():
        run_pacemaker(fake, tmp_path, Resources(), terminated)
    assert ends(tmp_path / "child")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_somebody_handles_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with cancellable():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_dies_with_the_step(tmp_path: Path) -> None:
    fake = program(tmp_path, f"echo $$ > {tmp_path}/child; echo ready; exec sleep 60")
    code = (
        "from pathlib import Path; from containers.contract import Resources\n"
        "from containers.tensorpot.pacemaker.program import run_pacemaker\n"
        f"run_pacemaker({fake!r}, Path({str(tmp_path)!r}), Resources(), lambda line: print(line) is None)"
    )
    with subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True) as step:
        assert step.stdout.readline() == "ready\n"
        step.kill()
    assert ends(tmp_path / "child")


def ends(pid_file: Path) -> bool:
    """Whether the process is gone, or waits only for somebody to fetch its exit code, within 10 s."""
    process = Path("/proc") / pid_file.read_text().strip()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not process.exists() or "State:\tZ" in (process / "status").read_text():
            return True
        time.sleep(0.02)
    return False
