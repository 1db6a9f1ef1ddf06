"""Properties of crystals and molecules from any ASE calculator: the same code for teacher and student.

matcalc does the physics (equation of state, elastic constants, phonons, vacancies, surfaces), ASE relaxes. Needs both,
imported inside the functions. All lengths in Å, energies in eV, in total: the E0s are in the calculator's energies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import chain, count
from math import isfinite
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from containers.contract import Progress, StepError, no_progress
from containers.properties.results import Crystal, Properties, Settings

FORCE_TOLERANCE = 1e-3  # eV/Å, of relaxed crystals and of atoms in strained cells
DEFECT_TOLERANCE = 0.01  # eV/Å, of vacancies and surfaces
RELAX_STEPS = 500
VOLUMES = (0.25, 4.0)  # of a crystal that relaxes, times its first: beyond, it falls into itself or apart
STRAINS = (-0.01, -0.005, 0.005, 0.01)  # normal and engineering shear
"""Strains of the elastic constants: small enough for the linear range, and none of those of training structures."""
LENGTH_STRAIN = 0.02  # half the range of the fit of the equation of state: 6 % of the volume
CURVE_STRAIN = 0.08  # half the range of its curve
EV_PER_A2_IN_J_PER_M2 = 16.021766
MESH = (6, 6, 6)  # q points of the primitive cell
IMAGINARY_THz = -0.1
"""Frequencies below count as imaginary; the acoustic ones at Γ scatter around zero."""

ELASTIC = {
    "cubic": ("11", "12", "44"),
    "hexagonal": ("11", "12", "13", "33", "44"),
    "trigonal": ("11", "12", "13", "14", "33", "44"),
    "tetragonal": ("11", "12", "13", "33", "44", "66"),
    "orthorhombic": ("11", "12", "13", "22", "23", "33", "44", "55", "66"),
}
"""Independent elastic constants by crystal system (Nye, Physical Properties of Crystals); others have all 21."""
LENGTHS = {"cubic": "a", "hexagonal": "ac", "trigonal": "ac", "tetragonal": "ac"}
"""Independent lengths of the conventional cell; others have all three."""
ALL_ELASTIC = tuple(f"{row}{column}" for row in range(1, 7) for column in range(row, 7))


def measure_all(
    crystals: Sequence[Atoms],
    calculator: Calculator,
    settings: Settings,
    progress: Progress = no_progress,
    names: Sequence[str] = (),
) -> Properties:
    """Measure crystals in their order. Those of elements give the chemical potentials, whatever their place.

    Args:
        names: of the crystals; none: by formula and space group, with a number where there are several.
    """
    order = sorted(range(len(crystals)), key=lambda place: len(set(crystals[place].numbers)))
    potentials: dict[str, float] = {}
    found: dict[int, Crystal] = {}
    left_out: dict[str, str] = {}
    for done, place in enumerate(order):
        formula = crystals[place].get_chemical_formula(empirical=True)
        progress(done, len(order), formula)
        try:
            crystal = measure(crystals[place], calculator, settings, potentials)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a potential that is wrong makes the libraries fail in any way
            left_out[names[place] if names else unused(formula, left_out)] = reason(error)
            continue
        found[place] = crystal
        if len(symbols := set(crystals[place].symbols)) == 1:
            energy = crystal.energy_eV_per_atom
            potentials[symbols.pop()] = min(energy, potentials.get(crystals[place].symbols[0], energy))
    named: dict[str, Crystal] = {}
    for place, crystal in sorted(found.items()):
        name = names[place] if names else unused(crystal.name, named)
        named[name] = crystal.model_copy(update={"called": name})
    return Properties(crystals=tuple(named.values()), left_out=left_out)


def unused(name: str, taken: Container[str]) -> str:
    """Return the name, with a number where it is taken: `Cu Fm-3m (2)`."""
    numbered = (f"{name} ({number})" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def reason(error: Exception) -> str:
    """Return why something could not be measured."""
    return str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """Return the crystal at rest, with its symmetry kept.

    Raises `StepError` when forces stay above FORCE_TOLERANCE for RELAX_STEPS, are no numbers, or when the volume leaves
    VOLUMES.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS

    found, formula, begun = atoms.copy(), atoms.get_chemical_formula(), atoms.get_volume()
    found.calc = calculator
    found.set_constraint(FixSymmetry(found))
    at_rest = False
    if np.isfinite(found.get_forces()).all() and np.isfinite(found.get_stress()).all():
        steps = LBFGS(FrechetCellFilter(found), logfile=None).irun(fmax=FORCE_TOLERANCE, steps=RELAX_STEPS)
        for reached in steps:
            at_rest = reached
            if not VOLUMES[0] < found.get_volume() / begun < VOLUMES[1]:
                volumes = f"its volume went from {begun:.3g} to {found.get_volume():.3g} Å³"
                raise StepError(f"{formula} does not hold as it relaxes: {volumes}")
    if not np.isfinite(found.get_potential_energy()):
        raise StepError(f"{formula} has an energy or forces that are no numbers")
    if not at_rest:
        raise StepError(f"{formula} does not come to rest within {RELAX_STEPS} steps")
    found.set_constraint()
    return found


