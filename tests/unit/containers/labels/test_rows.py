from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from containers.contract import StepError
from containers.labels.rows import ROWS, IdIndex, LabelRows, binary_ids, id_words


def ids_of(*words: object) -> pa.Array:
    return pa.array([hashlib.sha256(str(word).encode()).digest() for word in words], pa.binary(32))


def rows_of(*numbers: int) -> pa.Table:
    ids = ids_of(*numbers).to_pylist()
    rows = [{"id": i, "energy": -float(n), "forces": [n / 3] * 3 * n} for i, n in zip(ids, numbers, strict=True)]
    return pa.Table.from_pylist(rows, schema=ROWS)


def arrow(path: Path, table: pa.Table, batch: int = 3) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Ten structures in two files of small batches; 4 is in both, with another energy in the second."""
    doubled = rows_of(4).set_column(1, "energy", pa.array([99.0]))
    second = pa.concat_tables([rows_of(5, 6, 7, 8, 9), doubled])
    return [arrow(tmp_path / "a.arrow", rows_of(0, 1, 2, 3, 4)), arrow(tmp_path / "b.arrow", second)]


def test_rows_come_in_the_requested_order_of_equal_ones_the_first_file_s(files: list[Path]) -> None:
    wanted = [7, 0, 9, 3, 3, 5]
    assert LabelRows(files).take(ids_of(*wanted)).equals(rows_of(*wanted))
    assert LabelRows(files).take(ids_of(4)).column("energy").to_pylist() == [-4.0]
    assert LabelRows(files[::-1]).take(ids_of(4)).column("energy").to_pylist() == [99.0]
    assert LabelRows(files).take(ids_of(1, 2, 8, 6).slice(2)).equals(rows_of(8, 6))
    for paths in (files, []):
        taken = LabelRows(paths).take(ids_of())
        assert (taken.schema, len(taken)) == (ROWS, 0)


def test_an_unknown_structure_and_a_file_of_something_else_are_named(files: list[Path], tmp_path: Path) -> None:
    missing = ids_of("unknown")
    with pytest.raises(StepError, match=missing[0].as_py().hex()):
        LabelRows(files).take(pa.concat_arrays([ids_of(1), missing]))
    other = arrow(tmp_path / "other.arrow", pa.table({"id": [1]}))
    (text := tmp_path / "text.arrow").write_text("no Arrow at all, but long enough to look for its end")
    for path in (other, text):
        with pytest.raises(StepError, match=path.name):
            LabelRows([path])


def test_ids_are_found_by_all_their_bytes_sorted_as_bytes_and_read_from_many_chunks() -> None:
    alike = [bytes(8) + bytes([n]) * 24 for n in range(50)]
    ids = pa.array(alike[::-1], pa.binary(32))
    index = IdIndex([id_words(ids.slice(0, 20)), id_words(ids.slice(20))])
    np.testing.assert_array_equal(index.find(ids), np.arange(50))
    np.testing.assert_array_equal(index.find(pa.array([bytes(8) + b"x" * 24, b"\xff" * 32], pa.binary(32))), [-1, -1])
    ids = ids_of(*range(100))
    by_words = np.lexsort(id_words(ids).T[::-1])
    assert ids.take(pa.array(by_words)).to_pylist() == sorted(ids.to_pylist())
    ids = ids_of(*range(10))
    text = pa.array([i.hex() for i in ids.to_pylist()])
    chunked = pa.chunked_array([text.slice(0, 3), text.slice(3, 0), text.slice(3)])
    for column in (text, chunked, pa.table({"id": chunked}), text.cast(pa.large_string())):
        assert binary_ids(column).equals(ids)
    assert binary_ids(text.slice(4)).equals(ids.slice(4))
    assert binary_ids(pa.chunked_array([], pa.string())).equals(ids_of())


@pytest.mark.parametrize("bad", ["ab", "g" * 64, "A" * 64, "é" * 32, None])
def test_an_id_that_is_no_digest_is_refused_with_its_row(bad: str | None) -> None:
    good = pa.array(["ab" * 32])
    with pytest.raises(StepError, match=r"row 2 \(from 0\)"):
        binary_ids(pa.chunked_array([good, good, pa.array([bad], pa.string())]))
