"""DFT labels beside the teacher's on the same structures: are the units the same, and the zero of energy?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from containers.contract import BadInput
from containers.metrics import errors

Floats = NDArray[np.float64]

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
"""Root mean squares above which the teacher's forces, and its energies about their mean, tell a unit."""
A_PAIR = 2
"""Atoms whose forces are in proportion whatever the teacher says: a factor tells a unit only if it is one's."""
FEWEST = 5
"""Energies of one composition, or frames with forces, from which a unit, a sign or an order is told."""
RELATED = 0.5
"""Median cosine of DFT's forces and the teacher's below which they hardly belong to one another. A good teacher has
0.95, a poor one 0.8; forces of other atoms have 0."""
STEEP = 1.6
"""A soft teacher's forces are too small by a quarter; a factor beyond this is worth a warning."""
STRONG_eV_per_A = 0.3
"""Root mean squares of both from which forces that point against the teacher's are worth a warning."""
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
    def place(self) -> str:
        """File and frame, the beginning of a message."""
        return _place(self.atoms)

    @property
    def difference(self) -> float:
        """DFT energy less the teacher's, eV/atom."""
        return float(self.atoms.calc.results["energy"] - self.teacher["energy"]) / len(self.atoms)


def _place(atoms: Atoms) -> str:
    return f"{atoms.info['source']}, frame {atoms.info['row']} (from 0)"


def matched(dft: Sequence[Atoms], by_teacher: Sequence[Atoms]) -> list[Both]:
    """The DFT structures that the teacher labelled too."""
    answers = {atoms.info["id"]: atoms.calc.results for atoms in by_teacher}
    return [Both(atoms, answers[atoms.info["id"]]) for atoms in dft if atoms.info["id"] in answers]


def not_compared(
    dft: Sequence[Atoms], by_teacher: Sequence[Atoms], reasons: Mapping[str, str]
) -> dict[str, int | str | None]:
    """How many DFT structures no check of units or zero saw, because the teacher has no label of them.

    Args:
        reasons: why, by id.

    Returns:
        `dft_not_compared`, and `dft_not_compared_first`: file, frame and reason of the first, None when there is none.
    """
    answered = {atoms.info["id"] for atoms in by_teacher}
    left = [atoms for atoms in dft if atoms.info["id"] not in answered]
    first = min(left, key=lambda atoms: (atoms.info["source"], atoms.info["row"]), default=None)
    because = reasons.get(first.info["id"], "the teacher has no label of it") if first else ""
    return {"dft_not_compared": len(left), "dft_not_compared_first": f"{_place(first)}: {because}" if first else None}


def check_units(both: Sequence[Both]) -> None:
    """Raise `BadInput` for the first frame whose forces, or the first file whose energies, are in another unit."""
    for one in both:
        factor = _proportion(np.ravel(one.atoms.calc.results["forces"]), np.ravel(one.teacher["forces"]))
        if factor is not None and len(one.atoms) <= A_PAIR and not _likely(factor, UNITS):
            continue  # a teacher that is wrong at a short distance
        if factor is not None and np.sqrt(np.mean(np.square(one.teacher["forces"]))) > REAL_FORCE_eV_per_A:
            raise BadInput(f"{one.place}: its forces are {_suggest(factor, 'eV/Å', UNITS)}")
    files: defaultdict[str, list[Both]] = defaultdict(list)
    alike: defaultdict[tuple[str, str], list[Both]] = defaultdict(list)
    for one in both:
        files[one.atoms.info["source"]].append(one)
        alike[one.atoms.info["source"], one.atoms.get_chemical_formula(empirical=True)].append(one)
    for source, ones in files.items():
        if min(abs(one.difference) for one in ones) > FAR_eV_per_atom and (unit := _explaining(ones)):
            raise BadInput(f"{source}: its energies are given in {unit}, as it seems. Give eV throughout.")
    for (source, _), ones in alike.items():
        if len(ones) >= FEWEST and (factor := _energy_factor(ones)) is not None:
            raise BadInput(f"{source}: its energies vary {_suggest(factor, 'eV', ENERGY_UNITS)}")


