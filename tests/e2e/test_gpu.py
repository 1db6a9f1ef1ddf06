"""What a GPU computes, against the CPU; in processes and in a container of the CUDA images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from containers.contract import Device, Report, Resources
from containers.mace.labelling.mace_label import Dtype
from containers.mace.labelling.mace_label import Params as LabelParams
from containers.tensorpot.fit.pace_train import Params as TrainParams
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from tasks.artefact import StepCall, Stored, external
from tasks.run_step import request_of, run_step
from tasks.runners.base import runner_of
from tasks.runners.readiness import settled_device
from tasks.settings import RunnerName, Settings
from tasks.store.results import read_report
from tasks.workspace import Workspace
from tests.e2e.copper import effective_medium

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]
REPOSITORY = Path(__file__).parents[2]
TEACHER = REPOSITORY / "examples" / "silicon" / "teacher.model"
TOLERANCES: dict[Dtype, tuple[float, float]] = {"float32": (1e-4, 1e-3), "float64": (1e-8, 1e-7)}
"""eV/atom and eV/Å: sums are done in another order, so the last digits of the type differ."""


def workspace(root: Path, runner: RunnerName = "subprocess") -> Workspace:
    return Workspace(root=root, settings=Settings(runner=runner, cores=1, device="cuda"))


def silicon(count: int) -> list[Atoms]:
    """Strained and rattled cells of 2, 8 and 64 atoms."""
    random = np.random.default_rng(1)
    shapes = [bulk("Si"), bulk("Si", cubic=True), bulk("Si", cubic=True).repeat(2)]
    structures = [shapes[number % 3].copy() for number in range(count)]
    for atoms in structures:
        atoms.set_cell(atoms.cell.array * (1 + random.uniform(-0.05, 0.05)), scale_atoms=True)
        atoms.rattle(0.08, rng=random)
    return structures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def structures(root: Path) -> Stored:
    """A pool, ingested in `root`."""
    write(root / "pool.extxyz", silicon(24))
    inputs = {"files": (external(root / "pool.extxyz"),)}
    call = StepCall(step="ingest", params={"file_names": ["pool.extxyz"]}, inputs=inputs)
    return run_step(call, workspace(root)).file("structures")


def label(structures: Stored, dtype: Dtype, device: Device, edges_per_batch: int | None = 8000) -> StepCall:
    return StepCall(
        step="mace_label",
        params=LabelParams(head="Default", dtype=dtype).model_dump(mode="json"),
        inputs={"structures": (structures,), "model": (external(TEACHER),)},
        resources=Resources(device=device, threads=2, edges_per_batch=edges_per_batch),
    )


def staged(call: StepCall, place: Workspace) -> tuple[Path, Report, str]:
    """Run a call past the store, which would answer the second device with the labels of the first."""
    request = request_of(call, place)
    folder = place.store.stage(request)
    runner_of(place).run(folder, "mace" if call.step == "mace_label" else "tensorpot", request, lambda *_: None)
    report, log = read_report(folder), (folder / "log.txt").read_text()
    assert report is not None, log
    assert report.error is None, report.error
    return folder / "outputs", report, log


def assert_same_labels(found: Path, expected: Path, dtype: Dtype) -> None:
    energy, force = TOLERANCES[dtype]
    tables = [pq.read_table(folder / "labels.parquet").to_pylist() for folder in (found, expected)]
    assert [len(table) for table in tables] == [24, 24]
    for one, other in zip(*tables, strict=True):
        assert one["id"] == other["id"]
        assert abs(one["energy"] - other["energy"]) / (len(one["forces"]) // 3) <= energy
        np.testing.assert_allclose(one["forces"], other["forces"], rtol=0, atol=force)
        np.testing.assert_allclose(one["stress"], other["stress"], rtol=0, atol=force)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gpu_labels_as_the_cpu_does(root: Path, structures: Stored, dtype: Dtype) -> None:
    place = workspace(root)
    cpu, gpu = (staged(label(structures, dtype, device), place)[0] for device in ("cpu", "cuda"))
    assert_same_labels(gpu, cpu, dtype)


CALIBRATED = """
import sys
from pathlib import Path
from ase.build import bulk
from containers.mace.labelling.labeller import LabelSettings
from containers.mace.labelling.shard import label_shard
structures = [bulk("Si", cubic=True).repeat(3) for _ in range(200)]
settings = LabelSettings(Path(sys.argv[1]), "Default", "float32", 8000, "cuda")
shard = label_shard(settings, structures, processes=2, calibrated=False)
assert all(not isinstance(answer, str) for answer in shard.labelled.answers)
print(len(shard.calibration.throughput) > 1, shard.labelled.bound in shard.probed.calibration.throughput)
"""


def script(text: str) -> str:
    """The last line that a program prints."""
    command = [sys.executable, "-W", "ignore", "-c", text, str(TEACHER)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_gpu_finds_how_many_edges_it_wants_at_once() -> None:
    assert script(CALIBRATED) == "True True"


OUT_OF_MEMORY = """
import sys
from pathlib import Path
import torch
from ase.build import bulk
from containers.mace.labelling.labeller import Labeller, LabelSettings
labeller = Labeller(LabelSettings(Path(sys.argv[1]), "Default", "float32", 10**9, "cuda"))
small = [bulk("Si", cubic=True).repeat(2) for _ in range(40)]
labeller.label(small[:1])
free = torch.cuda.memory_reserved() + 400e6
torch.cuda.set_per_process_memory_fraction(free / torch.cuda.get_device_properties(0).total_memory)
found = labeller.label([*small, bulk("Si", cubic=True).repeat(9)])
print(sum(not isinstance(answer, str) for answer in found.answers), labeller.bound < 10**9, found.answers[-1])
"""


def test_when_the_memory_of_the_gpu_ends_batches_shrink_and_the_largest_is_set_aside() -> None:
    assert script(OUT_OF_MEMORY).startswith("40 True does not fit in memory alone")


def copper(count: int, seed: int) -> list[Labelled]:
    """Rattled cells."""
    cells = [bulk("Cu", cubic=True) for _ in range(count)]
    for number, atoms in enumerate(cells):
        atoms.rattle(0.15, seed=seed + number)
    return [effective_medium(f"{seed}-{number}", atoms) for number, atoms in enumerate(cells)]


def test_a_fit_on_a_gpu_ends_where_that_on_the_cpu_does(root: Path) -> None:
    for side, rows in (("train", copper(24, 100)), ("validation", copper(6, 900))):
        write_frame(root / f"{side}.pckl.gzip", frame(rows))
    place = workspace(root)
    potential = Potential(elements=("Cu",), cutoff=4.0, functions_per_element=30, b_basis="small")
    reports: dict[Device, Report] = {}
    for device in ("cpu", "cuda"):
        call = StepCall(
            step="pace_train",
            params=TrainParams(potential=potential, maxiter=15).model_dump(mode="json"),
            inputs={side: (external(root / f"{side}.pckl.gzip"),) for side in ("train", "validation")},
            resources=Resources(device=device),
        )
        _, reports[device], log = staged(call, place)
        assert ("device:GPU:0" in log) == (device == "cuda"), "TensorFlow computed elsewhere than asked"
    assert reports["cuda"].metrics["iterations"] == reports["cpu"].metrics["iterations"] == 15
    for name in ("train_force_rmse_meV_per_A", "validation_energy_rmse_meV_per_atom"):
        assert reports["cuda"].metrics[name] == pytest.approx(reports["cpu"].metrics[name], rel=0.05)


@pytest.mark.engine
def test_a_container_gets_the_gpu_and_labels_as_the_cpu_does(root: Path, structures: Stored) -> None:
    """Needs the images of `make images VARIANT=cuda`."""
    place = workspace(root, "docker")
    assert settled_device(place.settings) == "cuda"
    gpu = staged(label(structures, "float32", "cuda"), place)[0]
    cpu = staged(label(structures, "float32", "cpu"), workspace(root))[0]
    assert_same_labels(gpu, cpu, "float32")
