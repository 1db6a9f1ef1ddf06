"""DFT labels beside the teacher's on the same structures: are the units the same, and the zero of energy?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from containers.arrays import Floats
from containers.contract import BadInput
from containers.metrics import errors

SAME_REFERENCE_eV_per_atom = 0.02
"""Difference up to which the energies count as on one scale; a good teacher differs by 0.01."""
MOST_OF_THEM = 0.75
"""Quantile of the differences that is judged: a few wild structures do not move it, two camps do."""
EXPLAINED = 0.5
"""An offset for each element explains a difference when less than this share of it is left."""
SLOPES = (1 / 3, 3.0)
"""Between these a proportion is the teacher's error; beyond, it is a unit."""
PROPORTIONAL = 0.9
"""Cosine above which two sets of numbers are in one proportion."""
REAL_FORCE_eV_per_A, REAL_ENERGY_eV_per_atom = 0.1, 0.01
"""Root mean squares above which the teacher's forces, and its energies about their mean, show a unit."""
A_PAIR = 2
"""Atoms of a dimer: its forces are always parallel, so only an exact unit factor counts as evidence."""
FEWEST = 5
"""Energies of one composition, or frames with forces, from which a unit, a sign or an order is judged."""
OUTLIER_SPREADS = 10.0
"""Energies are set apart beyond so many standard deviations (by the median absolute deviation), and beyond FAR."""
SHOWN = 5  # frames that a message lists
OUTLIER_eV_per_atom = 0.01
"""Difference from which a structure counts less in the offsets."""
UNITS = {
    "Hartree/Bohr": 51.422067, "Rydberg/Bohr": 25.711034, "Hartree/Å": 27.211386, "Rydberg/Å": 13.605693,
    "kcal/mol/Å": 0.0433641, "kJ/mol/Å": 0.0103643, "kJ/mol/nm": 0.00103643, "meV/Å": 0.001, "eV/nm": 0.1,
    "eV/Bohr": 1.8897261,
}  # fmt: skip
"""eV/Å in one of each."""
ENERGY_UNITS = {
    "Hartree": 27.211386, "Rydberg": 13.605693, "kcal/mol": 0.0433641, "kJ/mol": 0.0103643, "meV": 0.001,
}  # fmt: skip
"""eV in one of each."""
FAR_eV_per_atom, AGREES_eV_per_atom = 1.0, 0.1
"""An energy that is farther than the one from the teacher's, and nearer than the other in another unit, is in that."""
NEAR = 1.25
"""A factor within this ratio of a unit suggests it."""


@dataclass(frozen=True)
class Both:
    """A structure with DFT's label (its calculator) and the teacher's."""

    atoms: Atoms
    teacher: Mapping[str, Any]

    @property
    def difference(self) -> float:
        """DFT energy less the teacher's, eV/atom."""
        return float(self.atoms.calc.results["energy"] - self.teacher["energy"]) / len(self.atoms)


def place_of(atoms: Atoms) -> str:
    """File and frame, the beginning of a message."""
    return f"{atoms.info['source']}, frame {atoms.info['row']} (from 0)"


def matched(dft: Sequence[Atoms], by_teacher: Sequence[Atoms]) -> list[Both]:
    """Return the DFT structures that the teacher labelled too."""
    answers = {atoms.info["id"]: atoms.calc.results for atoms in by_teacher}
    return [Both(atoms, answers[atoms.info["id"]]) for atoms in dft if atoms.info["id"] in answers]


def not_compared(
    dft: Sequence[Atoms], by_teacher: Sequence[Atoms], reasons: Mapping[str, str]
) -> dict[str, int | str | None]:
    """Count the DFT structures that no check of units or zero saw, because the teacher has no label of them.

    Args:
        reasons: why, by id.

    Returns:
        `dft_not_compared`, and `dft_not_compared_first`: file, frame and reason of the first, None when there is none.
    """
    answered = {atoms.info["id"] for atoms in by_teacher}
    left = [atoms for atoms in dft if atoms.info["id"] not in answered]
    first = min(left, key=lambda atoms: (atoms.info["source"], atoms.info["row"]), default=None)
    because = reasons.get(first.info["id"], "the teacher has no label of it") if first else ""
    return {"dft_not_compared": len(left), "dft_not_compared_first": f"{place_of(first)}: {because}" if first else None}


