"""A small step with a place to run it, and a finished run with small but full files for the tests of the report."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from containers.contract import STEPS, BadInput, Closed, Inputs, Machine
from containers.labels.rows import ROWS
from containers.structures.table import write_table
from containers.tensorpot.pacemaker.program import Cancelled
from containers.tensorpot.student.baseline import Baseline
from tasks.artefact import Artefact, StepCall, external
from tasks.report.summary import (
    PUBLISHED,
    READ,
    AttemptSummary,
    FitFiles,
    LabelCounts,
    Labelling,
    RunSummary,
    SelectionCounts,
)
from tasks.settings import Settings
from tasks.workspace import Workspace


class Clock:
    """A clock that stands until `now` is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal() -> io.StringIO:
    """A stream that says it is a terminal."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    return stream


class ShoutParams(Closed):
    fail: str = ""


def shout(inputs: Inputs, outputs: Path, params: ShoutParams, machine: Machine) -> dict[str, Any]:
    if params.fail == "input":
        raise BadInput("row 3 of it is wrong")
    if params.fail == "end":
        raise Cancelled("the step was asked to end")
    if params.fail:
        raise RuntimeError(params.fail)
    machine.progress(1, 2, "half")
    text = inputs.one("text").read_text().upper()
    (outputs / "text.txt").write_text(text)
    return {"letters": len(text)}


def whisper(inputs: Inputs, outputs: Path, params: ShoutParams, machine: Machine) -> dict[str, Any]:
    (outputs / "text.txt").write_text("stub")
    return {"letters": 4}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepCall:
    """A call of the step `shout` on a file that says hello; the step exists while the test runs."""
    module = ModuleType("shout_step")
    contract = {"IMAGE": "tensorpot", "VERSION": 1, "INPUTS": {"text": "any text"}, "OUTPUTS": {"text": "text.txt"}}
    vars(module).update(contract, Params=ShoutParams, run=shout, stub=whisper)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(STEPS, "shout", module.__name__)
    path = tmp_path / "text"
    path.write_text("hello")
    return StepCall(step="shout", params={}, inputs={"text": (external(path),)})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace that runs steps in this process; its root is made by the first run."""
    return Workspace(root=tmp_path / "root", settings=Settings(runner="in_process"))


SPREAD = {
    "energy_eV_per_atom": (60, 0.3, 0.006),
    "force_eV_per_A": (4000, 1.0, 0.06),
    "stress_eV_per_A3": (300, 0.02, 0.002),
}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """history.parquet of a fit of 40 iterations."""
    rows = [
        {"iteration": iteration, "side": side, "loss": shift * 0.9**iteration, "energy_loss": 0.1, "force_loss": 0.2,
         "energy_rmse_meV_per_atom": 20.0, "force_rmse_meV_per_A": shift * (60 + 900 * 0.9**iteration),
         "force_mae_meV_per_A": 40.0}
        for side, shift, every in (("train", 1.0, 1), ("validation", 1.2, 10))
        for iteration in range(0, 41, every)
    ]  # fmt: skip
    path = tmp_path / "history.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def parity_table() -> pa.Table:
    """Parity data with few energies and many forces, against teacher and DFT."""
    random = np.random.default_rng(0)
    parts = []
    for against in ("teacher", "dft"):
        for quantity, (count, width, error) in SPREAD.items():
            ids = [str(number % 60) for number in range(count)]
            reference = random.normal(0, width, count)
            columns = {"against": [against] * count, "id": ids, "quantity": [quantity] * count}
            predicted = reference + random.normal(0, error, count)
            parts.append(
                pa.table(
                    {
                        **columns,
                        "reference": reference,
                        "predicted": predicted,
                        "gamma": [0.2 + int(one) / 20 for one in ids],
                    }
                )
            )
    return pa.concat_tables(parts)


