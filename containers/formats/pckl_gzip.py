"""Pacemaker's own tables of structures (`.pckl.gzip`: a gzipped pickle of a pandas DataFrame), read as records.

A pickle is a program: it names classes and functions, and the reader imports and calls them. Here no name is imported,
and neither pandas nor ASE unpickles anything. The few names that a table of structures needs (a closed list) stand for
records that only keep what they are given; every other name ends the reading. So not even an admitted class runs code
of its own, and the versions that wrote the file need not be those that are installed: layouts of pandas 1.3 to 2,
numpy 1 and 2, and ASE from 3.18 are understood.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from containers.contract import BadInput

STRUCTURES = "ase_atoms"
LABELS = ("energy", "forces", "stress")
TOTAL_FORCES = "forces_total"
"""In frames of ours: the label, where `forces` lacks what a reference potential gives."""
TO_INFO = ("name", "group", "family", "energy_corrected", "REF_energy", "REF_forces", "REF_stress")
PLAIN = ("b", "i", "u", "f", "S", "U")  # kinds of arrays: numbers and text
KEEPS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
"""Instructions that keep an object for later; picklers number them one after the other."""


class Record:
    """An object of an admitted class, or the result of an admitted function, neither of which was called.

    Attributes:
        name: of the class or function.
        arguments: with which it would have been called.
        state: what it would have been given to restore itself.
    """

    name = ""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Record:
        """Make a record: pickles call a class, or only its `__new__`."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a class that is a dictionary: none is needed."""

    def attributes(self) -> dict[str, Any]:
        """Return the state as attributes by name; empty when it is no such thing."""
        state = self.state[0] if isinstance(self.state, tuple) and len(self.state) == 2 else self.state
        return state if isinstance(state, dict) else {}


class Damaged(Exception):
    """The pickle holds something else than its names say."""


BROKEN = (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError, Damaged)
"""Errors that records of another shape than expected end in."""