def check_units(both: Sequence[Both]) -> None:
    """Raise `BadInput` for the first frame whose forces, or the first file whose energies, are in another unit."""
    for one in both:
        factor = _proportion(np.ravel(one.atoms.calc.results["forces"]), np.ravel(one.teacher["forces"]))
        if factor is not None and len(one.atoms) <= A_PAIR and not _likely(factor, UNITS):
            continue  # a teacher that is wrong at a short distance
        if factor is not None and rms(one.teacher["forces"]) > REAL_FORCE_eV_per_A:
            raise BadInput(f"{place_of(one.atoms)}: its forces are {_suggest(factor, 'eV/Å', UNITS)}")
    files: defaultdict[str, list[Both]] = defaultdict(list)
    same_formula: defaultdict[tuple[str, str], list[Both]] = defaultdict(list)
    for one in both:
        files[one.atoms.info["source"]].append(one)
        same_formula[one.atoms.info["source"], one.atoms.get_chemical_formula(empirical=True)].append(one)
    for source, ones in files.items():
        if min(abs(one.difference) for one in ones) > FAR_eV_per_atom and (unit := _explaining(ones)):
            raise BadInput(f"{source}: its energies are given in {unit}, as it seems. Give eV throughout.")
    for (source, _), ones in same_formula.items():
        dft, teacher = _energies(ones)
        if len(ones) < FEWEST or np.std(teacher) <= REAL_ENERGY_eV_per_atom:
            continue
        if (factor := _proportion(dft - np.median(dft), teacher - np.median(teacher))) is not None:
            raise BadInput(f"{source}: its energies vary {_suggest(factor, 'eV', ENERGY_UNITS)}")


def rms(forces: Floats) -> float:
    """Return the root mean square of all numbers."""
    return float(np.sqrt(np.mean(np.square(forces))))


def listed(ones: Sequence[Both]) -> str:
    """Return their frames, for a message."""
    more = f" and {len(ones) - SHOWN} more" if len(ones) > SHOWN else ""
    return f"frames {', '.join(str(one.atoms.info['row']) for one in ones[:SHOWN])}{more}, from 0"


def _energies(ones: Sequence[Both]) -> tuple[Floats, Floats]:
    """Return DFT's and the teacher's energies, eV/atom."""
    sizes = np.array([len(one.atoms) for one in ones])
    dft = np.array([one.atoms.calc.results["energy"] for one in ones])
    return dft / sizes, np.array([one.teacher["energy"] for one in ones]) / sizes


def _proportion(found: Floats, expected: Floats) -> float | None:
    """Return `found` over `expected` when they are proportional by a factor outside SLOPES."""
    product, lengths = float(found @ expected), float(np.linalg.norm(found) * np.linalg.norm(expected))
    if lengths == 0 or product < PROPORTIONAL * lengths:
        return None
    factor = product / float(expected @ expected)
    return None if SLOPES[0] <= factor <= SLOPES[1] else factor


def _suggest(factor: float, unit: str, units: Mapping[str, float]) -> str:
    likely = _likely(factor, units)
    guess = f"; it looks like {likely}" if likely else ""
    return f"{factor:.3g} times the teacher's on the same structure{guess}. Give {unit} throughout."


def _likely(factor: float, units: Mapping[str, float]) -> str | None:
    """Return the unit that a factor suggests, if any."""
    near = {name: abs(np.log(size * factor)) for name, size in units.items()}
    likely = min(near, key=near.__getitem__)
    return likely if near[likely] < np.log(NEAR) else None


def offsets(
    both: Sequence[Both], elements: Sequence[str], taken: Mapping[str, float] | None = None
) -> tuple[dict[str, float], float, float]:
    """Fit DFT energy less the teacher's by a constant for each element.

    Args:
        taken: constants (eV an atom) that are taken from the DFT energies before.

    Returns:
        eV an atom by element, and the MOST_OF_THEM quantile of the differences before and after (eV/atom). Structures
        that fit badly count less; where compositions do not distinguish elements, the smallest constants are taken.
    """
    symbols = [one.atoms.get_chemical_symbols() for one in both]
    shares = np.array([[names.count(element) / len(names) for element in elements] for names in symbols])
    wanted = np.array([one.difference - _shift(one, taken or {}) for one in both])
    weights = np.ones(len(both))
    for _ in range(50):
        constants, *_ = np.linalg.lstsq(shares * weights[:, None], wanted * weights, rcond=1e-10)
        left = wanted - shares @ constants
        weights = (1 + (left / OUTLIER_eV_per_atom) ** 2) ** -0.25
    before, after = (float(np.quantile(np.abs(values), MOST_OF_THEM)) for values in (wanted, left))
    return dict(zip(elements, constants.tolist(), strict=True)), before, after


def check_energies(both: Sequence[Both], constants: Mapping[str, float]) -> None:
    """Raise `BadInput` for a frame whose energy agrees with the teacher's in another unit alone.

    Args:
        constants: of `offsets`.
    """
    for one in both:
        shift = _shift(one, constants)
        if one.atoms.calc.results["energy"] == 0.0:
            continue  # in no unit
        if abs(one.difference - shift) >= FAR_eV_per_atom and (unit := _explaining([one], shift)):
            raise BadInput(f"{place_of(one.atoms)}: its energy is given in {unit}, as it seems. Give eV throughout.")