@pytest.fixture
def store_files(tmp_path: Path, parity_table: pa.Table) -> dict[str, Path]:
    """Entries of a store, under names that are not those of the run folder."""
    store = tmp_path / "store"
    store.mkdir()
    files = {name: store / f"{name}.bin" for name in (*PUBLISHED, *READ)}
    for name in PUBLISHED:
        files[name].write_text(f"content of {name}\n")
    pq.write_table(parity_table, files["parity"])
    figures = {
        "structures": 60, "atoms": 1333, "energy_mae_meV_per_atom": 6.1, "energy_rmse_meV_per_atom": 8.2,
        "energy_max_meV_per_atom": 31.0, "force_mae_meV_per_A": 45.3, "force_rmse_meV_per_A": 64.0,
        "force_max_meV_per_A": 791.0, "stress_mae_meV_per_A3": 1.6, "stress_rmse_meV_per_A3": 2.0,
        "stress_max_meV_per_A3": 9.0, "gamma_max": 3.4, "gamma_share_above_1": 0.05,
    }  # fmt: skip
    files["evaluation"].write_text(json.dumps({"teacher": figures, "dft": {**figures, "force_mae_meV_per_A": 57.7}}))
    distance = np.arange(0.5, 3.0, 0.05)
    pair = {"r_in_A": 1.9, "shortest_distance_A": 1.83, "gamma_10_distance_A": 1.71,
            "share_of_pairs_inside": 0.001, "distance_A": distance.tolist(),
            "force_eV_per_A": (6000 * np.exp(-4 * (distance - 0.5))).tolist(),
            "zbl_force_eV_per_A": (5600 * np.exp(-4 * (distance - 0.5))).tolist(),
            "energy_eV": (1500 * np.exp(-4 * (distance - 0.5)) - 2).tolist(),
            "zbl_eV": (1400 * np.exp(-4 * (distance - 0.5))).tolist()}  # fmt: skip
    files["core_repulsion"].write_text(json.dumps({"pairs": {"Si-Si": pair}}))
    return files


DFT = {
    "dft_compared": 30, "teacher_energy_mae_meV_per_atom": 2.25, "teacher_force_mae_meV_per_A": 48.5,
    "teacher_test_energy_mae_meV_per_atom": None, "teacher_test_force_mae_meV_per_A": None,
}  # fmt: skip
GRADE = {
    "atoms": 2000, "max": 3.25, "share_above_1": 0.02, "share_above_5": 0.001,
    "histogram": {"edges": [0.0, 0.5, 1.0, 5.0], "counts": [900, 1000, 100]},
}  # fmt: skip


FRAMES = {
    "lammps_structure": "pool.extxyz, row 3 (from 0)", "lammps_neighbours": 120,
    "energy_less_e0s_eV_per_atom": {"all": -4.5, "Si": -4.5},
}  # fmt: skip


@pytest.fixture
def fits(tmp_path: Path) -> tuple[FitFiles, ...]:
    """Two fits, the second from the best potential of the first."""
    store = tmp_path / "fits"
    store.mkdir()
    paths = {name: store / name for name in ("input_yaml", "train", "validation", "start_yaml")}
    for name, path in paths.items():
        path.write_text(f"content of {name}\n")
    first = FitFiles(folder="1-attempt-1", attempt="pace_train attempt 1", **{**paths, "start_yaml": None})
    start = "the last potential of 1-attempt-1, of iteration 40"
    return first, FitFiles(folder="2-attempt-2", attempt="pace_train attempt 2", start=start, **paths)


