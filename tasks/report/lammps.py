"""A LAMMPS input that uses the potential. Pure.

Source: the LAMMPS manual, pages pair_pace, pair_hybrid, pair_table, read_data, fix_pair.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

from ase.data import atomic_masses, atomic_numbers

from containers.tensorpot.frames.lammps_structure import SKIN_A
from containers.tensorpot.student.lammps_table import POINTS

INSTALL = "conda install -c conda-forge lammps"
MOST_ON_A_GPU = 380
"""Neighbours of an atom: `pace/kk` keeps 4 bytes for each neighbour of 32 atoms in the 48 KiB that a GPU shares."""


def pair_lines(elements: Sequence[str], pairs: bool) -> list[str]:
    """The lines that choose the potential, with its pair terms when there are some; type i is `elements[i - 1]`."""
    return _styles("pace", "recursive", "potential.yace", elements, pairs)


def grade_lines(elements: Sequence[str], pairs: bool) -> list[str]:
    """The lines that choose the same potential with its extrapolation grade γ, per atom and the largest."""
    return [
        *_styles("pace/extrapolation", "", "potential.yaml potential.asi", elements, pairs),
        "fix gamma all pair 10 pace/extrapolation gamma 1",
        "compute max_gamma all reduce max f_gamma",
        "thermo_style custom step temp pe press c_max_gamma",
    ]


def _styles(style: str, options: str, files: str, elements: Sequence[str], pairs: bool) -> list[str]:
    chosen = f"{style} {options}".strip()
    if not pairs:
        return [f"pair_style {chosen}", f"pair_coeff * * {files} {' '.join(elements)}"]
    return [
        f"pair_style hybrid/overlay {chosen} table spline {POINTS}",
        f"pair_coeff * * {style} {files} {' '.join(elements)}",
        *(
            f"pair_coeff {first} {second} table reference.table {'-'.join(sorted((one, other)))}"
            for (first, one), (second, other) in combinations_with_replacement(enumerate(elements, start=1), 2)
        ),
    ]


def neighbour_words(most: int) -> str:
    """How many neighbours an atom has, and a warning where that is too many for LAMMPS on a GPU.

    Args:
        most: neighbours of an atom of the training set within the cutoff and LAMMPS's skin.
    """
    words = (
        f"An atom of the training set has up to {most} neighbours within the cutoff and LAMMPS's skin of {SKIN_A:g} Å."
    )
    if most <= MOST_ON_A_GPU:
        return words
    return (
        f"{words} WARNING: pace/kk on a GPU stops above about {MOST_ON_A_GPU}. Run on CPUs, make the skin thinner"
        " (neighbor 1.0 bin), or fit with a smaller pacemaker.cutoff."
    )


def lammps_input(
    name: str, elements: Sequence[str], e0s_eV: Mapping[str, float], pairs: bool, structure: str, neighbours: int
) -> str:
    """The text of `in.lammps`, which runs as it is beside `structure.data`.

    Args:
        name: of the run.
        elements: chemical symbols; atom type i is `elements[i - 1]`.
        e0s_eV: reference energy of each element, which the potential's energies leave out.
        pairs: whether the student is the sum with the pair terms in `reference.table`.
        structure: where the structure in `structure.data` comes from.
        neighbours: most neighbours of an atom of the training set, see `neighbour_words`.
    """
    listed = ", ".join(f"{number} = {element}" for number, element in enumerate(elements, start=1))
    masses = [
        f"mass {number} {atomic_masses[atomic_numbers[element]]:.4f}  # {element}"
        for number, element in enumerate(elements, start=1)
    ]
    lines = [
        f"# LAMMPS input for the ACE potential of the run '{name}'. Run in this folder: lmp -in in.lammps",
        f"# LAMMPS needs its package ML-PACE. This installs such a LAMMPS: {INSTALL}",
        "# Units: Å, eV, ps.",
        "",
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "",
        f"# A structure of the training set: {structure}.",
        f"# Replace it by your own, with exactly {len(elements)} atom type{'s' * (len(elements) > 1)}: {listed}.",
        "# A molecule or a cluster needs empty space around it, wider than the cutoff. ASE writes such a file:",
        f"# ase.io.write('my.data', atoms, format='lammps-data', specorder={list(elements)}, reduce_cell=True)",
        "read_data structure.data",
        "",
        *masses,
        "",
        *pair_lines(elements, pairs),
        "",
        "# On a GPU (lmp -k on g 1 -sf kk -in in.lammps) write `product` instead of `recursive`.",
        *textwrap.wrap(neighbour_words(neighbours), 118, initial_indent="# ", subsequent_indent="# "),
        "",
        "# Energies exclude the reference energies (E0). For the teacher's total energy add for every atom:",
        *(f"#   {element}: {e0s_eV[element]!r} eV" for element in elements),
        "# report.html says whether they are energies of atoms, and what that means for energies of the potential.",
        "",
        "# How far the atoms are from the training data: the extrapolation grade gamma, every 10 steps (slower).",
        "# Above 1 the potential extrapolates; far above, do not trust it. Replace the pair lines above by:",
        *(f"# {line}" for line in grade_lines(elements, pairs)),
        "",
        "thermo 10",
        "run 0  # energy and forces once; for molecular dynamics replace it by:",
        "# timestep 0.001",
        "# velocity all create 300 42",
        "# fix integrate all nve",
        "# run 1000",
    ]
    return "\n".join(lines) + "\n"
