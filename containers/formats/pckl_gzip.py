"""Pacemaker's own tables of structures (`.pckl.gzip`: a gzipped pickle of a pandas DataFrame), read as records.

Neither pandas nor ASE unpickles anything here; see `inert_pickle`. The layouts understood are those of pandas 1.3 to 2,
numpy 1 and 2, and ASE from 3.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from containers.arrays import Floats
from containers.contract import BadInput
from containers.formats.inert_pickle import Damaged, Record, read_inert, restored

STRUCTURES = "ase_atoms"
LABELS = ("energy", "forces", "stress")
TOTAL_FORCES = "forces_total"
"""In frames of ours: the label, where `forces` lacks what a reference potential gives."""
BROKEN = (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError, Damaged)
"""What records of another shape than expected end in."""
TO_INFO = ("name", "group", "family", "energy_corrected", "REF_energy", "REF_forces", "REF_stress")


def frame_rows(path: Path, name: str) -> Iterator[Atoms]:
    """Every structure of an unpacked table, in its order.

    The columns `energy` (eV, total), `forces` (eV/Å; `forces_total` where that is there) and `stress`, or else the
    structure's own calculator, become results of a calculator; TO_INFO goes to info. A structure of which atoms are
    held (`FixAtoms` and the like) says so.

    Args:
        path: the pickle, decompressed.
        name: the user's name of the file, for messages.

    Raises:
        BadInput: no table of structures, or a row without one; names the file and the row.
    """
    columns = _columns(_content(path, name), name)
    if STRUCTURES not in columns:
        raise BadInput(f"{name}: the table lacks the column {STRUCTURES}; it has {', '.join(map(str, columns))}")
    for row, record in enumerate(columns[STRUCTURES]):
        others = {key: columns[key][row] for key in (*LABELS, *TO_INFO) if key in columns}
        if TOTAL_FORCES in columns:
            others["forces"] = columns[TOTAL_FORCES][row]
        try:
            yield _atoms(record, others)
        except BROKEN as error:
            raise BadInput(
                f"{name}: frame {row} (from 0) cannot be read ({type(error).__name__}: {error}); write {STRUCTURES}"
                " again with a current ASE, or use extended XYZ"
            ) from error


def _content(path: Path, name: str) -> Any:
    try:
        with path.open("rb") as file:
            return read_inert(file, name)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # a damaged pickle raises what it likes
        raise BadInput(
            f"{name}: not a readable pickle ({type(error).__name__}: {error}); the file may be damaged or cut off"
        ) from error


def _columns(frame: Any, name: str) -> dict[Any, list[Any]]:
    """The table by columns."""
    if not isinstance(frame, Record) or frame.name != "DataFrame":
        raise BadInput(
            f"{name}: the pickle holds no pandas DataFrame but a {getattr(frame, 'name', type(frame).__name__)}"
        )
    try:
        manager = frame.attributes().get("_mgr") or frame.attributes()["_data"]
        blocks, (titles, _) = _blocks_and_axes(manager)
        names = _index(titles)
        columns: dict[Any, list[Any]] = {}
        for values, places in blocks:
            for place, column in zip(_places(places), restored(values), strict=True):
                if names[place] in columns:
                    raise Damaged(f"two columns are called {names[place]}")
                columns[names[place]] = list(column)
        return columns
    except BROKEN as error:
        raise BadInput(
            f"{name}: the table is of a layout that is not read ({type(error).__name__}: {error}); write it with pandas"
            " 1.3 to 2, or use extended XYZ or Parquet"
        ) from error


def _blocks_and_axes(manager: Record) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """(values, places) of each block, and the two axes: columns first."""
    if manager.arguments:
        blocks, axes = manager.arguments
        return [(block.arguments[0], block.arguments[1]) for block in blocks], axes
    state = manager.state[3]["0.14.1"]  # the layout of pandas before 1.3, which later ones kept for a while
    return [(block["values"], block["mgr_locs"]) for block in state["blocks"]], state["axes"]


def _index(record: Any) -> Sequence[Any]:
    """The titles of an axis; ranges stay ranges, for they may claim to be long."""
    arguments = record.arguments
    attributes = arguments[1] if record.name == "_new_Index" else record.attributes()
    if "data" in attributes:
        return list(restored(attributes["data"]))
    return range(attributes["start"], attributes["stop"], attributes["step"])


def _places(record: Any) -> Sequence[int]:
    if isinstance(record, Record) and record.name == "slice":
        start, stop, step = record.arguments
        return range(start, stop, step or 1)
    return [int(place) for place in restored(record)]


def _atoms(record: Any, others: Mapping[str, Any]) -> Atoms:
    """A structure of the record of one, with the row's labels."""
    if not isinstance(record, Record) or record.name != "Atoms":
        raise TypeError(f"not a structure but {getattr(record, 'name', type(record).__name__)}")
    state = record.attributes()
    arrays = {key: restored(value) for key, value in state["arrays"].items()}
    numbers, positions = np.asarray(arrays.pop("numbers")), np.asarray(arrays.pop("positions"), dtype=float)
    atoms = Atoms(
        numbers=numbers, positions=positions, cell=_cell(state), pbc=restored(state.get("_pbc", state.get("pbc")))
    )
    atoms.arrays.update(
        {key: value for key, value in arrays.items() if isinstance(value, np.ndarray) and value.dtype != object}
    )
    atoms.info = {key: restored(value) for key, value in state.get("info", {}).items() if isinstance(key, str)}
    atoms.info |= {key: restored(others[key]) for key in TO_INFO if _there(others.get(key))}
    results = _results(state) | {key: restored(others[key]) for key in LABELS if others.get(key) is not None}
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    if state.get("_constraints") or state.get("constraints"):
        atoms.set_constraint(FixAtoms(indices=[]))  # says that there are some; which ones nobody asks
    return atoms


def _cell(state: Mapping[str, Any]) -> Floats:
    cell = state.get("_cellobj", state.get("_cell"))
    if isinstance(cell, Record) and cell.name == "Cell":
        cell = cell.attributes()["array"]
    return np.asarray(restored(cell), dtype=float)


def _results(state: Mapping[str, Any]) -> dict[str, Any]:
    """Energy, forces and stress of the structure's own calculator."""
    calculator = state.get("_calc", state.get("calc"))
    if not isinstance(calculator, Record):
        return {}
    results = restored(calculator.attributes().get("results", {}))
    return {key: results[key] for key in LABELS if results.get(key) is not None}


def _there(value: Any) -> bool:
    """Whether a cell of the table has a value: pandas writes NaN where a row has none."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))
