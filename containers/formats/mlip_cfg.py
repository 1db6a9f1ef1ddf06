"""MLIP's configuration files (`BEGIN_CFG` ... `END_CFG`, moment tensor potentials), read in turns.

The format (MLIP's own writer and reader, mlip-2 and mlip-3): `Size`, up to three vectors under `Supercell` (as many
as there are periodic directions), `AtomData:` with named columns, of which `id type cartes_x cartes_y cartes_z` (or
`direct_x ...`, in units of the cell) and `fx fy fz` are read, `Energy` in eV, `PlusStress:` in eV: minus the cell's
volume times the stress of ASE's sign. A type is a number from 0. Which element it is the format does not say: here a
line `Feature   elements Ge Si` tells it, as our own writer does, or the user.

Labelled structures in MLIP's configuration format, with every digit; see `mlip_cfg` for the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, too_many
from containers.structures.state import state_values
from containers.structures.table import flat, list_lengths, with_state

BEGIN, END = "BEGIN_CFG", "END_CFG"
CARTESIAN = ("cartes_x", "cartes_y", "cartes_z")
DIRECT = ("direct_x", "direct_y", "direct_z")
FORCES = ("fx", "fy", "fz")
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
OTHER_STRESSES = ("stress:", "virial:")  # of old versions, which differ in sign and unit: not read
ELEMENTS, CELL, PBC = "elements", "cell", "pbc"
"""Features of ours: the elements of the types; cell and periodic directions where `Supercell` cannot hold them."""


def is_mlip(lines: Lines) -> bool:
    """Whether the text begins as MLIP's; AtomEye's files of the same ending begin otherwise."""
    while (line := lines.peek()) is not None and not line.strip():
        lines.take()
    return line is not None and line.strip().startswith(BEGIN)


def mlip_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """Every configuration; `elements` are those of types 0, 1, ... where the file does not say.

    Info has the features; energy (eV), forces (eV/Å) and stress (eV/Å³, ASE sign) are a calculator's results.

    Raises:
        BadInput: a broken configuration; names file, frame and line.
    """
    row = 0
    while (line := lines.take()) is not None:
        if line.strip() == BEGIN:
            yield _Configuration(lines, f"{name}: frame {row} (from 0)").atoms(elements)
            row += 1
        elif line.strip():
            raise BadInput(f"{name}: line {lines.number} should be {BEGIN} but is {line.strip()[:60]!r}")


class _Configuration:
    """One configuration as it stands in the file, after its first line."""

    def __init__(self, lines: Lines, place: str) -> None:
        self._lines, self._place = lines, place
        self._start = lines.number
        self._size: int | None = None
        self._vectors: list[list[float]] = []
        self._columns: list[str] = []
        self._data: Floats | None = None
        self._results: dict[str, Any] = {}
        self._virial: list[float] | None = None
        self._features: dict[str, str] = {}
        while (line := self._line()) != END:
            self._read(line)

    def _line(self) -> str:
        line = self._lines.take()
        if line is None or line.strip() == BEGIN:
            raise BadInput(f"{self._place}, from line {self._start}: there is no {END}; the file was cut off")
        return line.strip()

    def _fail(self, what: str) -> NoReturn:
        raise BadInput(f"{self._place}, line {self._lines.number}: {what}; correct or remove the configuration")

    def _read(self, line: str) -> None:
        """One section, by its first word."""
        words = line.split()
        match words[0].lower() if words else "":
            case "":
                return
            case "size":
                self._size = self._count(self._line())
            case "supercell":
                self._read_supercell()
            case "atomdata:":
                self._read_atoms(words[1:])
            case "energy":
                self._results["energy"] = self._numbers(self._line(), 1)[0]
            case "plusstress:":
                self._read_stress(words[1:])
            case "feature":
                key, value = (*line.split(None, 2)[1:], "", "")[:2]
                self._features[key] = value
            case other if other in OTHER_STRESSES:
                self._line()
            case _:
                self._fail(f"{line[:60]!r} begins no section of a configuration")

    def _count(self, text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or int(text) == 0:
            self._fail(f"the size should be a number of atoms but is {text[:60]!r}")
        if int(text) > MOST_ATOMS:
            self._fail(too_many(int(text)))
        return int(text)

    def _numbers(self, line: str, count: int) -> list[float]:
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError as error:
            self._fail(str(error))
        if len(numbers) != count:
            self._fail(f"{count} numbers should be here, there are {len(numbers)}: {line[:60]!r}")
        return numbers

    def _read_supercell(self) -> None:
        while (line := self._lines.peek()) is not None and line.strip()[:1] in tuple("+-.0123456789nNiI"):
            self._vectors.append(self._numbers(self._line(), 3))
        if len(self._vectors) > 3:
            self._fail(f"Supercell has {len(self._vectors)} vectors instead of up to 3")

    def _read_atoms(self, columns: list[str]) -> None:
        if self._size is None:
            self._fail("AtomData comes before Size")
        self._columns = columns
        block = self._lines.take_some(self._size)
        words = [line.split() for line in block]
        wrong = [row for row, found in enumerate(words) if len(found) != len(columns)]
        if wrong or len(block) < self._size:
            row = wrong[0] if wrong else len(block)
            shown = f": {block[row].strip()[:60]!r}" if wrong else ""
            self._fail(f"atom {row} (from 0) of {self._size} has not the {len(columns)} columns of AtomData{shown}")
        try:
            self._data = np.array(words, dtype=float)
        except ValueError as error:
            self._fail(str(error))

    def _read_stress(self, names: list[str]) -> None:
        if sorted(names) != sorted(VOIGT):
            self._fail(f"PlusStress should name {' '.join(VOIGT)}, it names {' '.join(names)}")
        values = dict(zip(names, self._numbers(self._line(), 6), strict=True))
        self._virial = [values[name] for name in VOIGT]

    def atoms(self, elements: Sequence[str]) -> Atoms:
        """The structure of ASE."""
        if self._data is None:
            raise BadInput(f"{self._place}, from line {self._start}: there is no AtomData")
        cell, pbc = self._cell()
        numbers = self._elements(elements)
        atoms = Atoms(numbers=numbers, positions=self._positions(cell), cell=cell, pbc=pbc)
        atoms.info = {key: value for key, value in self._features.items() if key not in (ELEMENTS, CELL, PBC)}
        if set(FORCES) <= set(self._columns):
            self._results["forces"] = self._xyz(FORCES)
        if self._virial is not None and all(pbc):
            self._results["stress"] = -np.array(self._virial) / atoms.get_volume()
        atoms.calc = SinglePointCalculator(atoms, **self._results)
        return atoms

    def _cell(self) -> tuple[Floats, list[bool]]:
        cell = np.zeros((3, 3))
        cell[: len(self._vectors)] = np.reshape(self._vectors, (-1, 3))
        pbc = [number < len(self._vectors) for number in range(3)]
        if CELL in self._features:
            cell = np.reshape(self._numbers(self._features[CELL], 9), (3, 3))
        if PBC in self._features:
            pbc = [word == "T" for word in self._features[PBC].split()]
            if len(pbc) != 3:
                self._fail(f"the feature {PBC} should be three of T and F, it is {self._features[PBC][:60]!r}")
        return cell, pbc

    def _xyz(self, names: Sequence[str]) -> Floats:
        assert self._data is not None
        return self._data[:, [self._columns.index(name) for name in names]].copy()

    def _positions(self, cell: Floats) -> Floats:
        if set(CARTESIAN) <= set(self._columns):
            return self._xyz(CARTESIAN)
        if set(DIRECT) <= set(self._columns):
            return self._xyz(DIRECT) @ cell
        return self._fail(f"AtomData has neither cartes_x ... nor direct_x ...: {' '.join(self._columns)}")

    def _elements(self, given: Sequence[str]) -> Indices:
        """Atomic numbers (N,); what the file says goes before what the user says."""
        if "type" not in self._columns:
            self._fail("AtomData has no column `type`")
        types = self._xyz(["type"])[:, 0]
        symbols = self._features[ELEMENTS].split() if ELEMENTS in self._features else list(given)
        if not symbols:
            self._fail(
                "the file does not say which elements the types are; set dataset.type_elements (element of the first"
                f" type, of the second, ...), or add a line `Feature   {ELEMENTS} ...` to each configuration"
            )
        if unknown := [symbol for symbol in symbols if symbol not in atomic_numbers or symbol == "X"]:
            self._fail(f"unknown element {unknown[0]!r} among those of the types")
        wrong = ~((types >= 0) & (types < len(symbols)) & (types == np.floor(types)))
        if wrong.any():
            row = int(np.argmax(wrong))
            self._fail(
                f"atom {row} (from 0) of {len(types)} has type {types[row]:g}; known are 0.. ({' '.join(symbols)})"
            )
        return np.array([atomic_numbers[symbol] for symbol in symbols])[types.astype(int)]


AT_ONCE = 500  # configurations; of 100 atoms some 10 MB of text
COLUMNS = ("id", "energy", "stress", "cell", "pbc", "state")


def element_order(numbers: Iterable[int]) -> tuple[int, ...]:
    """Atomic numbers, each once, sorted by symbol: the elements of types 0, 1, ..."""
    return tuple(sorted(set(numbers), key=lambda number: chemical_symbols[number]))


def write_configurations(file: BinaryIO, labels: pa.Table, elements: Sequence[int]) -> None:
    """Append a table of LABELS. Energy in eV, forces in eV/Å, PlusStress in eV (minus volume times stress).

    Args:
        file: open for writing.
        labels: rows of LABELS; a committee's deviations have no place in the format.
        elements: atomic numbers of types 0, 1, ...: one order for the whole file, written into every configuration.
    """
    for start in range(0, labels.num_rows, AT_ONCE):
        file.writelines(text.encode("ascii") for text in _configurations(labels.slice(start, AT_ONCE), elements))


def _configurations(labels: pa.Table, elements: Sequence[int]) -> Iterator[str]:
    symbols = " ".join(chemical_symbols[number] for number in elements)
    counts = list_lengths(labels["numbers"]).tolist()
    rows = with_state(labels).select(list(COLUMNS)).to_pylist()
    for count, row, atoms in zip(counts, rows, _atom_lines(labels, elements), strict=True):
        yield (
            f"{BEGIN}\n Size\n    {count}\n{_supercell(row)} AtomData:  id type {' '.join((*CARTESIAN, *FORCES))}\n"
            f"{atoms}\n Energy\n    {row['energy']!r}\n{_stress(row)}"
            f" Feature   {ELEMENTS} {symbols}\n Feature   id {row['id']}\n{_state(row)}{_apart(row)}{END}\n\n"
        )


def _atom_lines(labels: pa.Table, elements: Sequence[int]) -> list[str]:
    """The lines of the atoms of each row, joined."""
    counts = list_lengths(labels["numbers"])
    types = np.zeros(max(elements) + 1, dtype=np.int64)
    types[list(elements)] = np.arange(len(elements))
    ends = np.cumsum([0, *counts], dtype=np.int32)
    places = np.arange(ends[-1]) - np.repeat(ends[:-1], counts) + 1
    words = [pa.array(places).cast(pa.string()), pa.array(types[flat(labels["numbers"])]).cast(pa.string())]
    for column in ("positions", "forces"):
        xyz = flat(labels[column]).reshape(-1, 3)
        words += [pa.array(xyz[:, axis]).cast(pa.string()) for axis in range(3)]
    lines = pc.binary_join_element_wise(*words, " ")
    return pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n").to_pylist()


def _supercell(row: dict[str, Any]) -> str:
    """The periodic vectors only: MLIP takes every vector there as periodic."""
    vectors = [row["cell"][3 * axis : 3 * axis + 3] for axis in range(3) if row["pbc"][axis]]
    lines = "".join(f"    {_numbers(vector)}\n" for vector in vectors)
    return f" Supercell\n{lines}" if lines else ""


def _state(row: dict[str, Any]) -> str:
    return "".join(f" Feature   {name} {value:g}\n" for name, value in state_values(row["state"]).items())


def _apart(row: dict[str, Any]) -> str:
    """What Supercell cannot tell of a structure that is not periodic in all three directions."""
    if all(row["pbc"]):
        return ""
    flags = " ".join("T" if flag else "F" for flag in row["pbc"])
    return f" Feature   {PBC} {flags}\n Feature   {CELL} {_numbers(row['cell'])}\n"


def _stress(row: dict[str, Any]) -> str:
    if row["stress"] is None:
        return ""
    volume = abs(float(np.linalg.det(np.reshape(row["cell"], (3, 3)))))
    virial = (-volume * np.array(row["stress"])).tolist()
    return f" PlusStress:  {' '.join(VOIGT)}\n    {_numbers(virial)}\n"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))
