"""Extended XYZ, read frame by frame and written with every digit.

Where a frame begins and ends is found here, so that a broken frame can be named and memory stays small; ASE reads its
content. ASE's own reader stops without a word at an empty line, and its errors do not say which frame is meant.

ASE knows `Lattice`, `Properties` and `pbc` in this spelling alone and takes a crystal with `lattice=` for a molecule.
GPUMD and NEP write small letters, and others say `cell=`: here each is understood, or refused.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_str_to_dict, read_xyz
from ase.stress import voigt_6_to_full_3x3_stress

from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, atom_lines, exact, too_many
from containers.structures.table import flat, list_lengths

PLAIN_COLUMNS = 4  # symbol, x, y, z
MOST_EMPTY_LINES = 10_000  # one after the other
MOST_DIGITS = 18  # of an atom count; Python reads no number of very many
LATTICE, PROPERTIES, PBC = "Lattice", "Properties", "pbc"
SPELLED = {name.lower(): name for name in (LATTICE, PROPERTIES, PBC)}
CELLS = ("cell", "box", "unit_cell", "unitcell", "cell_vectors", "lattice_vectors", "latt", "lat")
"""Keys by which others give a cell. Without `Lattice` they would be passed over."""
ANY_CASE = (*SPELLED, "energy", "stress", "virial")
"""Keys that may come once, whatever their spelling is; others once in one spelling."""
QUOTED = re.compile(
    "|".join(
        [
            r"\\.?",
            *(rf"{a}(?:[^{b}\\]|\\.)*(?:{b}|\\?\Z)" for a, b in (('"', '"'), ("'", "'"), (r"\{", "}"), (r"\[", r"\]"))),
        ]
    ),
    re.DOTALL,
)
"""Quoted text as ASE reads it; without an end it goes to the end of the line, so that no part is searched twice."""
STRESSES = re.compile(r"(?<!\S)(?:stress|virial)(?=\s*=)")
MARK = "\0"  # behind `stress` and `virial`: ASE reads nine numbers alone under these names, and does not compare sides
OF_IPI = re.compile(r"\bCELL[({]")
WRITE_LATTICE = 'a cell is written as Lattice="ax ay az bx by bz cx cy cz" (Å)'
FLAGS = {"t": True, "true": True, ".true.": True, "1": True, "f": False, "false": False, ".false.": False, "0": False}
COLUMNS = ("species", "symbols", "pos", "positions")
"""Names of columns that are known in any spelling."""
ALSO_NUMBERS = "_numbers"  # of a column Z beside the symbols
NUMBERS = (
    "numbers may be atomic numbers or another program's types: write symbols, or name a column of atomic numbers Z"
    " (Properties=Z:I:1:...)"
)


def xyz_frames(lines: Lines, name: str) -> Iterator[Atoms]:
    """Read every frame of an XYZ or extended XYZ text; raise `BadInput` with `name`, frame and line.

    Empty lines between frames are passed over. A frame of zero atoms, or of too many, is an error.
    """
    row = empty = 0
    while (header := lines.take()) is not None:
        if header.strip():
            yield _frame(header.strip(), lines, name, row)
            row, empty = row + 1, 0
        elif (empty := empty + 1) > MOST_EMPTY_LINES:
            raise BadInput(f"{name}: {empty} empty lines after frame {row - 1} (from 0), up to line {lines.number}")


def _frame(header: str, lines: Lines, name: str, row: int) -> Atoms:
    """Read one frame after its first line."""
    place, start = f"{name}: frame {row} (from 0)", lines.number
    if not header.isdecimal() or len(header) > MOST_DIGITS:
        if row > 0 and len(header.split()) >= PLAIN_COLUMNS:
            raise BadInput(
                f"{name}: frame {row - 1} (from 0) has more lines of atoms than its atom count says:"
                f" line {start} should be the next frame's atom count but is {header[:60]!r}; correct the count or the"
                " lines"
            )
        raise BadInput(f"{place}, line {start} should be its number of atoms but is {header[:60]!r}")
    count = int(header)
    if count == 0:
        raise BadInput(f"{place}, line {start}: zero atoms; remove the frame")
    if count > MOST_ATOMS:
        raise BadInput(f"{place}, line {start}: {too_many(count)}")
    comment, block = lines.take(), lines.take_some(count)
    place = f"{place}, lines {start} to {lines.number}"
    if comment is None or len(block) < count:
        raise BadInput(
            f"{place}: the file ends after {len(block)} of {count} atoms; it was cut off or the atom count is wrong"
        )
    known = read_comment(comment, place)
    sizes = known[PROPERTIES].split(":")[2::3] if PROPERTIES in known else []
    expected = sum(map(int, sizes)) or PLAIN_COLUMNS
    for atom, line in enumerate(block):
        columns = len(line.split())
        if columns < expected or (sizes and columns > expected):
            raise BadInput(
                f"{place}: atom {atom} (from 0) has {columns} columns instead of {expected}: {line.strip()[:60]!r};"
                " the atom count or the line is wrong"
            )
    vectors = 0
    while vectors < 3 and (following := lines.peek()) is not None and following.lstrip().startswith("VEC"):
        block, vectors = block + lines.take_some(1), vectors + 1
    return _parse([str(count), comment, *block, ""], known, place)


def _parse(frame: list[str], known: dict[str, Any], place: str) -> Atoms:
    """Let ASE read a frame; give its names to an energy and to forces that are spelled otherwise (GPUMD's `force`)."""
    try:
        atoms = next(read_xyz(io.StringIO("\n".join(frame)), index=0, properties_parser=lambda _: known))
    except MemoryError:
        raise
    except KeyError as error:
        number = str(error).strip("'").isdecimal()
        raise BadInput(
            f"{place}: unknown element {error}; {NUMBERS if number else 'symbols are those of the periodic table'}"
        ) from error
    except Exception as error:  # ASE's reader raises what it likes at a broken frame
        quoted = re.search(r"'([^']+)'", str(error))
        found = [atom for atom, line in enumerate(frame[2:]) if quoted and quoted[1] in line.split()]
        where = f", atom {found[0]} (from 0)" if found else ""
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BadInput(f"{place}{where}: {reason}; correct or remove the frame") from error
    if ALSO_NUMBERS in atoms.arrays and not np.array_equal(atoms.arrays.pop(ALSO_NUMBERS), atoms.numbers):
        raise BadInput(f"{place}: the columns species and Z name different elements; remove one of them")
    results = {} if atoms.calc is None else atoms.calc.results
    for key, spellings, there in (
        ("energy", ("energy",), atoms.info),
        ("forces", ("force", "forces"), atoms.arrays),
    ):
        spelled = [name for name in there if name.lower() in spellings]
        if key not in results and len(spelled) == 1:
            results[key] = there[spelled[0]]
    if results and atoms.calc is None:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)
    return atoms


