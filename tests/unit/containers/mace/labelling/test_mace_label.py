"""The labelling step without its model: its stub, and predictions as rows."""

from __future__ import annotations

import pickle
import time

import numpy as np
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
from containers.mace.labelling.predictions import (
    SET_ASIDE,
    Label,
    Predictions,
    Provenance,
    Unlabelled,
    answer_rows,
    binary_ids,
    first_of_each,
    set_aside_rows,
    stub_rows,
)
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


# ---- predictions as rows


def table(*structures: Atoms):
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": row, "group": "g", "family": "f"}
    return structures_table(structures)


LABEL = Label(-1 / 3, np.array([[0.1, 0.2, 1 / 7]]), np.arange(6) / 9)
HOW = Provenance("cpu", "none", "0.3.16")
FOUR = table(Atoms("Si", pbc=True, cell=[3, 3, 3]), Atoms("Si"), Atoms("C"), Atoms("H"))
ANSWERS: list[Label | str] = [LABEL, "too odd", Unlabelled("too large"), Label(2.0, np.zeros((1, 3)), None)]


def labelled() -> Predictions:
    return Predictions(ANSWERS, [26, None, 5, 0], [2.5, None, 2.0, None], bound=8000)


def test_a_row_has_a_label_with_every_digit_or_a_reason():
    rows = answer_rows(FOUR, labelled(), HOW)
    assert rows.schema == ROWS
    first, second, third = rows.to_pylist()
    assert first["id"].hex() == FOUR["id"][0].as_py()
    assert (first["energy"], first["reason"]) == (-1 / 3, None)
    assert first["forces"] == LABEL.forces.ravel().tolist()
    assert first["stress"] == LABEL.stress.tolist()
    assert (first["edges"], first["min_distance_A"]) == (26, 2.5)
    assert (first["device"], first["acceleration"], first["mace_version"]) == ("cpu", "none", "0.3.16")
    assert second["reason"] == "too odd"
    assert [second[name] for name in ("energy", "forces", "stress", "edges", "min_distance_A")] == [None] * 5
    assert (third["energy"], third["stress"], third["edges"]) == (2.0, None, 0)
    assert third["id"].hex() == FOUR["id"][3].as_py()
    aside = set_aside_rows(FOUR, ANSWERS)
    assert aside.schema == SET_ASIDE
    assert aside.to_pylist() == [{"id": bytes.fromhex(FOUR["id"][2].as_py()), "reason": "too large"}]
    # set aside it travels between processes
    back = pickle.loads(pickle.dumps(Unlabelled("too large")))
    assert isinstance(back, Unlabelled)
    assert back == "too large"
    assert binary_ids(FOUR["id"].slice(1, 2)).to_pylist() == [
        bytes.fromhex(name) for name in FOUR["id"].to_pylist()[1:3]
    ]
    # no rows give tables of the same schema
    assert answer_rows(table(), Predictions.empty(0, 8000), HOW).schema == ROWS
    assert set_aside_rows(table(), []).schema == SET_ASIDE
    assert stub_rows(table()).schema == ROWS


def test_answers_are_put_in_their_places_and_the_lower_bound_stays():
    total = Predictions.empty(4, 8000)
    total.put([3, 1], Predictions([LABEL, "too odd"], [26, None], [2.5, None], 4000, seconds_model=1.5))
    total.put([0], Predictions([LABEL], [4], [2.0], 8000, seconds_neighbours=0.5, seconds_model=1.0))
    assert total.answers[3] is total.answers[0] is LABEL
    assert total.answers[1] == "too odd"
    assert isinstance(total.answers[2], Unlabelled)
    assert (total.edges, total.total_edges) == ([4, None, None, 26], 30)
    assert (total.bound, total.seconds_neighbours, total.seconds_model) == (4000, 0.5, 2.5)


def test_the_first_of_equal_ids_stays_and_stub_rows_have_the_sizes_of_structures():
    structures = table(Atoms("Si"), Atoms("C"), Atoms("Si"), Atoms("H"), Atoms("C"))
    assert first_of_each(structures)["row"].to_pylist() == [0, 1, 3]
    assert first_of_each(FOUR) is FOUR
    rows = stub_rows(table(Atoms("Si2", pbc=True, cell=[3, 3, 3]), Atoms("C"), Atoms("H3", pbc=[1, 1, 0])))
    assert rows["energy"].to_pylist() == [-2, -1, -3]
    assert rows["forces"].to_pylist() == [[0.0] * 6, [0.0] * 3, [0.0] * 9]
    assert rows["stress"].to_pylist() == [[0.0] * 6, None, None]
    assert rows["edges"].null_count == rows["min_distance_A"].null_count == rows["reason"].null_count == 3
    assert set(rows["mace_version"].to_pylist()) == {"stub"}


@pytest.mark.parametrize(
    ("energy", "force", "stress", "finite"),
    [
        (1, 1, 1, True),
        (np.nan, 1, 1, False),
        (1, np.inf, 1, False),
        (1, 1, np.nan, False),
        (1, 1, None, True),
    ],
)
def test_a_label_is_finite_when_every_number_is(energy, force, stress, finite):
    voigt = None if stress is None else np.full(6, stress, dtype=float)
    assert Label(float(energy), np.full((2, 3), force, dtype=float), voigt).finite is finite
