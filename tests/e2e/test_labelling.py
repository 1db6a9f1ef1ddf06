"""Whole shards with the real teacher: processes, batches, memory that ends, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from containers.contract import InputFile, Inputs, Machine, Report, Request, Resources, file_digest, no_progress
from containers.environment import lock_digest
from containers.mace.labelling import mace_label
from containers.mace.labelling.predictions import SET_ASIDE, Label, Predictions, Unlabelled
from containers.structures.table import STRUCTURES, structure_id, structures_table, write_table

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]
TEACHER = REPOSITORY / "examples" / "silicon" / "teacher.model"


@pytest.fixture(scope="module")
def pool() -> list[Atoms]:
    return read(TEACHER.with_name("pool.extxyz"), index="::4")


def settings(dtype: str = "float32", edges_per_batch: int = 2000):
    from containers.mace.labelling.labeller import LabelSettings

    return LabelSettings(TEACHER, "Default", dtype, edges_per_batch)


def shard(structures: list[Atoms], **options: object):
    from containers.mace.labelling.shard import label_shard

    return label_shard(settings(), structures, **options)


def step(folder: Path, structures: list[Atoms], threads: int = 1, edges_per_batch: int | None = 2000) -> dict:
    """The metrics of the step; its outputs are in `folder`."""
    folder.mkdir()
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": row, "group": "g", "family": "f"}
    write_table(folder.with_suffix(".parquet"), structures_table(structures))
    inputs = Inputs({"structures": (folder.with_suffix(".parquet"),), "model": (TEACHER,)})
    machine = Machine(Resources(threads=threads, edges_per_batch=edges_per_batch))
    return mace_label.run(inputs, folder, mace_label.Params(head="Default"), machine)


def step_apart(folder: Path, structures: Path, threads: int) -> Report:
    """The report of the step run as the runners do."""
    folder.mkdir()
    files = {"structures": structures, "model": TEACHER}
    request = Request(
        step="mace_label",
        version=mace_label.VERSION,
        lock=lock_digest("mace"),
        params={"head": "Default"},
        inputs={name: (InputFile(path=path, sha256=file_digest(path)),) for name, path in files.items()},
        resources=Resources(threads=threads, edges_per_batch=2000),
    )
    (folder / "request.json").write_text(request.model_dump_json())
    subprocess.run([sys.executable, "-m", "containers.step", str(folder)], cwd=REPOSITORY, check=False)
    return Report.model_validate_json((folder / "report.json").read_bytes())


def assert_same(found: Predictions, expected: Predictions, tolerance: float = 0.0) -> None:
    for one, other in zip(found.answers, expected.answers, strict=True):
        assert isinstance(one, Label)
        assert isinstance(other, Label)
        assert abs(one.energy - other.energy) <= tolerance * len(one.forces)
        np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=10 * tolerance)


def test_any_number_of_processes_gives_the_same_labels(pool):
    alone, one, three = (shard(pool, processes=processes) for processes in (0, 1, 3))
    assert (alone.processes, one.processes, three.processes) == (1, 1, 3)
    assert_same(one.labelled, alone.labelled)
    assert_same(three.labelled, alone.labelled)


def test_the_step_writes_the_same_bytes_twice(tmp_path, pool):
    """Here, and in a process of its own that has no threads and so may fork."""
    metrics = step(tmp_path / "here", pool)
    assert metrics["labels"] == metrics["structures"] == len(pool)
    assert metrics["atoms"] == sum(map(len, pool))
    report = step_apart(tmp_path / "apart", tmp_path / "here.parquet", threads=3)
    assert report.error is None
    assert report.metrics["processes"] == 3
    written = {path.name: file_digest(path) for path in (tmp_path / "here").iterdir()}
    assert {file.name: file.sha256 for file in report.outputs.values()} == written
    assert set(written) == set(mace_label.OUTPUTS.values())
    assert pq.read_table(tmp_path / "here/set_aside.parquet").schema.equals(SET_ASIDE)
    ids = pq.read_table(tmp_path / "here/labels.parquet")["id"].to_pylist()
    assert [one.hex() for one in ids] == [structure_id(atoms) for atoms in pool]


def test_graphs_made_ahead_give_the_same_labels(pool):
    ahead = shard(pool, processes=2, graphs_ahead=True)
    assert (ahead.processes, ahead.model_processes) == (2, 1)
    assert_same(ahead.labelled, shard(pool, processes=1).labelled)
    assert ahead.labelled.total_edges > 0


def test_the_first_calls_give_the_labels_of_later_ones(pool):
    """Torch compiles while it runs; that must not change a digit, else a killed and repeated run would differ."""
    from containers.mace.labelling.labeller import Labeller
    from containers.mace.labelling.shard import label_all

    labeller = Labeller(settings())
    first, second = (label_all(labeller, pool) for _ in range(2))
    assert_same(first, second)


def killing(times: int, victim: Callable[[int], bool]) -> Callable[[float, float, str], None]:
    """A progress that kills one of our processes with SIGKILL, so often."""
    left = [times]

    def progress(done: float, total: float, text: str = "", figures: object = None) -> None:
        if left[0] and victim(int(done)):
            left[0] -= 1
            (child, *_) = children()
            os.kill(child, signal.SIGKILL)

    return progress


def children() -> list[int]:
    """The processes of a crew: servers that other tests started are children too, but not these."""
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def test_a_killed_process_loses_nothing(pool):
    undisturbed = shard(pool, processes=2)
    found = shard(pool, processes=2, progress=killing(2, lambda done: done > len(pool) // 4))
    assert_same(found.labelled, undisturbed.labelled, tolerance=1e-5)
    assert found.labelled.bound < undisturbed.labelled.bound == 2000
    assert found.labelled.edges == undisturbed.labelled.edges
    assert children() == []


def test_no_process_outlives_a_step_that_is_killed():
    """The step tells its children's ids, then kills itself."""
    script = """
import os, signal, sys
from pathlib import Path
from ase.build import bulk
from containers.mace.labelling.labeller import LabelSettings
from containers.mace.labelling.shard import label_shard
def progress(*_):
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
structures = [bulk("Si", cubic=True).repeat(2) for _ in range(300)]
label_shard(LabelSettings(Path(sys.argv[1]), "Default", "float32", 2000), structures, 2, progress=progress)
"""
    result = run_script(script)
    assert result.returncode == -signal.SIGKILL
    workers = result.stdout.splitlines()[-1].split()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while left := [pid for pid in workers if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def is_alive(pid: str) -> bool:
    """Whether a process is there and not a zombie that its new parent has yet to see."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(TEACHER)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize("processes", [0, 2])
def test_when_memory_ends_batches_shrink_and_the_largest_is_set_aside(processes):
    """In a process of its own, whose address space is limited after the model is loaded."""
    script = f"""
import resource, sys
from pathlib import Path
from ase.build import bulk
from containers.mace.labelling.labeller import Labeller, LabelSettings
from containers.mace.labelling.shard import label_all
labeller = Labeller(LabelSettings(Path(sys.argv[1]), "Default", "float64", edges_per_batch=10**9))
small = [bulk("Si", cubic=True).repeat(2) for _ in range(12)]
labeller.label(small[:1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
found = label_all(labeller, [*small, bulk("Si", cubic=True).repeat(9)], {processes})
print(sum(not isinstance(answer, str) for answer in found.answers), found.bound < 10**9, found.answers[-1])
"""
    result = run_script(script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("12 True does not fit in memory alone")


def test_a_structure_that_kills_its_process_is_set_aside_and_the_rest_go_on(pool, monkeypatch):
    """As when the kernel ends it for memory: a graph of so many atoms is never made."""
    from containers.mace.labelling.graphs import GraphMaker

    heavy = bulk("Si", cubic=True).repeat(3)
    make = GraphMaker.graph

    def deadly(self: GraphMaker, atoms: Atoms):
        if len(atoms) == len(heavy):
            os.kill(os.getpid(), signal.SIGKILL)
        return make(self, atoms)

    expected = shard(pool, processes=1)
    monkeypatch.setattr(GraphMaker, "graph", deadly)
    found = shard([*pool[:30], heavy, *pool[30:]], processes=2).labelled
    aside = found.answers.pop(30)
    assert isinstance(aside, Unlabelled)
    assert aside == "its process was killed twice (out of memory?)"
    assert_same(found, expected.labelled, tolerance=1e-5)
    assert found.bound == 1000  # halved once, not with every piece of the window


def test_calibration_tries_some_bounds_and_labels_with_one_of_them(pool):
    many = [atoms for atoms in pool for _ in range(16)]
    found = shard(many, processes=2, calibrated=False)
    tried = found.calibration.throughput
    assert 8000 in tried
    assert all(speed > 0 for speed in tried.values())
    assert found.labelled.bound in tried
    assert all(isinstance(answer, Label) for answer in found.labelled.answers)


def large_ones_that_do_not_fit(monkeypatch) -> None:
    """As where memory ends at structures of more edges than any batch to be tried."""
    from containers.mace.labelling.labeller import Labeller

    compute = Labeller.compute

    def limited(self: Labeller, graphs):
        if max(graph.size.edges for graph in graphs) > 32_000:
            raise MemoryError
        return compute(self, graphs)

    monkeypatch.setattr(Labeller, "compute", limited)


def out_of_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("processes", [0, 2])
def test_a_structure_that_does_not_fit_is_not_in_the_sample(pool, monkeypatch, processes):
    large_ones_that_do_not_fit(monkeypatch)
    large = bulk("Si", a=5.3, cubic=True).repeat(6)  # the densest
    found = shard([*pool[:10], *[large] * 15], processes=processes, calibrated=False)
    assert 8000 in found.calibration.throughput
    aside = [place for place, answer in enumerate(found.labelled.answers) if isinstance(answer, Unlabelled)]
    assert aside == list(range(10, 25))


@pytest.mark.parametrize(
    ("processes", "end"), [(0, out_of_memory), (2, out_of_memory), (2, lambda: os.kill(os.getpid(), signal.SIGKILL))]
)
def test_memory_that_ends_while_calibrating_costs_the_calibration_alone(pool, monkeypatch, processes, end):
    from containers.mace.labelling import shard as labelling

    monkeypatch.setattr(labelling, "_speed", lambda *_: end())
    monkeypatch.setattr(labelling, "SHARD_SAMPLES", 1)
    found = shard(pool, processes=processes, calibrated=False)
    assert found.calibration.throughput == {}
    assert found.bound == found.labelled.bound == 8000
    assert all(isinstance(answer, Label) for answer in found.labelled.answers)


def test_the_bound_told_is_the_one_given_also_where_memory_ended(pool, monkeypatch, tmp_path):
    """It is kept for the machine: what one heavy structure did to one shard must not slow all later ones."""
    from containers.mace.labelling.labeller import Labeller

    compute = Labeller.compute

    def limited(self: Labeller, graphs):
        if len(graphs) > 1:
            raise MemoryError
        return compute(self, graphs)

    monkeypatch.setattr(Labeller, "compute", limited)
    given = shard(pool[:40], processes=1)
    assert (given.bound, given.labelled.bound) == (2000, 500)
    assert step(tmp_path / "run", pool[:40])["edges_per_batch"] == 2000


def test_a_model_made_ready_in_its_own_process_gives_the_same_labels(pool, monkeypatch):
    """The way of a torch that could see a GPU, whose gradients start threads; those end with that process."""
    import torch

    expected = shard(pool, processes=1)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert_same(shard(pool, processes=2).labelled, expected.labelled)


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_and_one_structure(tmp_path, threads):
    metrics = step(tmp_path / "none", [], threads, edges_per_batch=None)
    assert (metrics["structures"], metrics["labels"], metrics["calibration"]) == (0, 0, {})
    assert pq.read_table(tmp_path / "none/labels.parquet").num_rows == 0
    metrics = step(tmp_path / "one", [bulk("Si")], threads, edges_per_batch=None)
    assert (metrics["structures"], metrics["labels"], metrics["atoms"]) == (1, 1, 2)


@pytest.mark.long
def test_20_000_tiny_structures(tmp_path):
    """Half of them lone atoms, half one atom in a cell; made as a table, for so many Atoms take as long to make."""
    count = 20_000
    cells = np.eye(3) * np.linspace(2.4, 2.8, count)[:, None, None]
    columns = {
        "id": [f"{number:064x}" for number in range(count)],
        "numbers": [[14]] * count,
        "positions": [[0.1, 0.2, 0.3]] * count,
        "cell": list(cells.reshape(count, 9)),
        "pbc": [[number % 2 == 0] * 3 for number in range(count)],
        **dict.fromkeys(("source", "group", "family"), ["tiny"] * count),
        "row": list(range(count)),
        "state": [""] * count,
    }
    write_table(tmp_path / "tiny.parquet", pa.table(columns, schema=STRUCTURES))
    inputs = Inputs({"structures": (tmp_path / "tiny.parquet",), "model": (TEACHER,)})
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    machine = Machine(Resources(threads=2, edges_per_batch=8000))
    metrics = mace_label.run(inputs, outputs, mace_label.Params(head="Default"), machine)
    assert (metrics["labels"], metrics["atoms"]) == (count, count)
    rows = pq.read_table(outputs / "labels.parquet")
    assert rows["id"].to_pylist() == [bytes.fromhex(name) for name in columns["id"]]
    energies = rows["energy"].to_numpy()
    assert np.ptp(energies[1::2]) < 1e-5  # all lone atoms are alike
    assert np.ptp(energies[0::2]) > 0.1


def test_structures_of_equal_id_are_labelled_once(tmp_path):
    metrics = step(tmp_path / "run", [bulk("Si"), bulk("Si", a=5.5), bulk("Si")])
    assert (metrics["structures"], metrics["labels"]) == (2, 2)
    ids = pq.read_table(tmp_path / "run/labels.parquet")["id"].to_pylist()
    assert [one.hex() for one in ids] == [structure_id(bulk("Si")), structure_id(bulk("Si", a=5.5))]


def test_a_process_with_threads_labels_by_itself(tmp_path, pool):
    end = Event()
    thread = Thread(target=end.wait)
    thread.start()
    try:
        metrics = step(tmp_path / "run", pool[:20], threads=2)
    finally:
        end.set()
        thread.join()
    assert (metrics["processes"], metrics["labels"]) == (1, 20)


def test_progress_counts_structures_and_atoms(pool):
    told: list[tuple[float, float, str]] = []
    shard(pool, processes=2, progress=lambda *what: told.append(what))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (len(pool), len(pool), f"{len(pool)} structures, {sum(map(len, pool))} atoms")
    assert no_progress(*told[-1]) is None
