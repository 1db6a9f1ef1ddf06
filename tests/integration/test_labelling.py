"""What a labelling costs: nothing twice. Pools that grow, other teachers, committees, few and many structures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.errors import StepFailed

pytestmark = pytest.mark.integration

OTHER_TEACHER = """
import sys
import mace
import torch
model = torch.load(sys.argv[1], weights_only=False, map_location="cpu")
model.scale_shift.scale *= 1.05
torch.save(model, sys.argv[2])
"""


def another(model: Path, name: str) -> Path:
    """A file that is another teacher for a stub run, which does not open it."""
    made = model.with_name(name)
    made.write_bytes(model.read_bytes() + name.encode())
    return made


def ids(done: dict[str, Any]) -> list[str]:
    return pq.read_table(done["labels"], columns=["id"])["id"].to_pylist()


def test_a_grown_pool_costs_what_it_grew_by(labelling_bench: Any) -> None:
    assert labelling_bench.run(labelling_bench.pool(range(40)))["computed"] == 40
    done = labelling_bench.run(labelling_bench.pool(range(47)))
    assert done["computed"] == 7
    assert len(set(ids(done))) == len(ids(done)) == 47
    assert sorted(labelling_bench.rows().values()) == [1] * 47


def test_order_names_and_doubles_cost_nothing(labelling_bench: Any) -> None:
    first = labelling_bench.run(labelling_bench.pool(range(40)))
    again = labelling_bench.run(labelling_bench.pool([*range(39, 9, -1), 20, 20], name="same.extxyz"))
    assert (first["computed"], again["computed"]) == (40, 0)
    assert len(ids(again)) == 30
    assert set(ids(again)) < set(ids(first))


def test_another_config_with_the_same_teacher_costs_nothing(labelling_bench: Any) -> None:
    pool = labelling_bench.pool(range(40))
    labelling_bench.run(pool)
    selected = labelling_bench.run(pool, selection={"max_structures": 11})
    assert (selected["computed"], selected["cached"]) == (0, True)
    bounded = labelling_bench.run(pool, labels={"max_force_eV_per_A": 7.0})
    assert (bounded["computed"], bounded["cached"]) == (0, False)


def test_another_head_dtype_or_model_costs_all(labelling_bench: Any) -> None:
    pool = labelling_bench.pool(range(40))
    labelling_bench.run(pool)
    for other in (
        {"head": "other"},
        {"teacher": {"dtype": "float64"}},
        {"model": another(labelling_bench.model, "other.model")},
    ):
        assert labelling_bench.run(pool, **other)["computed"] == 40, other
        assert labelling_bench.run(pool, **other)["computed"] == 0, other


def test_a_committee_costs_those_of_its_members_that_are_new(labelling_bench: Any) -> None:
    other = another(labelling_bench.model, "other.model")
    labelling_bench.run(labelling_bench.pool(range(30)))
    done = labelling_bench.run(labelling_bench.pool(range(40)), teacher={"committee": [str(other)]})
    assert done["computed"] == 10 + 40
    assert (len(labelling_bench.rows()), len(labelling_bench.rows(other))) == (40, 40)


@pytest.mark.long
def test_a_committees_label_is_the_mean_of_its_members(labelling_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of real teachers; the deviation is that of a population."""
    monkeypatch.setenv("DISTILL_RUNNER", "subprocess")
    other = labelling_bench.folder / "other.model"
    command = [sys.executable, "-c", OTHER_TEACHER, str(labelling_bench.model), str(other)]
    subprocess.run(command, check=True, timeout=120)
    pool = labelling_bench.pool(range(6), atoms=8)
    alone = [
        pq.read_table(labelling_bench.run(pool, model=model)["labels"]) for model in (labelling_bench.model, other)
    ]
    done = labelling_bench.run(pool, teacher={"committee": [str(other)]})
    assert done["computed"] == 0
    both = pq.read_table(done["labels"])
    assert both["id"] == alone[0]["id"] == alone[1]["id"]
    for name in ("energy", "forces", "stress"):
        members = np.array([table[name].to_pylist() for table in alone])
        np.testing.assert_allclose(np.array(both[name].to_pylist()), members.mean(axis=0), rtol=1e-12, atol=1e-12)
        if name != "stress":
            assert np.abs(members[0] - members[1]).max() > 1e-3, "they disagree"
            deviations = np.array(both[f"{name}_std"].to_pylist())
            np.testing.assert_allclose(deviations, members.std(axis=0), rtol=1e-9, atol=1e-12)


def test_a_pool_without_structures_is_refused(labelling_bench: Any) -> None:
    empty = labelling_bench.folder / "empty.extxyz"
    empty.write_text("")
    with pytest.raises(StepFailed, match=r"empty\.extxyz: the file is empty") as failed:
        labelling_bench.run(empty)
    assert failed.value.exit_code == 2


def test_a_pool_of_one_structure(labelling_bench: Any) -> None:
    done = labelling_bench.run(labelling_bench.pool([5], atoms=1))
    assert (done["computed"], len(ids(done))) == (1, 1)


@pytest.mark.long
def test_20_000_tiny_structures(labelling_bench: Any) -> None:
    pool = labelling_bench.folder / "many.extxyz"
    comment = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'
    pool.write_text("".join(f"2\n{comment}\nSi 0 0 0\nSi 2 2 {1 + row / 1e6:.6f}\n" for row in range(20_000)))
    assert labelling_bench.run(pool)["computed"] == 20_000
    assert sorted(labelling_bench.rows().values()) == [1] * 20_000
    assert labelling_bench.run(pool)["computed"] == 0