ADMITTED: dict[str, tuple[str, ...]] = {
    "ase.atoms": ("Atoms",),
    "ase.cell": ("Cell",),
    "ase.calculators.calculator": ("Parameters",),
    "ase.calculators.singlepoint": ("SinglePointCalculator", "SinglePointDFTCalculator", "SinglePointKPoint"),
    "ase.constraints": ("FixAtoms", "FixCartesian", "FixScaled", "FixedLine", "FixedPlane", "FixBondLengths"),
    "ase.constraints.fix_atoms": ("FixAtoms",),
    "ase.constraints.fix_cartesian": ("FixCartesian",),
    "ase.constraints.fix_scaled": ("FixScaled",),
    "ase.constraints.fixed_line": ("FixedLine",),
    "ase.constraints.fixed_plane": ("FixedPlane",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "pandas._libs.internals": ("_unpickle_block",),
    "pandas.core.frame": ("DataFrame",),
    "pandas.core.indexes.base": ("Index", "_new_Index"),
    "pandas.core.indexes.numeric": ("Int64Index", "Float64Index", "UInt64Index"),  # pandas 1
    "pandas.core.indexes.range": ("RangeIndex",),
    "pandas.core.internals.blocks": ("new_block",),
    "pandas.core.internals.managers": ("BlockManager",),
    "builtins": ("slice", "bytearray", "getattr"),  # getattr: of a calculator's own method, kept as a record
    "__builtin__": ("slice", "bytearray", "getattr"),
    "_codecs": ("encode",),
}
"""Module -> names of it. None of them is imported: each name stands for a class of records."""

_RECORDS: dict[tuple[str, str], type[Record]] = {
    (module, name): type(f"Record of {name}", (Record,), {"name": name})
    for module, names in ADMITTED.items()
    for name in names
}


class _Reader(pickle.Unpickler):
    place = ""

    def find_class(self, module: str, name: str) -> type[Record]:
        if record := _RECORDS.get((module, name)):
            return record
        raise BadInput(
            f"{self.place}: the pickle names {module[:60]}.{name[:60]}, which no table of structures needs; nothing of"
            " it was run. Write only structures, numbers and text, or use extended XYZ or Parquet"
        )

    def persistent_load(self, identity: Any) -> NoReturn:
        raise Damaged("refers to objects outside of it")


def frame_rows(path: Path, name: str) -> Iterator[Atoms]:
    """Read every structure of an unpacked table, in its order.

    The columns `energy` (eV, total), `forces` (eV/Å; `forces_total` where that is there) and `stress`, or else the
    structure's own calculator, become results of a calculator; TO_INFO goes to info. A structure with held atoms
    (`FixAtoms` and others) gets an empty `FixAtoms`.

    Args:
        path: the pickle, decompressed.
        name: the user's name of the file, for messages.

    Raises:
        BadInput: no table of structures, or a row without one; names the file and the row.
    """
    try:
        frame = read_inert(path.read_bytes(), name)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # a damaged pickle raises what it likes
        raise BadInput(
            f"{name}: not a readable pickle ({type(error).__name__}: {error}); the file may be damaged or cut off"
        ) from error
    if not isinstance(frame, Record) or frame.name != "DataFrame":
        raise BadInput(
            f"{name}: the pickle holds no pandas DataFrame but a {getattr(frame, 'name', type(frame).__name__)}"
        )
    try:
        columns = _columns(frame)
    except BROKEN as error:
        raise BadInput(
            f"{name}: the table is of a layout that is not read ({type(error).__name__}: {error}); write it with pandas"
            " 1.3 to 2, or use extended XYZ or Parquet"
        ) from error
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


def read_inert(content: bytes, place: str) -> Any:
    """Return the content of a pickle, objects as records.

    A reader makes room for every number up to the one that an object is kept under: a single wrong byte would take
    gigabytes. So the claims of the pickle are compared with its size first.

    Raises:
        BadInput: a name that is not admitted; the message has `place` and the name.
        Exception: what a damaged pickle makes the reader raise.
    """
    kept = 0
    for code, argument, _ in pickletools.genops(content):
        if code.name in KEEPS:
            if argument is not None and argument > kept:
                raise Damaged(f"keeps object {kept} as number {argument}")
            kept += 1
        elif code.name == "FRAME" and argument is not None and argument > len(content):
            raise Damaged(f"claims a part of {argument:,} bytes")
    reader = _Reader(io.BytesIO(content))
    reader.place = place
    return reader.load()


def _columns(frame: Record) -> dict[Any, list[Any]]:
    """Return the table by columns."""
    manager = frame.attributes().get("_mgr") or frame.attributes()["_data"]
    if manager.arguments:
        blocks, (titles, _) = manager.arguments
        blocks = [block.arguments[:2] for block in blocks]
    else:
        state = manager.state[3]["0.14.1"]  # the layout of pandas before 1.3, which later ones kept for a while
        blocks, (titles, _) = [(block["values"], block["mgr_locs"]) for block in state["blocks"]], state["axes"]
    index = titles.arguments[1] if titles.name == "_new_Index" else titles.attributes()
    if "data" in index:
        names: Sequence[Any] = list(restore(index["data"]))
    else:  # ranges stay ranges, for they may claim to be long
        names = range(index["start"], index["stop"], index["step"])
    columns: dict[Any, list[Any]] = {}
    for values, where in blocks:
        if isinstance(where, Record) and where.name == "slice":
            start, stop, step = where.arguments
            places: Sequence[int] = range(start, stop, step or 1)
        else:
            places = [int(place) for place in restore(where)]
        for place, column in zip(places, restore(values), strict=True):
            if names[place] in columns:
                raise Damaged(f"two columns are called {names[place]}")
            columns[names[place]] = list(column)
    return columns


def _atoms(record: Any, others: Mapping[str, Any]) -> Atoms:
    """Return the structure of a record, with the row's labels or else those of its own calculator."""
    if not isinstance(record, Record) or record.name != "Atoms":
        raise TypeError(f"not a structure but {getattr(record, 'name', type(record).__name__)}")
    state = record.attributes()
    arrays = {key: restore(value) for key, value in state["arrays"].items()}
    numbers, positions = np.asarray(arrays.pop("numbers")), np.asarray(arrays.pop("positions"), dtype=float)
    cell = state.get("_cellobj", state.get("_cell"))
    if isinstance(cell, Record) and cell.name == "Cell":
        cell = cell.attributes()["array"]
    pbc = restore(state.get("_pbc", state.get("pbc")))
    atoms = Atoms(numbers=numbers, positions=positions, cell=np.asarray(restore(cell), dtype=float), pbc=pbc)
    atoms.arrays.update(
        {key: value for key, value in arrays.items() if isinstance(value, np.ndarray) and value.dtype != object}
    )
    atoms.info = {key: restore(value) for key, value in state.get("info", {}).items() if isinstance(key, str)}
    for key in TO_INFO:
        value = others.get(key)
        if value is not None and not (isinstance(value, float) and np.isnan(value)):  # pandas writes NaN for no value
            atoms.info[key] = restore(value)
    calculator = state.get("_calc", state.get("calc"))
    own = restore(calculator.attributes().get("results", {})) if isinstance(calculator, Record) else {}
    results = {key: own[key] for key in LABELS if own.get(key) is not None}
    results |= {key: restore(others[key]) for key in LABELS if others.get(key) is not None}
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    if state.get("_constraints") or state.get("constraints"):
        atoms.set_constraint(FixAtoms(indices=[]))  # says that there are some; which ones does not matter
    return atoms


def restore(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return arrays, numbers and bytes out of their records; lists and dicts of them; other records as they are.

    What the pickle has once, though many lists hold it, stays once (`seen`): nothing grows, not even in a ring.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, list):
        items: list[Any] = seen.setdefault(id(value), [])
        items += [restore(item, seen) for item in value]
        return items
    if isinstance(value, dict):
        pairs: dict[Any, Any] = seen.setdefault(id(value), {})
        pairs |= {key: restore(item, seen) for key, item in value.items()}
        return pairs
    match value.name if isinstance(value, Record) else "":
        case "_reconstruct" | "ndarray":  # of numbers or text, or of objects, of which records stay records
            _, shape, kind, fortran, data = value.state
            dtype = _dtype(kind)
            plain = dtype.kind != "O"
            values = np.frombuffer(_bytes(data), dtype) if plain else np.fromiter(data, dtype=object, count=len(data))
            return values.reshape(shape, order="F" if fortran else "C").copy()
        case "_frombuffer":
            buffer, kind, shape, order = value.arguments
            return np.frombuffer(_bytes(buffer), _dtype(kind)).reshape(shape, order=order).copy()
        case "scalar":
            kind, data = value.arguments
            return np.frombuffer(_bytes(data), _dtype(kind))[0].item()
        case "encode" | "bytearray":
            return _bytes(value)
        case _:
            return value


def _bytes(value: Any) -> bytes:
    """Return bytes as they are, or as older protocols wrote them."""
    if isinstance(value, Record) and value.name == "encode" and value.arguments[1:] == ("latin1",):
        return str(value.arguments[0]).encode("latin1")
    if isinstance(value, Record) and value.name == "bytearray":
        return _bytes(value.arguments[0])
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise Damaged("bytes are of no known kind")


def _dtype(record: Any) -> np.dtype[Any]:
    """Return the dtype of a record: numbers, text and objects; nothing with fields."""
    if not isinstance(record, Record) or record.name != "dtype" or not record.arguments:
        raise Damaged("an array has no dtype")
    word = str(record.arguments[0])
    if word.startswith("O"):
        return np.dtype(object)
    order = str(record.state[1]) if isinstance(record.state, Sequence) and len(record.state) > 1 else "|"
    if word[:1] not in PLAIN or order not in "<>|=":
        raise Damaged(f"arrays of dtype {word[:20]!r} are not read")
    return np.dtype(f"{order}{word}")
