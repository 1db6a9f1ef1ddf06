"""Crystals on which a potential is judged: those of the config, and the lowest in energy of each composition.

Needs pymatgen and spglib, imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from pydantic import Field

from containers.contract import BadInput, Closed
from containers.properties.measure import reason, relaxed, unused
from containers.structures.cells import bare, is_solid

COARSE_A = 0.2
"""Å by which atoms of a labelled structure may lie off a symmetric place; the teacher relaxes what comes out."""
FINE_A = 1e-3  # Å, of a relaxed crystal
GAP_A = 6.0  # Å without an atom: a surface, no crystal
LARGEST = 16  # atoms of a primitive cell that is found by itself: larger ones are disordered or cost too much
TRIED = 20  # larger cells of a composition whose symmetry is looked for: a molecular dynamics has thousands


class Prototype(Closed):
    """A crystal by the name of its structure."""

    structure: Literal[
        "fcc", "bcc", "hcp", "sc", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite", "wurtzite"
    ]
    formula: str = Field(description="Si, NiAl, GaAs: elements in the order of ASE's `bulk`")
    a_A: float = Field(ge=1, description="Å; lattice constant to begin with, the teacher relaxes it")
    c_A: float | None = Field(None, ge=1, description="Å; of hcp and wurtzite")

    def atoms(self) -> Atoms:
        """Build the primitive cell. Raises `BadInput` for a formula that does not fit the structure."""
        try:
            return bulk(self.formula, self.structure, a=self.a_A, c=self.c_A)
        except (ValueError, RuntimeError, KeyError) as error:
            raise BadInput(f"no {self.structure} crystal of {self.formula}: {error}") from None


def lowest_of_each_composition(labelled: Iterable[Atoms]) -> list[Atoms]:
    """Return the crystal of the lowest energy (of its calculator) of each composition, primitive, small cells first.

    Left out are slabs and clusters, and cells without symmetry of more than LARGEST atoms: the next higher crystal then
    stands for its composition. Of the cells of more than LARGEST atoms the TRIED lowest are looked at.
    """
    by_name: dict[str, list[Atoms]] = {}
    for atoms in labelled:
        if is_solid(atoms, GAP_A):
            by_name.setdefault(atoms.symbols.formula.reduce()[0].format("hill"), []).append(atoms)
    found: list[Atoms] = []
    for rising in by_name.values():
        large = 0
        for atoms in sorted(rising, key=lambda atoms: atoms.get_potential_energy() / len(atoms)):
            large += len(atoms) > LARGEST
            if len(atoms) > LARGEST and large > TRIED:
                continue
            if len(one := primitive(atoms, COARSE_A)) <= LARGEST:
                found.append(one)
                break
    return sorted(found, key=lambda one: (len(set(one.numbers)), len(one)))


def primitive(atoms: Atoms, tolerance_A: float) -> Atoms:
    """Return the primitive standard cell that symmetry gives within a tolerance; the same where spglib finds none."""
    return _standard(atoms, tolerance_A, to_primitive=True)


def conventional(atoms: Atoms, tolerance_A: float) -> Atoms:
    """Return the conventional standard cell that symmetry gives within a tolerance; the same where there is none."""
    return _standard(atoms, tolerance_A, to_primitive=False)


def _standard(atoms: Atoms, tolerance_A: float, to_primitive: bool) -> Atoms:
    import spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.standardize_cell(cell, to_primitive=to_primitive, symprec=tolerance_A)
    if found is None:
        return bare(atoms)
    lattice, positions, numbers = found
    return Atoms(numbers=numbers, scaled_positions=positions, cell=lattice, pbc=True)


def distinct(
    given: Iterable[Atoms], further: Iterable[Atoms], calculator: Calculator, at_most: int, left_out: dict[str, str]
) -> list[Atoms]:
    """Return the distinct crystals, relaxed and primitive: all that are given, and the first `at_most` further ones.

    One that does not relax goes to `left_out` with the reason. Two are the same when composition and space group are,
    and the volume to 2 %.
    """
    import spglib

    kept: list[Atoms] = []
    seen: list[tuple[str, int, float]] = []
    added = 0
    for is_given, atoms in [*((True, one) for one in given), *((False, one) for one in further)]:
        if not is_given and added >= at_most:
            break
        formula = atoms.get_chemical_formula(empirical=True)
        try:
            found = primitive(relaxed(atoms, calculator), FINE_A)
            cell = (found.cell.array, found.get_scaled_positions(), found.numbers)
            group = int(spglib.get_symmetry_dataset(cell, symprec=FINE_A).number)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  far from its data a potential makes the libraries fail in any way
            left_out[unused(formula, left_out)] = reason(error)
            continue
        volume = found.get_volume() / len(found)
        if not any(formula == name and group == number and abs(volume / old - 1) < 0.02 for name, number, old in seen):
            kept.append(found)
            seen.append((formula, group, volume))
            added += not is_given
    return kept
