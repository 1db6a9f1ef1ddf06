from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from pydantic import ValidationError

from containers.contract import Inputs, Machine, file_digest
from containers.labels.rows import ROWS
from containers.mace.labelling import mace_label
from containers.mace.labelling.mace_label import Params
from containers.structures.table import STRUCTURES, structure_id, structures_table, write_table


def pool() -> list[Atoms]:
    structures = [bulk("Si"), Atoms("Ge"), bulk("C")]
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": row, "group": "g", "family": "f"}
    return structures


METRICS = {"structures": 3, "labels": 3, "refused": 0, "set_aside": 0, "atoms": 5, "edges": 0, "calibration": {}}


def test_the_stub_writes_what_is_declared_and_the_same_twice(tmp_path):
    structures = pool()
    write_table(tmp_path / "pool.parquet", structures_table([*structures, structures[0]]))
    inputs = Inputs({"structures": (tmp_path / "pool.parquet",)})
    digests = []
    for name in ("first", "second"):
        outputs = tmp_path / name
        outputs.mkdir()
        metrics = mace_label.stub(inputs, outputs, Params(head="Default"), Machine())
        assert {path.name for path in outputs.iterdir()} == set(mace_label.OUTPUTS.values())
        digests.append({path.name: file_digest(path) for path in outputs.iterdir()})
    assert digests[0] == digests[1]
    assert metrics.items() >= METRICS.items()
    labels = pq.read_table(outputs / "labels.parquet")
    assert labels.schema.equals(ROWS)
    assert [one.hex() for one in labels["id"].to_pylist()] == [atoms.info["id"] for atoms in structures]
    assert pq.read_table(outputs / "set_aside.parquet").num_rows == 0


def test_the_stub_answers_100_000_structures_in_seconds(tmp_path):
    one = structures_table(pool()[:1]).to_pydict()
    many = {name: values * 100_000 for name, values in one.items()}
    many["id"] = [f"{number:064x}" for number in range(100_000)]
    write_table(tmp_path / "pool.parquet", pa.Table.from_pydict(many, schema=STRUCTURES))
    started = time.monotonic()
    metrics = mace_label.stub(
        Inputs({"structures": (tmp_path / "pool.parquet",)}), tmp_path, Params(head="Default"), Machine()
    )
    assert metrics["labels"] == 100_000
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("wrong", [{}, {"head": "x", "dtype": "float16"}, {"head": "x", "edges_per_batch": 8000}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        Params(**wrong)
