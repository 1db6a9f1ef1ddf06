"""The pair terms as a table for LAMMPS's `pair_style table`. Pure. Source: the LAMMPS manual, page pair_table.

LAMMPS interpolates in the squared distance. With RSQ spacing and as many points as its style requires it takes our
values as they are and runs cubic splines through them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from containers.tensorpot.student.baseline import PairTerm
from containers.tensorpot.student.calculator import pair_term

POINTS = 10_000
"""Points of every table; `pair_style table spline` must be given the same number."""
CLOSEST = 0.2
"""Å, where a table begins: LAMMPS stops when two atoms come closer."""
NO_TERMS = "# No pair terms: the potential alone is the student.\n"


def table_text(pairs: Mapping[str, PairTerm]) -> str:
    """Return the file: a section for each pair, named as the pair; one comment when there is no pair."""
    if not pairs:
        return NO_TERMS
    text = "# UNITS: metal\n# What the student's energies leave out: distance (Å), energy (eV), force (eV/Å).\n"
    for name, term in pairs.items():
        distances = np.sqrt(np.linspace(CLOSEST**2, term.outer_A**2, POINTS))
        energies, slopes = pair_term(name, term.model_dump(), distances)
        ends, step = [], 1e-5  # derivatives of the force, eV/Å², as the spline wants them at its ends
        for end in (CLOSEST, term.outer_A):
            _, (before, after) = pair_term(name, term.model_dump(), np.array([end - step, end + step]))
            ends.append(float(-(after - before) / (2 * step)))
        text += f"\n{name}\nN {POINTS} RSQ {CLOSEST!r} {term.outer_A!r} FPRIME {ends[0]!r} {ends[1]!r}\n\n"
        rows = zip(range(1, POINTS + 1), distances.tolist(), energies.tolist(), (-slopes).tolist(), strict=True)
        text += "".join(f"{n} {r:.15g} {energy:.17g} {force:.17g}\n" for n, r, energy, force in rows)
    return text
