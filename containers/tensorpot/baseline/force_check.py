"""DFT forces beside the teacher's on the same structures: their sign, the order of atoms and axes, their size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from containers.contract import BadInput
from containers.tensorpot.baseline.dft_agreement import (
    A_PAIR,
    EXPLAINED,
    FEWEST,
    PROPORTIONAL,
    Both,
    REAL_FORCE_eV_per_A,
    listed,
    rms,
)

RELATED = 0.5
"""Median cosine of DFT's forces and the teacher's below which they hardly belong to one another. A good teacher has
0.95, a poor one 0.8; forces of other atoms have 0."""
STEEP = 1.6
"""A soft teacher's forces are too small by a quarter; a factor beyond this is worth a warning."""
STRONG_eV_per_A = 0.3
"""Root mean squares of both from which forces that point against the teacher's are worth a warning."""


def check_forces(both: Sequence[Both]) -> list[str]:
    """Warn of forces that hardly are those of the structures; what is certain is refused.

    Judged for each file, over frames in which the teacher's forces are real. Frames of one or two atoms have a
    direction but no order, and are in proportion whatever the teacher says: they count in the median alone.

    Raises:
        BadInput: forces that are exactly zero, of the other sign, or in another order of the atoms or axes.
    """
    files: defaultdict[str, list[Both]] = defaultdict(list)
    for one in both:
        if len(one.atoms) > 1 and rms(one.teacher["forces"]) > REAL_FORCE_eV_per_A:
            files[one.atoms.info["source"]].append(one)
    warnings = list[str]()
    for source, ones in files.items():
        if empty := [one for one in ones if not np.any(one.atoms.calc.results["forces"])]:
            raise BadInput(
                f"{source}: {listed(empty)} have forces of exactly zero, where the teacher's are"
                f" {rms(empty[0].teacher['forces']):.2g} eV/Å: they were not computed. Give the forces, or remove the"
                " frames."
            )
        cosines = np.zeros(len(ones))
        for place, one in enumerate(ones):
            forces, teacher = one.atoms.calc.results["forces"], one.teacher["forces"]
            lengths = float(np.linalg.norm(forces) * np.linalg.norm(teacher))
            cosines[place] = float(np.sum(np.multiply(forces, teacher))) / lengths if lengths else 0.0
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
        slope = float(np.median([rms(one.atoms.calc.results["forces"]) / rms(one.teacher["forces"]) for one in ones]))
        if len(ones) >= FEWEST and middle >= PROPORTIONAL and not 1 / STEEP <= slope <= STEEP:
            warnings.append(
                f"{source}: its forces are {slope:.2g} times the teacher's in the median of {len(ones)} frames. Look at"
                " their unit: a factor of 0.53 is eV/Bohr"
            )
        strong = [
            one
            for one, cosine in several
            if cosine < 0 and min(map(rms, (one.atoms.calc.results["forces"], one.teacher["forces"]))) > STRONG_eV_per_A
        ]
        if strong and (middle >= RELATED or len(ones) < FEWEST):
            warnings.append(
                f"{source}: the forces of {len(strong)} of {len(ones)} frames point against the teacher's"
                f" ({listed(strong)}; cosine over all frames: {middle:.2f} in the median). Look at their sign, and"
                " whether they belong to these structures"
            )
    return warnings


def _force_order(ones: Sequence[Both]) -> str | None:
    """Return the order of the forces that agrees with the teacher's, if there is one."""
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
            left[name].append(rms(guess - teacher) / rms(teacher))
    medians = {name: float(np.median(shares)) for name, shares in left.items()}
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] < EXPLAINED * min(1.0, medians[""]) else None