def check_outliers(both: Sequence[Both], constants: Mapping[str, float]) -> list[str]:
    """Warn of energies far from all others'; refuses them where the teacher knows the frame by its forces.

    The difference to the teacher, less the constants, is judged by its median absolute deviation over all frames and
    by FAR: compressed cells are 0.2 eV/atom off with a usable teacher, and stay.

    Args:
        constants: of `offsets`.

    Raises:
        BadInput: an energy that is far off and exactly zero, or in a frame whose forces agree with the teacher's.
    """
    if len(both) < FEWEST:
        return []
    left = np.array([one.difference - _shift(one, constants) for one in both])
    apart = np.abs(left - np.median(left))
    limit = max(FAR_eV_per_atom, OUTLIER_SPREADS * 1.4826 * float(np.median(apart)))
    warnings = list[str]()
    if (spread := float(np.median(apart))) > AGREES_eV_per_atom:
        warnings.append(
            f"the DFT energies scatter by {spread:.2g} eV/atom (median) about the teacher's, less a constant for each"
            " element. Look at their unit and sign, and whether they belong to these structures"
        )
    for one, value in ((both[place], left[place]) for place in np.flatnonzero(apart > limit)):
        forces, teacher = one.atoms.calc.results["forces"], one.teacher["forces"]
        size, place = rms(teacher), place_of(one.atoms)
        finding = (
            f"{place}: its energy is {value:+.3g} eV/atom from the teacher's (less a constant for each element),"
            f" where most of {len(both)} structures are within {spread:.2g}"
        )
        if one.atoms.calc.results["energy"] == 0.0:
            raise BadInput(f"{finding}: it is 0 eV, which is no energy. Give it, or remove the frame.")
        if size > REAL_FORCE_eV_per_A and rms(forces - teacher) < EXPLAINED * size:
            raise BadInput(
                f"{finding}, and its forces agree with the teacher's. Correct the energy or remove the frame."
            )
        warnings.append(f"{finding}. Look at the frame: its energy may be wrong, or the teacher does not know it")
    return warnings


def _shift(one: Both, constants: Mapping[str, float]) -> float:
    """Return the mean over the atoms of the elements' constants, eV/atom."""
    return sum(constants.get(symbol, 0.0) for symbol in one.atoms.get_chemical_symbols()) / len(one.atoms)


def _explaining(ones: Sequence[Both], shift: float = 0.0) -> str | None:
    """Return the unit in which every DFT energy, less a shift (eV/atom), agrees with the teacher's."""
    dft, teacher = _energies(ones)
    worst = {unit: float(np.abs(dft * factor - shift - teacher).max()) for unit, factor in ENERGY_UNITS.items()}
    likely = min(worst, key=worst.__getitem__)
    return likely if worst[likely] < AGREES_eV_per_atom else None


def other_reference(before: float, after: float) -> bool:
    """Return whether differences (eV/atom, before and after `offsets`) show another zero of energy."""
    return before > SAME_REFERENCE_eV_per_atom and after < EXPLAINED * before


def refused(constants: Mapping[str, float], before: float, after: float, structures: int) -> str:
    """Return the message when DFT energies have another zero than the teacher's."""
    listed = ", ".join(f"{symbol} {value:+.4f}" for symbol, value in constants.items())
    return (
        f"the DFT energies have another zero than the teacher's: most of {structures} common structures differ by up to"
        f" {before:.3f} eV/atom, and by up to {after:.3f} eV/atom after a constant for each element ({listed} eV an"
        " atom). Set dft.energies: align to take these constants from the DFT energies, or give energies of the"
        " teacher's kind of calculation."
    )


def check_zero(
    both: Sequence[Both], elements: Sequence[str], constants: Mapping[str, float], of: str, than: str
) -> None:
    """Raise `BadInput` when energies have another zero than those that the constants were found on.

    Args:
        constants: eV an atom.
        of, than: what the message calls the two.
    """
    more, before, after = offsets(both, elements, constants)
    check_energies(both, {symbol: more[symbol] + constants.get(symbol, 0.0) for symbol in elements})
    if other_reference(before, after):
        listed = ", ".join(f"{symbol} {value:+.4f}" for symbol, value in more.items())
        raise BadInput(
            f"the energies of the {of} have another zero than those of the {than} ({listed} eV an atom more). Give"
            " energies of one kind of calculation."
        )


def teachers_errors(both: Sequence[Both], constants: Mapping[str, float]) -> dict[str, float | None]:
    """Compare the teacher with DFT, after the constants: about the best that a student of this teacher can do."""
    energies = np.array([one.difference - _shift(one, constants) for one in both])
    forces = [np.ravel(one.atoms.calc.results["forces"]) - np.ravel(one.teacher["forces"]) for one in both]
    force = np.concatenate([np.zeros(0), *forces])
    return {
        **errors("energy", "meV_per_atom", energies, np.zeros_like(energies)),
        **errors("force", "meV_per_A", force, np.zeros_like(force)),
    }
