"""Elements that training never sees, found before anything is labelled."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from ase import Atoms
from ase.build import bulk

from containers.structures.split import Split
from containers.structures.table import structure_id, structures_table, write_table
from containers.tensorpot.selection.coverage import ISOLATED, Tables, never_trained

ON = {"train": "family0", "validation": "family1", "test": "family2"}
"""A family on each side, see test_cells_and_split."""


def structure(symbols: str, side: str, seed: int = 0) -> Atoms:
    """A cell of copper with some other atoms on a side."""
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[: len(Atoms(symbols))] = Atoms(symbols).get_chemical_symbols()
    atoms.rattle(0.05, seed=seed)
    return named(atoms, ON[side])


def named(atoms: Atoms, family: str) -> Atoms:
    atoms.info = {"id": structure_id(atoms), "source": "pool.xyz", "row": 5, "group": "", "family": family}
    return atoms


def unseen(folder: Path, *structures: Atoms, split: Split | None = None, base: Path | None = None) -> dict[str, str]:
    """Element -> where its first structure is."""
    write_table(folder / "pool.parquet", structures_table([structure("Cu", "train", 9), *structures]))
    tables = Tables({"teacher": folder / "pool.parquet"}, base=base)
    found = never_trained(("Au", "Cu"), 5.0, tables, split or Split())
    return {element: str(ones[0]) if ones else "" for element, ones in found.items()}


@pytest.mark.parametrize("side", ["validation", "test"])
def test_an_element_on_another_side_alone_is_found_with_its_family(tmp_path: Path, side: str) -> None:
    place = f"pool.xyz: frame 5 (from 0), of the family {ON[side]!r} on the {side} side"
    assert unseen(tmp_path, structure("Au", side)) == {"Au": place}
    assert unseen(tmp_path, structure("Au", side), split=Split(train=(ON[side],))) == {}
    assert unseen(tmp_path, structure("Au", side), structure("Au2", "train")) == {}


def test_an_element_of_nothing_of_isolated_atoms_or_of_strange_structures_alone(tmp_path: Path) -> None:
    assert unseen(tmp_path) == {"Au": ""}
    assert ISOLATED in unseen(tmp_path, named(Atoms("Au"), ON["train"]))["Au"]
    assert ISOLATED in unseen(tmp_path, named(Atoms("Au", cell=[20] * 3, pbc=True), ON["train"]))["Au"]
    assert "elements that the potential does not have" in unseen(tmp_path, structure("AuNi", "train"))["Au"]


def test_what_an_earlier_set_has_placed_stays_there(tmp_path: Path) -> None:
    gold = structure("Au", "test")
    table = structures_table([gold])
    for name, value in (("origin", "teacher"), ("side", "train")):
        table = table.append_column(name, pa.array([value]))
    write_table(tmp_path / "base.parquet", table)
    assert unseen(tmp_path, base=tmp_path / "base.parquet") == {}
    moved = table.set_column(table.schema.get_field_index("side"), "side", pa.array(["test"]))
    write_table(tmp_path / "base.parquet", moved)
    told = unseen(tmp_path, gold, split=Split(train=(ON["test"],)), base=tmp_path / "base.parquet")
    assert told["Au"].endswith("on the test side, where the earlier data set has it")
