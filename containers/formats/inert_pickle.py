"""Pickles from outside, read without running anything that is in them.

A pickle is a program: it names classes and functions, and the reader imports and calls them. Here no name is imported.
The few that a table of structures needs (a closed list) stand for records that only keep what they are given; every
other name ends the reading. So not even an admitted class runs code of its own, and the versions of pandas, numpy and
ASE that wrote the file need not be those that are installed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np

from containers.contract import BadInput


class Record:
    """What stands for an object of an admitted class, or the answer of an admitted function: never itself called.

    Attributes:
        name: of the class or function.
        arguments: with which it would have been called.
        state: what it would have been given to restore itself.
    """

    name = ""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Record:
        """Pickles call a class, or only its `__new__`."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of a class that is a dictionary; nobody asks for them."""

    def attributes(self) -> dict[str, Any]:
        """The state as attributes by name; empty when it is no such thing."""
        state = self.state[0] if isinstance(self.state, tuple) and len(self.state) == 2 else self.state
        return state if isinstance(state, dict) else {}


class Damaged(Exception):
    """The pickle holds something else than its names say."""


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
"""Module -> names of it. None of them is imported; to find a name here gives a class of records."""

_RECORDS: dict[tuple[str, str], type[Record]] = {
    (module, name): type(f"Record of {name}", (Record,), {"name": name})
    for module, names in ADMITTED.items()
    for name in names
}


KEEPS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
"""Instructions that keep an object for later; picklers number them one after the other."""


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO, place: str) -> None:
        super().__init__(file)
        self._place = place

    def find_class(self, module: str, name: str) -> type[Record]:
        if record := _RECORDS.get((module, name)):
            return record
        raise BadInput(
            f"{self._place}: the pickle names {module[:60]}.{name[:60]}, which no table of structures needs; nothing of"
            " it was run. Write only structures, numbers and text, or use extended XYZ or Parquet"
        )

    def persistent_load(self, identity: Any) -> NoReturn:
        raise Damaged("refers to objects outside of it")


def read_inert(file: BinaryIO, place: str) -> Any:
    """The content of a pickle, objects as records.

    Raises:
        BadInput: a name that is not admitted; the message has `place` and the name.
        Exception: what a damaged pickle makes the reader raise.
    """
    content = file.read()
    _check_claims(content)
    return _Reader(io.BytesIO(content), place).load()


def _check_claims(content: bytes) -> None:
    """Raise `Damaged`, or what `pickletools` raises, where the reader would ask for memory that the file does not fill.

    It makes room for every number up to the one that an object is kept under: a single wrong byte asks for gigabytes.
    """
    kept = 0
    for code, argument, _ in pickletools.genops(content):
        if code.name in KEEPS:
            if argument is not None and argument > kept:
                raise Damaged(f"keeps object {kept} as number {argument}")
            kept += 1
        elif code.name == "FRAME" and argument is not None and argument > len(content):
            raise Damaged(f"claims a part of {argument:,} bytes")


def restored(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Arrays, numbers and bytes out of their records; lists and dicts of them; other records as they are.

    What the pickle has once, though many lists hold it, stays once (`seen`): nothing grows, not even in a ring.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, list):
        items: list[Any] = seen.setdefault(id(value), [])
        items += [restored(item, seen) for item in value]
        return items
    if isinstance(value, dict):
        pairs: dict[Any, Any] = seen.setdefault(id(value), {})
        pairs |= {key: restored(item, seen) for key, item in value.items()}
        return pairs
    return _of_record(value) if isinstance(value, Record) else value


def _of_record(value: Record) -> Any:
    match value.name:
        case "_reconstruct" | "ndarray" | "_frombuffer":
            return _array(value)
        case "scalar":
            dtype, data = value.arguments
            return np.frombuffer(_bytes(data), _dtype(dtype))[0].item()
        case "encode" | "bytearray":
            return _bytes(value)
        case _:
            return value


def _array(record: Record) -> Any:
    """An array of numbers or text, or of objects, of which records stay records."""
    if record.name == "_frombuffer":
        buffer, kind, shape, order = record.arguments
        return np.frombuffer(_bytes(buffer), _dtype(kind)).reshape(shape, order=order).copy()
    _, shape, kind, fortran, data = record.state
    dtype = _dtype(kind)
    plain = dtype.kind != "O"
    values = np.frombuffer(_bytes(data), dtype) if plain else np.fromiter(data, dtype=object, count=len(data))
    return values.reshape(shape, order="F" if fortran else "C").copy()


def _bytes(value: Any) -> bytes:
    """Bytes as they are, or as older protocols wrote them."""
    if isinstance(value, Record) and value.name == "encode" and value.arguments[1:] == ("latin1",):
        return str(value.arguments[0]).encode("latin1")
    if isinstance(value, Record) and value.name == "bytearray":
        return _bytes(value.arguments[0])
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise Damaged("bytes are of no known kind")


PLAIN = ("b", "i", "u", "f", "S", "U")


def _dtype(record: Any) -> np.dtype[Any]:
    """The dtype of a record: numbers, text and objects; nothing with fields."""
    if not isinstance(record, Record) or record.name != "dtype" or not record.arguments:
        raise Damaged("an array has no dtype")
    word = str(record.arguments[0])
    if word.startswith("O"):
        return np.dtype(object)
    order = str(record.state[1]) if isinstance(record.state, Sequence) and len(record.state) > 1 else "|"
    if word[:1] not in PLAIN or order not in "<>|=":
        raise Damaged(f"arrays of dtype {word[:20]!r} are not read")
    return np.dtype(f"{order}{word}")
