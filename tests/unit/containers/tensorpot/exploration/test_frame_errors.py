"""Errors by run of a student whose teacher is known: Lennard-Jones copper of another depth."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import Inputs, Machine
from containers.labels.pool_labels import REJECTED
from containers.structures.table import labels_table, structure_id, structures_table, write_table
from containers.tensorpot.exploration import frame_errors
from containers.tensorpot.student import potential
from tests.unit.containers.tensorpot.evaluation.toys import copper


def test_each_run_has_the_errors_of_its_frames_and_counts_those_without_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher 1.1 times as deep has forces a tenth larger. Of the second run, one of two frames has a label."""
    monkeypatch.setattr(potential, "load_student", lambda *_: copper())
    frames, labelled = [], []
    for number, source in enumerate(["cold", "hot", "hot"]):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05 * (1 + number), seed=number)
        atoms.info = {"id": structure_id(atoms), "source": source, "row": number, "group": "check", "family": source}
        frames.append(atoms)
        teacher = copper(depth=0.44)
        teacher.calculate(atoms)
        made = atoms.copy()
        made.calc = SinglePointCalculator(made, energy=teacher.results["energy"], forces=teacher.results["forces"])
        labelled.append(made)
    write_table(tmp_path / "structures.parquet", structures_table(frames))
    write_table(tmp_path / "labels.parquet", labels_table(labelled[:2]))
    left = {"id": frames[2].info["id"], "source": "hot", "row": 2, "reason": "a force"}
    write_table(tmp_path / "rejected.parquet", pa.Table.from_pylist([left], schema=REJECTED))
    inputs = Inputs({name: (tmp_path / f"{name}.parquet",) for name in ("structures", "labels", "rejected")} | {
        name: (tmp_path / name,) for name in ("potential", "asi", "baseline")
    })  # fmt: skip
    found = frame_errors.run(inputs, tmp_path, frame_errors.Params(), Machine())
    assert [(one["source"], one["labelled"], one["set_aside"], one["set_aside_because"]) for one in found["runs"]] == [
        ("cold", 1, 0, None), ("hot", 1, 1, "a force"),
    ]  # fmt: skip
    for one in (*found["runs"], found["all"]):
        assert one["force_mae_meV_per_A"] == pytest.approx(one["teacher_force_size_meV_per_A"] / 11)
    assert (tmp_path / "frame_errors.json").is_file()
    stubbed = frame_errors.stub(inputs, tmp_path, frame_errors.Params(), Machine())
    assert set(stubbed["runs"][0]) == set(found["runs"][0])
