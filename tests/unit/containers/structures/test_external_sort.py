"""Rows sorted by id on disk: the same as in memory."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from containers.structures import external_sort
from containers.structures.external_sort import Spool, blocks

SCHEMA = pa.schema([("id", pa.string()), ("numbers", pa.list_(pa.int32())), ("place", pa.int32())])


def rows(*keys: int, start: int = 0) -> pa.Table:
    ids = [hashlib.sha256(str(key).encode()).hexdigest() for key in keys]
    columns = {"id": ids, "numbers": [[14] * (1 + key % 5) for key in keys], "place": range(start, start + len(keys))}
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def spooled(folder: Path, *tables: pa.Table) -> list[pa.Table]:
    folder.mkdir()
    with Spool(folder, SCHEMA) as made:
        for table in tables:
            made.add(table)
        return list(made.parts())


def test_rows_come_sorted_and_equal_ids_in_their_order(tmp_path: Path) -> None:
    parts = spooled(tmp_path / "a", rows(*range(500)), rows(3, 7, 3, start=500))
    found = pa.concat_tables(parts).to_pylist()
    assert found == sorted(found, key=lambda row: (row["id"], row["place"]))
    assert sorted(row["place"] for row in found) == list(range(503))
    borders = [(part["id"][0].as_py(), part["id"][-1].as_py()) for part in parts]
    assert all(last < first for (_, last), (first, _) in pairwise(borders))
    assert list((tmp_path / "a").iterdir()) == []


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    assert spooled(tmp_path / "a") == []
    assert list(blocks(iter([]))) == []


@pytest.mark.parametrize(
    ("most_rows", "most_atoms"), [(10, 1_000_000), (1_000, 20), (7, 20), (1, 1), (1_000, 1_000_000)]
)
def test_blocks_depend_on_the_rows_alone(monkeypatch: pytest.MonkeyPatch, most_rows: int, most_atoms: int) -> None:
    monkeypatch.setattr(external_sort, "ROWS", most_rows)
    monkeypatch.setattr(external_sort, "ATOMS", most_atoms)
    table = rows(*range(100))
    whole = list(blocks(iter([table])))
    for step in (1, 3, 33):
        parted = list(blocks(table.slice(start, step) for start in range(0, 100, step)))
        assert [block.to_pylist() for block in parted] == [block.to_pylist() for block in whole]
    assert pa.concat_tables(whole).to_pylist() == table.to_pylist()
    for block in whole:
        atoms = sum(map(len, block["numbers"].to_pylist()))
        assert block.num_rows <= most_rows
        assert atoms <= most_atoms or block.num_rows == 1
