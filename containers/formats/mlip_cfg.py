"""MLIP's configuration files (`BEGIN_CFG` ... `END_CFG`, moment tensor potentials), read in turns and written exactly.

The format (MLIP's own writer and reader, mlip-2 and mlip-3): `Size`, up to three vectors under `Supercell` (as many
as there are periodic directions), `AtomData:` with named columns, of which `id type cartes_x cartes_y cartes_z` (or
`direct_x ...`, in units of the cell) and `fx fy fz` are read, `Energy` in eV, `PlusStress:` in eV: minus the cell's
volume times the stress of ASE's sign. A type is a number from 0. The format does not say which element it is: a line
`Feature   elements Ge Si` does, which our own writer adds, or the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, atom_lines, exact, too_many
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
    """Return True if the text begins as MLIP's; AtomEye's files of the same ending begin otherwise."""
    while (line := lines.peek()) is not None and not line.strip():
        lines.take()
    return line is not None and line.strip().startswith(BEGIN)


def mlip_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """Read every configuration; `elements` are those of types 0, 1, ... where the file does not say.

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
        self._lines, self._place, self._start = lines, place, lines.number
        self._size = 0
        self._vectors: list[list[float]] = []
        self._columns: list[str] = []
        self._data: Floats | None = None
        self._results: dict[str, Any] = {}
        self._virial: Floats | None = None
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

    def _numbers(self, line: str, count: int) -> list[float]:
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError as error:
            self._fail(str(error))
        if len(numbers) != count:
            self._fail(f"{count} numbers should be here, there are {len(numbers)}: {line[:60]!r}")
        return numbers

    def _read(self, line: str) -> None:
        """Read one section, by its first word."""
        words = line.split()
        match words[0].lower() if words else "":
            case "":
                return
            case "size":
                text = self._line()
                if not text.isdecimal() or len(text) > 18 or int(text) == 0:
                    self._fail(f"the size should be a number of atoms but is {text[:60]!r}")
                if int(text) > MOST_ATOMS:
                    self._fail(too_many(int(text)))
                self._size = int(text)
            case "supercell":
                while (more := self._lines.peek()) is not None and more.strip()[:1] in tuple("+-.0123456789nNiI"):
                    self._vectors.append(self._numbers(self._line(), 3))
                if len(self._vectors) > 3:
                    self._fail(f"Supercell has {len(self._vectors)} vectors instead of up to 3")
            case "atomdata:":
                self._read_atoms(words[1:])
            case "energy":
                self._results["energy"] = self._numbers(self._line(), 1)[0]
            case "plusstress:":
                if sorted(names := words[1:]) != sorted(VOIGT):
                    self._fail(f"PlusStress should name {' '.join(VOIGT)}, it names {' '.join(names)}")
                values = self._numbers(self._line(), 6)
                self._virial = np.array([values[names.index(name)] for name in VOIGT])
            case "feature":
                key, value = (*line.split(None, 2)[1:], "", "")[:2]
                self._features[key] = value
            case other if other in OTHER_STRESSES:
                self._line()
            case _:
                self._fail(f"{line[:60]!r} begins no section of a configuration")

    def _read_atoms(self, columns: list[str]) -> None:
        if not self._size:
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

    def atoms(self, elements: Sequence[str]) -> Atoms:
        """Return the structure; the file's own elements of the types go before `elements`."""
        if (data := self._data) is None:
            raise BadInput(f"{self._place}, from line {self._start}: there is no AtomData")

        def columns(names: Sequence[str]) -> Floats:
            return data[:, [self._columns.index(name) for name in names]].copy()

        cell = np.zeros((3, 3))
        cell[: len(self._vectors)] = np.reshape(self._vectors, (-1, 3))
        pbc = [number < len(self._vectors) for number in range(3)]
        if CELL in self._features:
            cell = np.reshape(self._numbers(self._features[CELL], 9), (3, 3))
        if PBC in self._features:
            pbc = [word == "T" for word in self._features[PBC].split()]
            if len(pbc) != 3:
                self._fail(f"the feature {PBC} should be three of T and F, it is {self._features[PBC][:60]!r}")
        if "type" not in self._columns:
            self._fail("AtomData has no column `type`")
        numbers = self._elements(columns(["type"])[:, 0], elements)
        if set(CARTESIAN) <= set(self._columns):
            positions = columns(CARTESIAN)
        elif set(DIRECT) <= set(self._columns):
            positions = columns(DIRECT) @ cell
        else:
            self._fail(f"AtomData has neither cartes_x ... nor direct_x ...: {' '.join(self._columns)}")
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)
        atoms.info = {key: value for key, value in self._features.items() if key not in (ELEMENTS, CELL, PBC)}
        if set(FORCES) <= set(self._columns):
            self._results["forces"] = columns(FORCES)
        if self._virial is not None and all(pbc):
            self._results["stress"] = -self._virial / atoms.get_volume()
        atoms.calc = SinglePointCalculator(atoms, **self._results)
        return atoms

    def _elements(self, types: Floats, given: Sequence[str]) -> Indices:
        """Return the atomic numbers (N,) of the types."""
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
    """Return atomic numbers, each once, sorted by symbol: the elements of types 0, 1, ..."""
    return tuple(sorted(set(numbers), key=lambda number: chemical_symbols[number]))


