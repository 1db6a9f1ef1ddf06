from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine, file_digest
from containers.mace import label
from containers.mace.label import Params, check_elements
from containers.structures import LABELS, read_atoms, structure_id, structures_table, write_table


def pool() -> list[Atoms]:
    structures = [bulk("Si"), Atoms("Ge"), bulk("C")]
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": row, "group": "g", "family": "f"}
    return structures


def test_the_stub_writes_what_is_declared_and_the_same_twice(tmp_path):
    write_table(tmp_path / "pool.parquet", structures_table(pool()))
    inputs = Inputs({"structures": (tmp_path / "pool.parquet",)})
    digests = []
    for name in ("first", "second"):
        outputs = tmp_path / name
        outputs.mkdir()
        metrics = label.stub(inputs, outputs, Params(head="Default"), Machine())
        assert {path.name for path in outputs.iterdir()} == set(label.OUTPUTS.values())
        digests.append({path.name: file_digest(path) for path in outputs.iterdir()})
    assert digests[0] == digests[1]
    assert metrics == {"labels_computed": 3, "rejected": 0, "atoms": 5}
    assert pq.read_schema(outputs / "labels.parquet").equals(LABELS)
    assert [atoms.info["row"] for atoms in read_atoms(outputs / "labels.parquet")] == [0, 1, 2]


def test_elements_that_the_teacher_does_not_know_are_named_with_the_first_place():
    check_elements(pool(), ["C", "Si", "Ge"])
    with pytest.raises(BadInput, match=r"does not know C, Ge; it knows Si. First in a.xyz, row 1 \(from 0\)"):
        check_elements(pool(), ["Si"])


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({}, label.EDGES_PER_BATCH),
        ({"edges_per_batch": 7}, 7),
    ],
)
def test_the_bound_is_automatic_or_given(given, bound):
    assert Params(head="Default", **given).bound == bound


@pytest.mark.parametrize("wrong", [{}, {"head": "x", "dtype": "float16"}, {"head": "x", "edges_per_batch": 0}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        Params(**wrong)


def test_the_step_modules_load_no_heavy_library():
    modules = "teacher_info", "label", "fetch", "answers", "batches", "extxyz"
    imports = "; ".join(f"import containers.mace.{module}" for module in modules)
    script = f"import sys; {imports}; print({{'torch', 'mace', 'e3nn', 'prefect'}} & set(sys.modules))"
    repository = Path(__file__).parents[4]
    result = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
