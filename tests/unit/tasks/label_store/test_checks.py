"""What a step may have been made to write by a hostile model is told by file and row, and not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from containers.labels.rows import ROWS
from containers.mace.labelling.predictions import SET_ASIDE
from tasks.errors import StoreError
from tasks.label_store.checks import check_complete, checked_reasons, checked_rows

NUMBERS = range(1, 9)  # 7 is refused by the teacher; 1, 2, 4, 5 and 8 have a stress


@pytest.fixture
def check(tmp_path: Path, answers: Any) -> Callable[[list[dict[str, Any]] | pa.Table], pa.Table]:
    """Write rows as a step would and read them as the store does."""

    def written_and_read(rows: list[dict[str, Any]] | pa.Table) -> pa.Table:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=ROWS)
        pq.write_table(table, tmp_path / "labels.parquet")
        return checked_rows(tmp_path / "labels.parquet", answers.ids(NUMBERS), answers.atoms(NUMBERS))

    return written_and_read


def test_good_rows_are_kept_sorted_by_id_and_rows_may_be_missing(check, answers) -> None:
    rows = answers.rows(NUMBERS)
    assert check(rows).equals(rows.sort_by("id"))
    assert check(rows).schema.field("forces").type.value_field.name == ROWS.field("forces").type.value_field.name
    assert len(check(answers.rows([3]))) == 1
    assert check(answers.rows([])).equals(ROWS.empty_table())


@pytest.mark.parametrize(("answered", "aside", "number", "words"), [
    ([1, 2], {}, 3, "neither"),
    ([1, 2], {2: "too large"}, 2, "and is set aside"),
    ([], {1: "too large", 2: "too large"}, 3, "neither"),
])  # fmt: skip
def test_a_structure_with_two_answers_or_none_is_named(answers, answered, aside, number, words) -> None:
    (name,) = (i.hex() for i in answers.ids([number]).to_pylist())
    reasons = {answers.ids([one])[0].as_py().hex(): reason for one, reason in aside.items()}
    check_complete(Path("labels.parquet"), answers.rows([]), answers.ids([]), {})
    of_two = {answers.ids([2])[0].as_py().hex(): "too large"}
    check_complete(Path("labels.parquet"), answers.rows([3, 1]), answers.ids([1, 2, 3]), of_two)
    with pytest.raises(StoreError, match=rf"labels\.parquet: structure {name} .*{words}"):
        check_complete(Path("labels.parquet"), answers.rows(answered), answers.ids([1, 2, 3]), reasons)


SPOILT = {
    "no id": {"id": None},
    "not to be labelled": {"id": b"x" * 32},
    "energy and forces": {"energy": None},
    "or a reason, not both": {"reason": "I would rather not"},
    "three force components": {"forces": [0.0] * 6},
    "energy that is not finite": {"energy": float("nan")},
    "force that is not finite": {"forces": [0.0] * 11 + [float("inf")]},
    "a force that is not": {"forces": [0.0] * 11 + [None]},
    "stress that is not finite": {"stress": [0.0] * 5 + [float("-inf")]},
    "a stress that": {"stress": [None] + [0.0] * 5},
    "negative number of edges": {"edges": -1},
    "shortest distance": {"min_distance_A": -0.1},
    "distance that is none": {"min_distance_A": float("nan")},
    "no device": {"device": None},
    "mace_version of more than 1000": {"mace_version": "1" * 1001},
    "acceleration with control": {"acceleration": "\x1b[2J"},
}


@pytest.mark.parametrize("words", SPOILT)
def test_a_spoilt_row_is_named(check, answers, words: str) -> None:
    rows = answers.rows(NUMBERS).to_pylist()
    rows[2].update(SPOILT[words])  # of four atoms
    with pytest.raises(StoreError, match=rf"labels\.parquet, row 2 \(from 0\): .*{words}"):
        check(rows)


@pytest.mark.parametrize(("words", "change"), [
    ("more than 1000", {"reason": "no" * 501}),
    ("control characters", {"reason": "no\x1b[2J"}),
    ("a stress and a reason", {"stress": [0.0] * 6}),
    ("or a reason, not both", {"reason": None}),
])  # fmt: skip
def test_a_spoilt_refusal_is_named(check, answers, words: str, change: dict[str, Any]) -> None:
    rows = answers.rows(NUMBERS).to_pylist()
    rows[6].update(change)
    with pytest.raises(StoreError, match=rf"row 6 \(from 0\): .*{words}"):
        check(rows)


def test_doubled_or_too_many_rows_endless_forces_and_other_columns_are_refused(check, answers, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"row 3 \(from 0\): the id of an earlier row"):
        check(answers.rows([1, 2, 3, 2]))
    with pytest.raises(StoreError, match="9 rows, at most 8"):
        check(answers.rows([*NUMBERS, 1]))
    with pytest.raises(StoreError, match="columns"):
        check(answers.rows(NUMBERS).drop_columns(["edges"]))
    with pytest.raises(StoreError, match="columns are not id, reason"):
        checked_reasons(answers.file(NUMBERS), answers.ids(NUMBERS))
    row = {**answers.rows([1]).to_pylist()[0], "forces": np.zeros(5_000_000)}
    pq.write_table(pa.Table.from_pylist([row], schema=ROWS), bomb := tmp_path / "labels.parquet", compression="zstd")
    assert bomb.stat().st_size < 100_000
    with pytest.raises(StoreError, match="5000000 values in a column, at most"):
        checked_rows(bomb, answers.ids(NUMBERS), answers.atoms(NUMBERS))


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_what_is_no_parquet_file_is_named(tmp_path: Path, answers, keep: float) -> None:
    path = answers.file(NUMBERS)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(StoreError, match=path.name):
        checked_rows(path, answers.ids(NUMBERS), answers.atoms(NUMBERS))


def test_flipped_bytes_are_refused_or_harmless(answers) -> None:
    """Every byte in turn: never another error than ours, never a row that is not well formed."""
    path = answers.file(NUMBERS)
    data, refused = path.read_bytes(), 0
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            rows = checked_rows(path, answers.ids(NUMBERS), answers.atoms(NUMBERS))
        except StoreError:
            refused += 1
        else:
            assert rows.schema == ROWS
            rows.validate(full=True)
    assert refused > 10


def set_aside(folder: Path, ids: pa.Array, reasons: list[str | None]) -> Path:
    pq.write_table(pa.table({"id": ids, "reason": reasons}, schema=SET_ASIDE), folder / "set_aside.parquet")
    return folder / "set_aside.parquet"


def test_reasons_of_what_is_set_aside(tmp_path: Path, answers) -> None:
    ids = answers.ids([3, 5])
    path = set_aside(tmp_path, ids, ["too large", "killed"])
    assert checked_reasons(path, answers.ids(NUMBERS)) == dict(
        zip([i.hex() for i in ids.to_pylist()], ["too large", "killed"], strict=True)
    )
    assert checked_reasons(set_aside(tmp_path, answers.ids([]), []), answers.ids(NUMBERS)) == {}


@pytest.mark.parametrize(("numbers", "reason", "words"), [
    ([3, 3], "too large", "earlier row"),
    ([3, 99], "too large", "not to be labelled"),
    ([3, 4], None, "no reason"),
    ([3, 4], "\x1b[2J", "control"),
])  # fmt: skip
def test_spoilt_reasons_are_named(tmp_path: Path, answers, numbers, reason, words: str) -> None:
    path = set_aside(tmp_path, answers.ids(numbers), ["fine", reason])
    with pytest.raises(StoreError, match=rf"set_aside\.parquet, row 1 \(from 0\): .*{words}"):
        checked_reasons(path, answers.ids(NUMBERS))
