from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine, StepError, file_digest
from containers.formats.mlip_cfg import mlip_frames
from containers.formats.text import Lines
from containers.labels import pool_labels
from containers.labels.pool_labels import REJECTED, Params
from containers.labels.rows import NOT_FINITE, ROWS
from containers.structures.table import LABELS, labels_table, read_atoms, structure_id, structures_table, write_table

FIRST, SECOND = (hashlib.sha256(name).hexdigest() for name in (b"first", b"second"))
E0S = {"Si": -4.0, "C": -7.0}


def structure(number: int) -> Atoms:
    atoms = bulk("Si" if number % 2 else "C", "diamond", 3.5 + 0.1 * number)
    atoms.info = {"id": structure_id(atoms), "source": "pool.xyz", "row": number, "group": "g", "family": "f"}
    return atoms


def row(atoms: Atoms, seed: int = 0, **change: Any) -> dict[str, Any]:
    """A teacher's good label, and what is different in it."""
    random = np.random.default_rng(seed + atoms.info["row"])
    label = {
        "id": bytes.fromhex(atoms.info["id"]), "energy": float(random.normal()),
        "forces": random.normal(size=3 * len(atoms)), "stress": random.normal(size=6),
        "edges": 10, "min_distance_A": 2.0, "reason": None,
        "device": "cpu", "acceleration": "none", "mace_version": "0",
    }  # fmt: skip
    return {**label, **change}


