"""Properties of crystals and molecules that one calculator gives, and which of them to measure.

Light: flows and reports read it without matcalc. Lengths in Å, energies in eV, in total.
"""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from pydantic import Field

from containers.contract import Closed
from containers.properties.molecules import Dimer, Molecule
from containers.structures.distances import shortest_distance


class Settings(Closed):
    """Properties to measure, and the sizes of their cells."""

    elastic: bool = Field(True, description="elastic constants, with relaxed atoms")
    phonons: bool = Field(True, description="phonon frequencies on a mesh and along the bands")
    vacancies: bool = Field(True, description="formation energy of a vacancy of each element")
    surfaces: bool = Field(True, description="energies of the faces of low index")
    supercell_A: float = Field(10.0, ge=3, description="Å; least width of the cells of phonons and vacancies")
    slab_A: float = Field(10.0, ge=3, description="Å; least thickness of a slab")
    vacuum_A: float = Field(15.0, ge=3, description="Å between slabs; more than the cutoff of the teacher")


class Crystal(Closed):
    """A relaxed crystal and what was measured on it. A property that failed is None, and `failed` says why."""

    formula: str
    space_group: str
    cell_A: tuple[tuple[float, float, float], ...]  # primitive
    numbers: tuple[int, ...]
    scaled_positions: tuple[tuple[float, float, float], ...]
    lattice_A: dict[str, float]  # a, b, c of the conventional cell, those that differ by symmetry
    energy_eV_per_atom: float
    volume_A3_per_atom: float
    bulk_GPa: dict[str, float] | None = None  # B
    equation_of_state: tuple[tuple[float, float], ...] | None = None  # Å³/atom, eV/atom
    elastic_GPa: dict[str, float] | None = None  # C11, ...
    frequencies_THz: tuple[tuple[float, ...], ...] | None = None  # on the mesh, by q point
    bands_THz: tuple[tuple[float, ...], ...] | None = None  # along the path
    band_path: tuple[tuple[str, float], ...] | None = None  # names of special points and where they stand
    band_x: tuple[float, ...] | None = None
    imaginary_share: float | None = None  # of the modes on the mesh
    vacancy_eV: dict[str, float] | None = None  # by element; of several sites the lowest
    surface_J_per_m2: dict[str, float] | None = None  # by Miller index, of the lowest termination
    failed: dict[str, str] = {}
    called: str = ""  # a second one of formula and space group, and what the student makes of the teacher's

    @property
    def name(self) -> str:
        """Formula and space group: `Si Fd-3m`, unless it is called otherwise."""
        return self.called or f"{self.formula} {self.space_group}"

    def atoms(self) -> Atoms:
        """The primitive cell."""
        return Atoms(numbers=self.numbers, scaled_positions=self.scaled_positions, cell=self.cell_A, pbc=True)

    def conventional(self) -> Atoms:
        """The conventional standard cell."""
        from pymatgen.io.ase import AseAtomsAdaptor
        from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

        found = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(self.atoms()), symprec=1e-3)
        return AseAtomsAdaptor.get_atoms(found.get_conventional_standard_structure(), msonable=False)

    def shortest_A(self) -> float:
        """The shortest distance of two atoms (Å)."""
        return shortest_distance(self.atoms(), 10.0)


class Properties(Closed):
    """Properties of crystals, molecules and pairs of elements by one calculator."""

    crystals: tuple[Crystal, ...]
    molecules: tuple[Molecule, ...] = ()
    dimers: dict[str, Dimer] = {}  # by pair: Al-Ni
    left_out: dict[str, str] = {}  # crystals by formula -> the reason

    @classmethod
    def read(cls, path: Path) -> Properties:
        """Read a `properties.json`."""
        return cls.model_validate_json(path.read_bytes())