def check_forces(both: Sequence[Both]) -> list[str]:
    """Warnings for forces that hardly are those of the structures; what is certain is refused.

    Judged for each file, over frames in which the teacher's forces are real. Frames of one or two atoms have a
    direction but no order, and are in proportion whatever the teacher says: they count in the median alone.

    Raises:
        BadInput: forces that are exactly zero, of the other sign, or in another order of the atoms or axes.
    """
    files: defaultdict[str, list[Both]] = defaultdict(list)
    for one in both:
        if len(one.atoms) > 1 and _size(one.teacher["forces"]) > REAL_FORCE_eV_per_A:
            files[one.atoms.info["source"]].append(one)
    warnings = list[str]()
    for source, ones in files.items():
        if empty := [one for one in ones if not np.any(one.atoms.calc.results["forces"])]:
            raise BadInput(
                f"{source}: {listed(empty)} have forces of exactly zero, where the teacher's are"
                f" {_size(empty[0].teacher['forces']):.2g} eV/Å: they were not computed. Give the forces, or remove the"
                " frames."
            )
        cosines = np.array([_cosine(one.atoms.calc.results["forces"], one.teacher["forces"]) for one in ones])
        middle = float(np.median(cosines))
        several = [(one, cosine) for one, cosine in zip(ones, cosines, strict=True) if len(one.atoms) > A_PAIR]
        turned = [one for one, cosine in several if cosine <= -PROPORTIONAL]
        if len(ones) >= FEWEST and middle < -RELATED:
            turned = [one for one, cosine in zip(ones, cosines, strict=True) if cosine < 0]
        if len(turned) >= FEWEST:
            raise BadInput(
                f"{source}: the forces of {len(turned)} of {len(ones)} frames point against the teacher's"
                f" ({listed(turned)}; cosine over all frames: {middle:.2f} in the median): they look like gradients,"
                " which are minus the forces. Give forces (eV/Å)."
            )
        if len(ones) >= FEWEST and middle < RELATED:
            if order := _force_order([one for one, _ in several]):
                raise BadInput(f"{source}: its forces are {order}, as it seems. Give those of each atom in its line.")
            warnings.append(
                f"{source}: its forces hardly agree with the teacher's: their cosine is {middle:.2f} in the median of"
                f" {len(ones)} frames, where a usable teacher has 0.8 and more. Look at whether the forces belong to"
                " these structures (order of atoms and axes, frames of two files mixed up), or whether the teacher"
                " knows such structures"
            )
        slope = float(
            np.median([_size(one.atoms.calc.results["forces"]) / _size(one.teacher["forces"]) for one in ones])
        )
        if len(ones) >= FEWEST and middle >= PROPORTIONAL and not 1 / STEEP <= slope <= STEEP:
            warnings.append(
                f"{source}: its forces are {slope:.2g} times the teacher's in the median of {len(ones)} frames. Look at"
                " their unit: a factor of 0.53 is eV/Bohr"
            )
        strong = [
            one
            for one, cosine in several
            if cosine < 0
            and min(map(_size, (one.atoms.calc.results["forces"], one.teacher["forces"]))) > STRONG_eV_per_A
        ]
        if strong and (middle >= RELATED or len(ones) < FEWEST):
            warnings.append(
                f"{source}: the forces of {len(strong)} of {len(ones)} frames point against the teacher's"
                f" ({listed(strong)}; cosine over all frames: {middle:.2f} in the median). Look at their sign, and"
                " whether they belong to these structures"
            )
    return warnings


def _force_order(ones: Sequence[Both]) -> str | None:
    """How the forces would have to be reordered to agree with the teacher's, if an order does it."""
    if len(ones) < FEWEST:
        return None
    left: defaultdict[str, list[float]] = defaultdict(list)
    for one in ones:
        forces, teacher = one.atoms.calc.results["forces"], one.teacher["forces"]
        guesses = {"": forces, "in the reversed order of the atoms": forces[::-1]}
        for by, values in {"number": one.atoms.numbers, "symbol": np.array(one.atoms.get_chemical_symbols())}.items():
            guesses[f"sorted by chemical {by}, but the atoms are not"] = forces[
                np.argsort(np.argsort(values, kind="stable"))
            ]
        for axes in list(permutations(range(3)))[1:]:
            guesses[f"with other axes ({' '.join('xyz'[axis] for axis in np.argsort(axes))})"] = forces[:, axes]
        for name, guess in guesses.items():
            left[name].append(_size(guess - teacher) / _size(teacher))
    medians = {name: float(np.median(shares)) for name, shares in left.items()}
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] < EXPLAINED * min(1.0, medians[""]) else None


def _size(forces: Floats) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(forces))))


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.sum(np.multiply(one, other))) / lengths if lengths else 0.0