def read_comment(text: str, place: str) -> dict[str, Any]:
    """Read a comment line as ASE does; LATTICE, PROPERTIES and PBC come under these names, whatever their spelling is.

    Raises:
        BadInput: a cell or columns that cannot be understood, with `place` (file and frame).
    """
    plain = QUOTED.sub(lambda match: "Q" * len(match[0]), text)
    words = plain.replace("=", " = ").split()
    keys = Counter(
        key.lower() if key.lower() in ANY_CASE else key
        for before, key, equals in zip(["", *words], words, words[1:], strict=False)
        if equals == "=" and "=" not in (before, key)
    )
    if twice := [key for key, count in keys.items() if count > 1]:
        raise BadInput(f"{place}: the comment line has {SPELLED.get(twice[0], twice[0])[:40]} twice; remove one")
    marked = text
    for match in reversed(list(STRESSES.finditer(plain))):
        marked = marked[: match.end()] + MARK + marked[match.end() :]
    try:
        found = key_val_str_to_dict(marked) if text.strip() else {}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{place}: the comment line cannot be read: {' '.join(str(error).split())[:200]}") from None
    for key in [key for key in found if key.endswith(MARK)]:
        name, value = key.removesuffix(MARK), found.pop(key)
        if np.size(value) not in (6, 9) or np.asarray(value).dtype.kind not in "if":
            raise BadInput(
                f"{place}: {name} is {str(value)[:60]!r}, not six (xx yy zz yz xz xy) or nine numbers; correct or"
                " remove it"
            )
        found[name] = np.asarray(value, dtype=float)
    for key in [key for key in found if key.lower() in SPELLED and key not in SPELLED.values()]:
        found[SPELLED[key.lower()]] = found.pop(key)
    if LATTICE in found:  # ASE wants 3 x 3, columns are the cell's vectors
        cell = np.asarray(found[LATTICE])
        if cell.size != 9 or cell.dtype.kind not in "if":
            raise BadInput(f"{place}: {LATTICE} is {str(found[LATTICE])[:60]!r}, not nine numbers; {WRITE_LATTICE}")
        found[LATTICE] = cell if cell.shape == (3, 3) else cell.reshape((3, 3), order="F")
    if PBC in found:  # one flag stands for all three
        value = found[PBC]
        words = value.replace(",", " ").split() if isinstance(value, str) else [str(one) for one in np.ravel(value)]
        flags = [FLAGS.get(word.lower()) for word in words]
        if len(flags) not in (1, 3) or None in flags:
            raise BadInput(f'{place}: pbc is {str(value)[:60]!r}, not three flags; write pbc="T T T" or pbc="F F F"')
        found[PBC] = [bool(flag) for flag in flags] * (3 // len(flags))
    if PROPERTIES in found:
        found[PROPERTIES] = _properties(found[PROPERTIES], place)
    if LATTICE not in found and any(found.get(PBC, [True])):
        for key, value in found.items():  # a cell under another name, which would be passed over; zeros are no cell
            numbers = np.asarray(value)
            if key.lower() in CELLS and value is not True and (numbers.dtype.kind not in "if" or numbers.any()):
                raise BadInput(f"{place}: the comment line has {key}=... but no {LATTICE}; {WRITE_LATTICE}")
        if OF_IPI.search(text):
            raise BadInput(
                f"{place}: the cell of the comment line is in i-PI's words, which are not read; {WRITE_LATTICE}"
            )
    return found


def _properties(value: Any, place: str) -> str:
    """Return the columns with the names and types that ASE knows."""
    words = value.split(":") if isinstance(value, str) else []
    triplets = [words[start : start + 3] for start in range(0, len(words), 3)]
    if not triplets or not all(len(triplet) == 3 and re.fullmatch(r"[1-9]\d{0,5}", triplet[2]) for triplet in triplets):
        raise BadInput(f"{place}: {PROPERTIES}={str(value)[:100]} is not name:type:columns triplets")
    triplets = [
        [low if (low := name.lower()) in COLUMNS else name, kind.upper(), size] for name, kind, size in triplets
    ]
    kinds = {name: kind for name, kind, _ in triplets}
    symbols = next((name for name in ("species", "symbols") if name in kinds), None)
    if not {"pos", "positions"} & set(kinds):
        raise BadInput(f"{place}: {PROPERTIES}={value[:100]} has no positions (pos:R:3)")
    if symbols is None and "Z" not in kinds:
        raise BadInput(f"{place}: {PROPERTIES}={value[:100]} has no elements (species:S:1, or Z:I:1)")
    if symbols and kinds[symbols] != "S":
        raise BadInput(
            f"{place}: {PROPERTIES} says that the {symbols} are numbers ({symbols}:{kinds[symbols]}); {NUMBERS}"
        )
    if len(kinds) < len(triplets):
        raise BadInput(f"{place}: {PROPERTIES}={value[:100]} has a column twice; remove one")
    renamed = [[ALSO_NUMBERS if symbols and name == "Z" else name, *rest] for name, *rest in triplets]
    return ":".join(word for triplet in renamed for word in triplet)


COLUMN_NAMES = {"positions": "pos", "forces": "forces", "forces_std": "forces_std"}
"""Column of three numbers an atom -> its name in the file; `forces_std` only for a committee's labels."""
IN_COMMENT = ("id", "energy", "energy_std", "stress", "cell", "pbc", "state")
ATOMS_AT_ONCE = 50_000  # some 10 MB of text
SYMBOLS = pa.array(chemical_symbols)
WORD = re.compile(r"(?!(?i:t|f|true|false|nan|inf|infinity)$)[A-Za-z_][\w.:/+-]*", re.ASCII)
"""Text that ASE reads as text as it stands."""


def write_frames(file: BinaryIO, labels: pa.Table, also: Sequence[str] = ()) -> None:
    """Append a table of LABELS; ASE reads back bit for bit what was written.

    Each row's id, energy (eV, total), forces (eV/Å), stress (eV/Å³, nine numbers), state (see `frame_state`), and the
    deviations of a committee. `also` names columns of text or numbers that go into the comment (empty text does not).
    ASE's own writer keeps eight decimals of positions and forces, which loses the content id.
    """
    names = {column: name for column, name in COLUMN_NAMES.items() if column in labels.column_names}
    properties = ":".join(["species:S:1", *(f"{name}:R:3" for name in names.values())])
    atoms = list_lengths(labels["numbers"]).cumsum()
    cuts = (np.flatnonzero(np.diff(atoms // ATOMS_AT_ONCE)) + 1).tolist()
    for start, stop in zip([0, *cuts], [*cuts, labels.num_rows], strict=True):
        piece = labels.slice(start, stop - start)
        lines = atom_lines(piece, [SYMBOLS.take(pa.array(flat(piece["numbers"])))], list(names))
        comments = piece.select([name for name in IN_COMMENT if name in piece.column_names]).to_pylist()
        extras = piece.select(list(also)).to_pylist()
        counts = list_lengths(piece["numbers"]).tolist()
        for count, row, extra, text in zip(counts, comments, extras, lines, strict=True):
            file.write(f"{count}\n{_comment(row, extra, properties)}\n{text}\n".encode("ascii"))


def _comment(row: dict[str, Any], extra: dict[str, Any], properties: str) -> str:
    parts = [f"Properties={properties}", f"id={row['id']}", f"energy={row['energy']!r}"]
    if set(map(repr, row["cell"])) != {"0.0"}:  # a cell of -0.0 is kept too
        parts.insert(0, f'Lattice="{exact(row["cell"])}"')
    if "energy_std" in row:
        parts.append(f"energy_std={row['energy_std']!r}")
    if row["stress"] is not None:
        parts.append(f'stress="{exact(voigt_6_to_full_3x3_stress(row["stress"]).ravel().tolist())}"')
    parts += row.get("state", "").split()  # total_charge=1 total_spin=2
    periodic = " ".join("T" if flag else "F" for flag in row["pbc"])
    parts.append(f'pbc="{periodic}"')
    for name, value in extra.items():
        if isinstance(value, str) and value and not WORD.fullmatch(value):  # ASE would not read it as this text
            quoted = json.dumps(value).replace("\\", "\\\\").replace('"', '\\"')
            value = f'"_JSON {quoted}"'
        if value != "":
            parts.append(f"{name}={value}")
    return " ".join(parts)
