"""Structures out of Parquet tables, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray

from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, too_many
from containers.structures.table import KEPT_INFO

GEOMETRY = ("numbers", "positions", "cell", "pbc")
MOST_ROWS = 1024  # at once
MOST_BYTES = 32_000_000  # of rows at once, about
LARGEST_GROUP = 1_000_000_000  # bytes of a row group, decompressed; its columns are decoded page by page


def parquet_frames(path: Path, name: str) -> Iterator[Atoms]:
    """Read every row; columns beyond the geometry go to info, where labels and group are looked for.

    Raises:
        BadInput: no table, columns missing, or a row whose columns do not fit together; names the file and the row.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name}: not a readable Parquet file ({error})") from error
    with file:
        if missing := [column for column in GEOMETRY if column not in file.schema_arrow.names]:
            raise BadInput(
                f"{name}: the table lacks the columns {', '.join(missing)}; it has {file.schema_arrow.names}"
            )
        sizes = [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]
        if (largest := max(sizes, default=0)) > LARGEST_GROUP:
            raise BadInput(
                f"{name}: a row group of {largest / 1e6:,.0f} MB, at most {LARGEST_GROUP / 1e6:,.0f} MB are read;"
                " write the table with smaller row groups (row_group_size=10000)"
            )
        bytes_a_row = max(1.0, sum(sizes) / max(1, file.metadata.num_rows))
        row = 0
        try:
            for batch in file.iter_batches(max(1, min(MOST_ROWS, int(MOST_BYTES / bytes_a_row)))):
                for place in range(len(batch)):
                    values = {key: _value(batch.column(key)[place]) for key in batch.schema.names}
                    yield _structure(values, f"{name}: frame {row} (from 0)")
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{name}: damaged after frame {row - 1} (from 0): {error}") from error


def _value(scalar: pa.Scalar) -> Any:
    """Return lists of numbers as arrays, the rest as Python has it."""
    kind = scalar.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if lists and scalar.is_valid and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        return scalar.values.to_numpy(zero_copy_only=False)
    return scalar.as_py()


def _structure(values: dict[str, Any], place: str) -> Atoms:
    def column(name: str, kinds: str, what: str) -> NDArray[Any]:
        found = np.asarray(values[name])
        if found.dtype.kind not in kinds:  # missing values, text or fractions would pass for something else
            raise BadInput(
                f"{place}: {name} is {str(values[name])[:60]}, it should be {what}; correct or remove the row"
            )
        return found

    try:
        numbers = column("numbers", "iu", "whole numbers").astype(np.int64)
        if len(numbers) > MOST_ATOMS:
            raise BadInput(f"{place}: {too_many(len(numbers))}")
        atoms = Atoms(
            numbers=numbers,
            positions=np.asarray(values["positions"], dtype=float).reshape(len(numbers), 3),
            cell=np.asarray(values["cell"], dtype=float).reshape(3, 3),
            pbc=column("pbc", "biu", "three truth values"),
        )
    except (ValueError, TypeError, IndexError) as error:
        raise BadInput(f"{place}: numbers, positions, cell and pbc do not fit together ({error})") from error
    own = {*GEOMETRY, *KEPT_INFO} - {"group", "family"}
    atoms.info = {key: value for key, value in values.items() if key not in own and value is not None}
    return atoms