@pytest.fixture
def finished(store_files: dict[str, Path], fits: tuple[FitFiles, ...], history: Path) -> RunSummary:
    """A converged run of two attempts, the second chosen."""
    errors = {"energy_rmse_meV_per_atom": 8.0, "force_mae_meV_per_A": 44.0, "force_rmse_meV_per_A": 60.5}
    first = AttemptSummary(
        name="train 1", plan={"maxiter": 40, "start": "fresh", "batch_size": 100, "reason": "first"},
        verdict="iterations_used_up", stop_criterion="its 40 iterations are used up", iterations=40, best_iteration=30,
        seconds=130.4, train=errors, validation=errors, last_validation={"force_mae_meV_per_A": 46.5}, history=history,
    )  # fmt: skip
    changes = {"name": "train 2", "stage": 2, "verdict": "converged", "resumed_at": 12}
    plan = {**first.plan, "start": "continue", "reason": "used up"}
    second = first.model_copy(update={**changes, "plan": plan})
    forces = {"force_histogram_eV_per_A": {"edges": [0.01, 0.1, 1.0, 10.0], "counts": [20, 300, 0]}}
    step = Artefact(
        step="any", key="ab" * 32, outputs={}, metrics={"structures": 300}, versions={}, seconds=12.34,
        peak_memory_MB=680.2, cached=False,
    )  # fmt: skip
    spent = {"start": 4.0, "neighbours": 0.5, "model": 9.3, "io": 0.1, "flow": 0.4}
    seconds = {f"seconds_{name}": value for name, value in spent.items()}
    how, grades = {"d_optimal": 80, "bulk": 40}, {of: {"before": None, "after": GRADE} for of in ("pool", "test")}
    return RunSummary(
        name="silicon",
        config={"name": "silicon", "train": {"maxiter": 40}, "labels": {"max_force_eV_per_A": 100.0}},
        versions={"python-ace": "0.4.0rc1", "mace-torch": "0.3.16"},
        inputs={"teacher.model": "cd" * 32, "pool.extxyz": "ef" * 32},
        seeds={"train": 42},
        elements=("Si",),
        teacher={"elements": ["Si"], "r_max_A": 5.0, "heads": ["Default"], "head": "Default", "dtype": "float32"},
        baseline=Baseline(e0s_eV={"Si": -0.8125}, dft_offsets_eV={"Si": 0.25}),
        steps={
            "ingest": step.model_copy(update={"cached": True}),
            "pool_labels": step.model_copy(update={"metrics": forces}),
            "baseline": step.model_copy(update={"metrics": DFT}),
            "frames": step.model_copy(update={"metrics": FRAMES}),
            "pace_train 1": step,
        },
        labels=LabelCounts(computed=200, reused=102, rejected=2, rejected_by={"force": 2, "distance": 1}),
        labelling=Labelling(computed=200, structures_per_s=20.5, atoms_per_s=3400.0, **seconds),
        selection=SelectionCounts(pool=300, candidates=240, set_aside=3, selected=120, how=how, grades=grades),
        attempts=(first, second),
        chosen=1,
        thresholds={"force_mae_meV_per_A": 120, "energy_mae_meV_per_atom": 20},
        converged=True,
        fits=fits,
        files=store_files,
    )


class Answers:
    """A teacher's answers to structures that are plain numbers: every seventh is refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ids(self, numbers: Iterable[int]) -> pa.Array:
        """Their ids, as of real structures."""
        return pa.array([hashlib.sha256(str(number).encode()).digest() for number in numbers], pa.binary(32))

    def atoms(self, numbers: Iterable[int]) -> NDArray[np.int64]:
        """1 to 4 for each."""
        return np.array([1 + number % 4 for number in numbers], dtype=np.int64)

    def rows(self, numbers: Iterable[int]) -> pa.Table:
        """Schema ROWS, in the order of `numbers`."""
        how = {"device": "cpu", "acceleration": "none", "mace_version": "0"}
        refused = {"reason": "the teacher does not know Ge"}
        found = [
            {"energy": -float(n), "forces": [n / 3] * (3 * (1 + n % 4)), "stress": [0.1 * n] * 6 if n % 3 else None}
            for n in numbers
        ]
        answers = [label if n % 7 else refused for n, label in zip(numbers, found, strict=True)]
        ids = self.ids(numbers).to_pylist()
        return pa.Table.from_pylist([{"id": i, **how, **a} for i, a in zip(ids, answers, strict=True)], schema=ROWS)

    def file(self, numbers: Iterable[int]) -> Path:
        """A labelling step's `labels.parquet`."""
        path = self._folder / f"{uuid4().hex}.parquet"
        write_table(path, self.rows(numbers))
        return path


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Answers whose files lie beside the test's own."""
    return Answers(tmp_path)