def listed(ones: Sequence[Both]) -> str:
    """Their frames, for a message."""
    more = f" and {len(ones) - SHOWN} more" if len(ones) > SHOWN else ""
    return f"frames {', '.join(str(one.atoms.info['row']) for one in ones[:SHOWN])}{more}, from 0"


def _energy_factor(ones: Sequence[Both]) -> float | None:
    """DFT energies per atom about their median over the teacher's, when that is no teacher's error."""
    dft = np.array([one.atoms.calc.results["energy"] / len(one.atoms) for one in ones])
    teacher = np.array([one.teacher["energy"] / len(one.atoms) for one in ones])
    if np.std(teacher) <= REAL_ENERGY_eV_per_atom:
        return None
    return _proportion(dft - np.median(dft), teacher - np.median(teacher))


def _proportion(found: Floats, expected: Floats) -> float | None:
    """`found` over `expected` when they are proportional by a factor outside SLOPES."""
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
    """The unit that a factor suggests, if any."""
    near = {name: abs(np.log(size * factor)) for name, size in units.items()}
    likely = min(near, key=near.__getitem__)
    return likely if near[likely] < np.log(NEAR) else None


def offsets(
    both: Sequence[Both], elements: Sequence[str], taken: Mapping[str, float] | None = None
) -> tuple[dict[str, float], float, float]:
    """DFT energy less the teacher's, as a constant for each element.

    Args:
        taken: constants (eV an atom) that are taken from the DFT energies before.

    Returns:
        eV an atom by element, and the MOST_OF_THEM quantile of the differences before and after (eV/atom). Structures
        that fit badly count less; what the compositions do not tell apart is shared with the smallest constants.
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
            raise BadInput(f"{one.place}: its energy is given in {unit}, as it seems. Give eV throughout.")


def check_outliers(both: Sequence[Both], constants: Mapping[str, float]) -> list[str]:
    """Warnings for energies far from all others'; refuses them where the teacher knows the frame by its forces.

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
        size = _size(teacher)
        told = (
            f"{one.place}: its energy is {value:+.3g} eV/atom from the teacher's (less a constant for each element),"
            f" where most of {len(both)} structures are within {spread:.2g}"
        )
        if one.atoms.calc.results["energy"] == 0.0:
            raise BadInput(f"{told}: it is 0 eV, which is no energy. Give it, or remove the frame.")
        if size > REAL_FORCE_eV_per_A and _size(forces - teacher) < EXPLAINED * size:
            raise BadInput(f"{told}, and its forces agree with the teacher's. Correct the energy or remove the frame.")
        warnings.append(f"{told}. Look at the frame: its energy may be wrong, or the teacher does not know it")
    return warnings


def _shift(one: Both, constants: Mapping[str, float]) -> float:
    """eV/atom: constants of the elements in the mean over the atoms."""
    return sum(constants.get(symbol, 0.0) for symbol in one.atoms.get_chemical_symbols()) / len(one.atoms)


def _explaining(ones: Sequence[Both], shift: float = 0.0) -> str | None:
    """The unit in which every DFT energy, less a shift (eV/atom), agrees with the teacher's."""
    sizes = np.array([len(one.atoms) for one in ones])
    dft = np.array([one.atoms.calc.results["energy"] for one in ones]) / sizes
    teacher = np.array([one.teacher["energy"] for one in ones]) / sizes
    worst = {unit: float(np.abs(dft * factor - shift - teacher).max()) for unit, factor in ENERGY_UNITS.items()}
    likely = min(worst, key=worst.__getitem__)
    return likely if worst[likely] < AGREES_eV_per_atom else None


def other_reference(before: float, after: float) -> bool:
    """Whether differences (eV/atom, before and after `offsets`) show another zero of energy."""
    return before > SAME_REFERENCE_eV_per_atom and after < EXPLAINED * before


def refused(constants: Mapping[str, float], before: float, after: float, structures: int) -> str:
    """The message when DFT energies have another zero than the teacher's."""
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
    """The teacher against DFT, after the constants: about the best that a student of this teacher can do."""
    energies = np.array([one.difference - _shift(one, constants) for one in both])
    forces = [np.ravel(one.atoms.calc.results["forces"]) - np.ravel(one.teacher["forces"]) for one in both]
    force = np.concatenate([np.zeros(0), *forces])
    return {
        **errors("energy", "meV_per_atom", energies, np.zeros_like(energies)),
        **errors("force", "meV_per_A", force, np.zeros_like(force)),
    }