def write_configurations(file: BinaryIO, labels: pa.Table, elements: Sequence[int]) -> None:
    """Append a table of LABELS. Energy in eV, forces in eV/Å, PlusStress in eV (minus volume times stress).

    Args:
        file: open for writing.
        labels: rows of LABELS; a committee's deviations have no place in the format.
        elements: atomic numbers of types 0, 1, ...: one order for the whole file, written into every configuration.
    """
    types = np.zeros(max(elements, default=0) + 1, dtype=np.int64)
    types[list(elements)] = np.arange(len(elements))
    symbols = " ".join(chemical_symbols[number] for number in elements)
    for start in range(0, labels.num_rows, AT_ONCE):
        piece = labels.slice(start, AT_ONCE)
        counts = list_lengths(piece["numbers"])
        places = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + 1
        first = [pa.array(column).cast(pa.string()) for column in (places, types[flat(piece["numbers"])])]
        lines = atom_lines(piece, first, ("positions", "forces"))
        rows = with_state(piece).select(list(COLUMNS)).to_pylist()
        for count, row, atoms in zip(counts.tolist(), rows, lines, strict=True):
            file.write(_configuration(row, count, atoms, symbols).encode("ascii"))


def _configuration(row: dict[str, Any], count: int, atoms: str, symbols: str) -> str:
    cell, pbc = np.reshape(row["cell"], (3, 3)), row["pbc"]
    text = f"{BEGIN}\n Size\n    {count}\n"
    if any(pbc):  # MLIP takes every vector there as periodic
        text += " Supercell\n" + "".join(f"    {exact(vector)}\n" for vector in cell[pbc].tolist())
    text += f" AtomData:  id type {' '.join((*CARTESIAN, *FORCES))}\n{atoms}\n Energy\n    {row['energy']!r}\n"
    if row["stress"] is not None:
        virial = -abs(float(np.linalg.det(cell))) * np.array(row["stress"])
        text += f" PlusStress:  {' '.join(VOIGT)}\n    {exact(virial.tolist())}\n"
    text += f" Feature   {ELEMENTS} {symbols}\n Feature   id {row['id']}\n"
    text += "".join(f" Feature   {name} {value:g}\n" for name, value in state_values(row["state"]).items())
    if not all(pbc):  # what Supercell cannot hold
        flags = " ".join("T" if flag else "F" for flag in pbc)
        text += f" Feature   {PBC} {flags}\n Feature   {CELL} {exact(row['cell'])}\n"
    return f"{text}{END}\n\n"