def measure(
    crystal: Atoms, calculator: Calculator, settings: Settings, chemical_potentials: Mapping[str, float]
) -> Crystal:
    """Relax a crystal (primitive cell) and measure what the settings say.

    Args:
        chemical_potentials: eV/atom of elements, for the vacancies of a compound.

    Raises `StepError` when the crystal itself does not relax.
    """
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    rest = relaxed(crystal, calculator)
    structure = AseAtomsAdaptor.get_structure(rest)
    symmetry = SpacegroupAnalyzer(structure, symprec=1e-3)
    before = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(crystal), symprec=1e-3).get_space_group_symbol()
    conventional = symmetry.get_conventional_standard_structure()
    energy = rest.get_potential_energy() / len(rest)
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "equation of state": lambda: equation_of_state(rest, structure, calculator),
    }
    if settings.elastic:
        tasks["elastic constants"] = lambda: elastic(conventional, symmetry.get_crystal_system(), calculator)
    if settings.phonons:
        tasks["phonons"] = lambda: phonons(rest, structure, calculator, settings)
    if settings.vacancies:
        tasks["vacancies"] = lambda: vacancies(structure, calculator, settings, chemical_potentials)
    if settings.surfaces:
        tasks["surfaces"] = lambda: surfaces(conventional, calculator, settings, energy)
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    if (group := symmetry.get_space_group_symbol()) != before:
        failed["space group"] = f"{before} became {group} as it relaxed"
    for name, task in tasks.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = task()
            if not _finite(values):
                raise StepError("a value is no number")
            found |= values
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a potential that is wrong makes the libraries fail in any way
            failed[name] = reason(error)
    return Crystal(
        formula=structure.composition.reduced_formula,
        space_group=group,
        cell_A=_rows(rest.cell.array),
        numbers=tuple(map(int, rest.numbers)),
        scaled_positions=_rows(rest.get_scaled_positions()),
        lattice_A={
            axis: float(length)
            for axis, length in zip("abc", conventional.lattice.abc, strict=True)
            if axis in LENGTHS.get(symmetry.get_crystal_system(), "abc")
        },
        energy_eV_per_atom=float(energy),
        volume_A3_per_atom=float(rest.get_volume() / len(rest)),
        failed=failed,
        **found,
    )


def equation_of_state(rest: Atoms, structure: Any, calculator: Calculator) -> dict[str, Any]:
    """Return the Birch-Murnaghan bulk modulus and the energies over the volume, per atom."""
    from matcalc import EOSCalc

    made = EOSCalc(calculator, relax_structure=False, allow_shape_change=False, max_abs_strain=LENGTH_STRAIN)
    curve = []
    for strain in np.linspace(-CURVE_STRAIN, CURVE_STRAIN, 17):
        scaled = rest.copy()
        scaled.set_cell(rest.cell.array * (1 + strain), scale_atoms=True)
        scaled.calc = calculator
        curve.append((scaled.get_volume() / len(rest), scaled.get_potential_energy() / len(rest)))
    return {
        "bulk_GPa": {"B": float(made.calc(structure)["bulk_modulus_bm"])},
        "equation_of_state": tuple((float(volume), float(energy)) for volume, energy in curve),
    }


def elastic(conventional: Any, system: str, calculator: Calculator) -> dict[str, Any]:
    """Return the independent elastic constants (GPa) of the conventional cell in IEEE axes; atoms relax in each strain.

    A strain moves the atoms of a cell against each other where symmetry allows it: C44 of silicon is 80 GPa with
    relaxed atoms and 106 without (example teacher).
    """
    from matcalc import ElasticityCalc

    made = ElasticityCalc(
        calculator, norm_strains=STRAINS, shear_strains=STRAINS, fmax=FORCE_TOLERANCE, relax_structure=False,
        relax_deformed_structures=True, units_GPa=True,
    )  # fmt: skip
    tensor = made.calc(conventional)["elastic_tensor"]
    symmetric = tensor.convert_to_ieee(conventional).fit_to_structure(conventional)
    voigt = np.asarray(symmetric.voigt)
    names = ELASTIC.get(system, ALL_ELASTIC)
    return {"elastic_GPa": {f"C{name}": float(voigt[int(name[0]) - 1, int(name[1]) - 1]) for name in names}}