class Bench:
    """A folder with label stores, and runs of the step in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.runs = 0

    def store(self, teacher: str, rows: list[dict[str, Any]], name: str = "a.arrow") -> None:
        path = self.folder / "labels" / teacher[:32] / "fresh" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(sorted(rows, key=lambda one: one["id"]), schema=ROWS)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROWS) as writer:
            writer.write_table(table)
        self.files.append(path)

    def run(self, pool: list[Atoms], teachers: tuple[str, ...] = (FIRST,), **params: Any) -> dict[str, Any]:
        write_table(self.folder / "pool.parquet", structures_table(pool))
        self.outputs = self.folder / f"outputs {self.runs}"
        self.outputs.mkdir()
        self.runs += 1
        inputs = Inputs({"structures": (self.folder / "pool.parquet",), "labels": tuple(self.files)})
        return pool_labels.run(inputs, self.outputs, Params(teachers=teachers, e0s_eV=E0S, **params), Machine())

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.outputs / pool_labels.OUTPUTS[name])

    def rejected(self) -> dict[int, str]:
        return {one["row"]: one["reason"] for one in self.table("rejected").to_pylist()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def pool() -> list[Atoms]:
    return [structure(number) for number in range(7)]


def test_labels_come_in_the_pool_s_order_with_every_bit(bench, pool):
    rows = [row(atoms) for atoms in pool]
    bench.store(FIRST, rows[:3])
    bench.store(FIRST, rows[3:], "b.arrow")
    metrics = bench.run(pool)
    assert bench.table("labels").schema.equals(LABELS)
    labelled = read_atoms(bench.outputs / "labels.parquet")
    assert [atoms.info for atoms in labelled] == [atoms.info for atoms in pool]
    for atoms, expected in zip(labelled, rows, strict=True):
        assert atoms.get_potential_energy() == expected["energy"]
        assert np.array_equal(atoms.get_forces().ravel(), expected["forces"])
        assert np.array_equal(atoms.get_stress(), expected["stress"])
    assert bench.table("rejected").schema.equals(REJECTED)
    with (bench.outputs / "labels.cfg").open("rb") as file:
        for atoms, expected in zip(mlip_frames(Lines(file, ""), "", ()), labelled, strict=True):
            assert structure_id(atoms) == structure_id(expected)
            assert atoms.get_potential_energy() == expected.get_potential_energy()
            assert np.array_equal(atoms.get_forces(), expected.get_forces())
            assert np.allclose(atoms.get_stress(), expected.get_stress(), rtol=1e-14)
    assert [atoms.info["id"] for atoms in read(bench.outputs / "labels.extxyz", index=":")] == [
        atoms.info["id"] for atoms in pool
    ]
    assert (metrics["structures"], metrics["labels"], metrics["rejected"], metrics["atoms"]) == (7, 7, 0, 14)
    json.dumps(metrics, allow_nan=False)
    # DFT data are labelled too; their table has labels of its own.
    for atoms in pool:
        atoms.calc = SinglePointCalculator(atoms, energy=99.0, forces=np.full((len(atoms), 3), 9.0), stress=np.ones(6))
    write_table(bench.folder / "dft.parquet", labels_table(pool))
    inputs = Inputs({"structures": (bench.folder / "dft.parquet",), "labels": tuple(bench.files)})
    (bench.folder / "outputs").mkdir()
    pool_labels.run(inputs, bench.folder / "outputs", Params(teachers=(FIRST,), e0s_eV=E0S), Machine())
    found = pq.read_table(bench.folder / "outputs" / "labels.parquet")
    assert found.schema.equals(LABELS)
    assert found["energy"].to_pylist() == [one["energy"] for one in rows]
    # a structure that is there twice counts once and the first names it
    again = pool[1].copy()
    again.info = {**pool[1].info, "source": "other.xyz", "row": 99}
    metrics = bench.run([*pool, again])
    assert (metrics["structures"], metrics["labels"], metrics["atoms"]) == (7, 7, 14)
    assert bench.table("labels")["row"].to_pylist() == list(range(7))


@pytest.mark.parametrize("batch", [pool_labels.BATCH, 1])
def test_everything_that_can_be_wrong_is_set_aside_with_its_reason(bench, pool, monkeypatch, batch):
    monkeypatch.setattr(pool_labels, "BATCH", batch)
    changes: list[dict[str, Any]] = [
        {},
        {"energy": None, "forces": None, "stress": None, "min_distance_A": None, "reason": "unknown element Si"},
        {"forces": np.array([0, 0, 1e3, 0, 0, 0]), "min_distance_A": 0.1},
        {"energy": 1e6},
        {"energy": float("nan")},
        {"stress": None, "min_distance_A": None},
    ]
    bench.store(FIRST, [row(atoms, **change) for atoms, change in zip(pool, changes, strict=False)])
    metrics = bench.run(pool, unlabelled={pool[6].info["id"]: "does not fit in memory alone (9 neighbour pairs)"})
    assert [atoms.info["row"] for atoms in read_atoms(bench.outputs / "labels.parquet")] == [0, 5]
    assert len(read(bench.outputs / "labels.extxyz", index=":")) == 2
    reasons = bench.rejected()
    assert list(reasons) == [1, 2, 3, 4, 6]
    assert reasons[1] == "unknown element Si"
    assert "labels.max_force_eV_per_A" in reasons[2]
    assert "labels.min_distance_A" in reasons[2]
    assert "labels.max_energy_eV_per_atom" in reasons[3]
    assert "not finite" in reasons[4]
    assert "memory" in reasons[6]
    kinds = {"teacher": 1, "force": 1, "distance": 1, "energy": 1, "not_finite": 1, "memory": 1}
    assert metrics["rejected_by"] == dict(sorted(kinds.items()))
    assert (metrics["structures"], metrics["labels"], metrics["rejected"]) == (7, 2, 5)
    assert sum(metrics["force_histogram_eV_per_A"]["counts"]) == 2 * 5  # the rejected labels count, where there is one
    assert metrics["largest_force_eV_per_A"] == 1e3
    assert set(kinds) < set(pool_labels.REJECTIONS)


def test_a_committee_gives_the_mean_and_its_deviations(bench, pool):
    ones, others = ([row(atoms, seed) for atoms in pool] for seed in (0, 100))
    bench.store(SECOND, others)
    bench.store(FIRST, ones)
    metrics = bench.run(pool, (FIRST, SECOND))
    table = bench.table("labels")
    assert table.schema.names == [*LABELS.names, "energy_std", "forces_std"]
    for made, one, other in zip(table.to_pylist(), ones, others, strict=True):
        assert made["energy"] == pytest.approx((one["energy"] + other["energy"]) / 2, abs=1e-15)
        assert made["energy_std"] == pytest.approx(abs(one["energy"] - other["energy"]) / 2)
        assert made["forces"] == pytest.approx((one["forces"] + other["forces"]) / 2)
        assert made["forces_std"] == pytest.approx(abs(one["forces"] - other["forces"]) / 2)
    spreads = [max(np.linalg.norm(np.reshape(made["forces_std"], (-1, 3)), axis=1)) for made in table.to_pylist()]
    assert metrics["largest_force_std_eV_per_A"] == pytest.approx(max(spreads))
    bench.run(pool, (SECOND, FIRST))
    assert bench.table("labels").equals(table), "the order of the teachers changes no label"
    limit = float(np.median(spreads))
    bench.run(pool, (FIRST, SECOND), max_force_std=limit)
    assert list(bench.rejected()) == [place for place, spread in enumerate(spreads) if spread > limit]
    assert all("the committee disagrees" in reason for reason in bench.rejected().values())


def test_a_member_that_refuses_or_gives_no_finite_label_is_named(bench, pool):
    bench.store(FIRST, [row(atoms) for atoms in pool])
    refused = {"energy": None, "forces": None, "stress": None, "reason": "unknown element C"}
    bench.store(SECOND, [row(atoms, **(refused if atoms.info["row"] == 2 else {})) for atoms in pool])
    metrics = bench.run(pool, (FIRST, SECOND))
    assert bench.rejected() == {2: "teacher 2 of 2: unknown element C"}
    assert metrics["rejected_by"] == {"teacher": 1}
    # as the labelling step writes labels that are not finite: a reason, no label; the teacher did not refuse them
    infinite = {"energy": None, "forces": None, "stress": None, "reason": f"{NOT_FINITE} (energy nan)"}
    bench.files.pop()
    bench.store(SECOND, [row(atoms, **(infinite if atoms.info["row"] == 2 else {})) for atoms in pool])
    assert bench.run(pool, (FIRST, SECOND))["rejected_by"] == {"not_finite": 1}
    assert bench.rejected() == {2: f"teacher 2 of 2: {NOT_FINITE} (energy nan)"}
    bench.files.pop(0)
    assert bench.run(pool, (SECOND,))["rejected_by"] == {"not_finite": 1}


def test_batches_and_files_change_no_label_and_two_runs_give_the_same_bytes(bench, pool, monkeypatch):
    bad = {"forces": np.full(6, 1e3)}
    bench.store(FIRST, [row(atoms, **(bad if atoms.info["row"] in (2, 3) else {})) for atoms in pool])
    first = bench.run([*pool, pool[0]])
    whole = {name: file_digest(bench.outputs / file) for name, file in pool_labels.OUTPUTS.items()}
    tables = {name: bench.table(name) for name in ("labels", "rejected")}
    bench.run([*pool, pool[0]])
    assert {name: file_digest(bench.outputs / file) for name, file in pool_labels.OUTPUTS.items()} == whole
    monkeypatch.setattr(pool_labels, "BATCH", 2)
    assert bench.run([*pool, pool[0]]) == first
    assert {name: bench.table(name) for name in tables} == tables
    assert file_digest(bench.outputs / "labels.extxyz") == whole["extxyz"]
    assert file_digest(bench.outputs / "labels.cfg") == whole["cfg"]


def test_a_pool_without_labels_structures_or_a_row_and_files_of_another_teacher_are_refused(bench, pool):
    bench.store(FIRST, [row(atoms, forces=np.full(6, 1e3)) for atoms in pool[:6]])
    with pytest.raises(
        BadInput,
        match=r"none of the 7 structures .* 6 with too large a force \(labels.max_force_eV_per_A\), 1 that did not fit",
    ):
        bench.run(pool, unlabelled={pool[6].info["id"]: "does not fit"})
    with pytest.raises(BadInput, match="no structure in the pool"):
        bench.run([])
    with pytest.raises(StepError, match=pool[-1].info["id"]):
        bench.run(pool)
    bench.store(SECOND, [row(atoms) for atoms in pool], "b.arrow")
    with pytest.raises(StepError, match="of no teacher of this request"):
        bench.run(pool)


def test_the_stub_reads_the_rows_of_a_stub_run(bench, pool):
    bench.store(FIRST, [row(atoms) for atoms in pool])
    bench.run(pool)
    inputs = Inputs({"structures": (bench.folder / "pool.parquet",), "labels": tuple(bench.files)})
    (bench.folder / "stub").mkdir()
    pool_labels.stub(inputs, bench.folder / "stub", Params(teachers=(FIRST,), e0s_eV=E0S), Machine())
    for file in pool_labels.OUTPUTS.values():
        assert (bench.folder / "stub" / file).read_bytes() == (bench.outputs / file).read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"teachers": ()},
        {"teachers": (FIRST, FIRST)},
        {"teachers": (FIRST,), "max_force_std": 0.1},
        {"teachers": (FIRST, SECOND), "max_force_std": 0},
        {"teachers": (FIRST,), "bounds": {"max_force": 3}},
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        Params(e0s_eV=E0S, **wrong)
