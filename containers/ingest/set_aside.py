"""Frames of DFT files whose labels are none: nothing learns from them, and they are listed with the reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from containers.contract import BadInput
from containers.structures.table import write_table

SET_ASIDE = pa.schema([("source", pa.string()), ("row", pa.int32()), ("reason", pa.string())])


class SetAside:
    """Frames so far. Files are known by their names."""

    def __init__(self) -> None:
        self._rows: list[dict[str, str | int]] = []
        self._used: set[str] = set()

    def add(self, name: str, row: int, reason: str) -> None:
        """Note that frame `row` (from 0) of a file is not used."""
        self._rows.append({"source": name, "row": row, "reason": reason})

    def keep(self, name: str) -> None:
        """Note that a frame of the file is used."""
        self._used.add(name)

    def check(self) -> None:
        """Raise `BadInput` for the first file without a frame left."""
        for row in self._rows:
            if row["source"] not in self._used:
                raise BadInput(
                    f"{_sentence(row)}; no frame of the file has a converged SCF: none of its labels can be used. Give"
                    " converged calculations (VASP: a larger NELM or another ALGO); pool.files needs no labels"
                )

    def write(self, path: Path) -> None:
        """Write the list (SET_ASIDE)."""
        write_table(path, pa.Table.from_pylist(self._rows, schema=SET_ASIDE))

    def metrics(self) -> dict[str, int | str | None]:
        """Return `unconverged`: how many; `unconverged_first`: file, frame and reason of the first, or None."""
        return {"unconverged": len(self._rows), "unconverged_first": _sentence(self._rows[0]) if self._rows else None}


def _sentence(row: dict[str, str | int]) -> str:
    return f"{row['source']}: frame {row['row']} (from 0): the SCF did not converge ({row['reason']})"