def phonons(rest: Atoms, structure: Any, calculator: Calculator, settings: Settings) -> dict[str, Any]:
    """Return the frequencies (THz; imaginary ones are negative) on a mesh and along the bands of the primitive cell."""
    from matcalc import PhononCalc

    off = dict.fromkeys(("write_force_constants", "write_band_structure", "write_total_dos", "write_phonon"), False)
    made = PhononCalc(calculator, relax_structure=False, min_length=settings.supercell_A, **off)
    found = made.calc(structure)
    path = rest.cell.bandpath(npoints=120)
    phonon = found["phonon"]
    phonon.run_band_structure([path.kpts])
    x, special, names = path.get_linear_kpoint_axis()
    phonon.run_mesh(MESH, is_mesh_symmetry=False, is_gamma_center=True)  # the same points for teacher and student
    mesh = np.asarray(phonon.mesh.frequencies)
    return {
        "frequencies_THz": _rows(np.sort(mesh, axis=1)),
        "bands_THz": _rows(np.sort(np.asarray(phonon.band_structure.frequencies[0]), axis=1)),
        "band_x": tuple(map(float, x)),
        "band_path": tuple((str(name), float(at)) for name, at in zip(names, special, strict=True)),
        "imaginary_share": float((mesh < IMAGINARY_THz).mean()),
    }


def vacancies(
    structure: Any, calculator: Calculator, settings: Settings, chemical_potentials: Mapping[str, float]
) -> dict[str, Any]:
    """Return the formation energy (eV) of a vacancy of each element, the lowest of its sites.

    Raises `StepError` for a compound without the chemical potential of an element.
    """
    from matcalc import DefectCalc

    elements = sorted(element.symbol for element in structure.composition.elements)
    if len(elements) > 1 and (missing := [one for one in elements if one not in chemical_potentials]):
        raise StepError(
            f"no crystal of {', '.join(missing)} alone gives its chemical potential; add one to the crystals"
        )
    made = DefectCalc(
        calculator, relax_bulk=False, fmax=DEFECT_TOLERANCE, max_steps=RELAX_STEPS,
        chemical_potentials={one: chemical_potentials[one] for one in elements} if len(elements) > 1 else None,
    )  # fmt: skip
    found: dict[str, float] = {}
    for defect in made.calc_defects(structure, min_length=settings.supercell_A):
        element = next(iter(defect["element_changes"]))
        _check_at_rest(defect["final_defect"], calculator, f"the cell with a vacancy of {element}")
        energy = float(defect["formation_energy"])
        found[element] = min(found.get(element, energy), energy)
    return {"vacancy_eV": dict(sorted(found.items()))}


def surfaces(conventional: Any, calculator: Calculator, settings: Settings, energy: float) -> dict[str, Any]:
    """Return the energies (J/m²) of the distinct faces with indices up to 1, each of its lowest termination.

    A slab has the composition of its crystal, so that no chemical potential enters; where its two sides differ, the
    energy is their mean. Atoms relax, the lattice is the crystal's.
    """
    from matcalc import SurfaceCalc
    from pymatgen.core.surface import SlabGenerator, get_symmetrically_distinct_miller_indices

    made = SurfaceCalc(calculator, fmax=DEFECT_TOLERANCE, max_steps=RELAX_STEPS, optimizer="LBFGS")
    found: dict[str, float] = {}
    for index in get_symmetrically_distinct_miller_indices(conventional, 1):
        slabs = SlabGenerator(
            conventional, index, settings.slab_A, settings.vacuum_A, center_slab=True, primitive=True
        ).get_slabs()
        name, energies = "".join(map(str, index)), []
        for slab in slabs:
            if slab.composition.reduced_formula == conventional.composition.reduced_formula:
                face = made.calc({"slab": slab, "bulk_energy_per_atom": energy, "final_bulk": conventional})
                _check_at_rest(face["final_slab"], calculator, f"the face {name}")
                energies.append(float(face["surface_energy"]))
        if energies:
            found[name] = min(energies) * EV_PER_A2_IN_J_PER_M2
    return {"surface_J_per_m2": found}


def _check_at_rest(structure: Any, calculator: Calculator, what: str) -> None:
    """Raise `StepError` for a structure that matcalc relaxed and whose forces are above DEFECT_TOLERANCE still."""
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = calculator
    if not np.linalg.norm(atoms.get_forces(), axis=1).max() < 1.1 * DEFECT_TOLERANCE:  # rounded on the way
        raise StepError(f"{what} does not come to rest within {RELAX_STEPS} steps")


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return all(map(_finite, parts))


def _rows(values: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in values)
