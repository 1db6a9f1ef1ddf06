"""How to use the potential: a section of the report, and the LAMMPS input of the run folder. Pure.

Source: the LAMMPS manual, pages pair_pace, read_data, fix_pair.
"""

from __future__ import annotations

import json
import shlex
import textwrap

from ase.data import atomic_masses, atomic_numbers

from containers.tensorpot.frames.lammps_structure import SKIN_A
from containers.tensorpot.student.lammps import pair_lines
from tasks.report.markup import Code, Section, Table, number
from tasks.report.summary import RunSummary

INSTALL = "conda install -c conda-forge lammps"
MOST_ON_A_GPU = 380
"""Neighbours of an atom: `pace/kk` keeps 4 bytes for each neighbour of 32 atoms in the 48 KiB that a GPU shares."""
LEAST_BINDING_EV = 0.5
"""eV/atom. Atoms of every element but the noble gases are bound by more in its crystal (Kittel, Introduction to Solid
State Physics, table of cohesive energies: 0.67 of mercury is the smallest, at most 0.16 of noble gases)."""
E0S_FROM = {
    "teacher": "They are the teacher's own.",
    "isolated_atoms": "They are energies of isolated atoms in the data.",
    "least_squares": "They were fitted to the teacher's energies by least squares.",
    "given": "They come from the config.",
}
E0_KINDS = {
    "isolated_atoms": "energies of isolated atoms",
    "averages": "averages over the data, not energies of atoms",
    "probably_isolated_atoms": "probably energies of isolated atoms",
    "probably_averages": "probably averages over the data, not energies of atoms",
}


def kind_of_e0s(summary: RunSummary) -> str:
    """Return a key of E0_KINDS. Where the source leaves it open, the energies of the training structures decide."""
    if summary.baseline.e0s_from == "isolated_atoms":
        return "isolated_atoms"
    if summary.baseline.e0s_from == "least_squares":
        return "averages"
    median = summary.metrics("frames")["energy_less_e0s_eV_per_atom"]["all"]
    bound = median is not None and median < -LEAST_BINDING_EV
    return "probably_isolated_atoms" if bound else "probably_averages"


def usage(summary: RunSummary) -> Section:
    """How to use the potential, and which energies it leaves out."""
    kind, frames, baseline = kind_of_e0s(summary), summary.metrics("frames"), summary.baseline
    medians = frames["energy_less_e0s_eV_per_atom"]
    if kind.endswith("averages"):
        meaning = (
            "In the .yace, an atom far from all others has the energy 0, which is about the energy of a bound atom. So"
            " do not read cohesive, atomization or sublimation energies from it: they would be wrong by eV per atom."
        )
    else:
        meaning = (
            "In the .yace, an atom far from all others has the energy 0, and the energy of a structure is about its"
            " binding energy."
        )
    measured = {**summary.metrics("pace_corerep"), **summary.metrics("evaluate")}
    sizes = {
        "functions": "basis functions",
        "parameters": "parameters",
        "yaml_bytes": "potential.yaml (bytes)",
        "yace_bytes": "potential.yace (bytes)",
        "yace_difference_eV_per_atom": "difference of .yace and .yaml (eV/atom)",
        "student_us_per_atom": "time of one thread (µs/atom)",
    }
    head = ("element", "E0 (eV/atom)", "training structures with it: median energy relative to the E0s (eV/atom)")
    energies = [(one, repr(baseline.e0s_eV[one]), number(medians[one])) for one in summary.elements]
    return Section(
        "How to use the potential",
        [
            "In this folder, `lmp -in in.lammps` runs LAMMPS with the potential on a training structure,"
            f" `structure.data`. LAMMPS needs its package ML-PACE: `{INSTALL}`. These lines choose the potential:",
            Code("\n".join(["units metal", *pair_lines(summary.elements, bool(baseline.pairs))])),
            neighbour_words(int(frames["lammps_neighbours"])),
            "Energies of the potential exclude the reference energies (E0) below, one for each atom. Add them to"
            " compare with the teacher's total energies. Forces and stresses need no correction.",
            Table(head, energies),
            f"{E0S_FROM[baseline.e0s_from]} Half of the training structures have less than"
            f" {number(medians['all'])} eV/atom relative to the E0s. The E0s are {E0_KINDS[kind]}. {meaning}",
            "The E0s cancel where the atoms are the same on both sides and both energies come from this potential. That"
            " holds for E(N-1) - (N-1)/N E(N) of a vacancy in a crystal of one element, for surfaces, and for formation"
            " energies relative to crystals of the elements. Never use E0, or 0, as the energy of a removed atom. Never"
            " mix energies of the .yace with total energies of DFT or the teacher.",
            Table((), [(text, number(measured[key])) for key, text in sizes.items() if measured.get(key) is not None]),
            "In Python: in this folder, `from calculator import calculator` gives an ASE calculator of total energies,"
            " forces, stress and γ. It needs only ASE and python-ace.",
            "The extrapolation grade γ of new structures comes from `potential.yaml` with `potential.asi`. "
            "`in.lammps` shows the lines.",
            "The folder `fit` has pacemaker's input and data of each fit that led to the potential. Its `README.md`"
            " says how to repeat them.",
        ],
    )


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


def lammps_input(summary: RunSummary) -> str:
    """The text of `in.lammps`, which runs as it is beside `structure.data`; atom type i is `elements[i - 1]`."""
    elements, e0s_eV, frames = summary.elements, summary.baseline.e0s_eV, summary.metrics("frames")
    pairs, types = bool(summary.baseline.pairs), list(enumerate(elements, start=1))
    listed = ", ".join(f"{number} = {element}" for number, element in types)
    neighbours = neighbour_words(int(frames["lammps_neighbours"]))
    grade_lines = [
        *pair_lines(elements, pairs, grades=True),
        "fix gamma all pair 10 pace/extrapolation gamma 1",
        "compute max_gamma all reduce max f_gamma",
        "thermo_style custom step temp pe press c_max_gamma",
    ]
    lines = [
        f"# LAMMPS input for the ACE potential of the run '{summary.name}'. Run in this folder: lmp -in in.lammps",
        f"# LAMMPS needs its package ML-PACE. This installs such a LAMMPS: {INSTALL}",
        "# Units: Å, eV, ps.",
        "",
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "",
        f"# A structure of the training set: {frames['lammps_structure']}.",
        f"# Replace it by your own, with exactly {len(elements)} atom type{'s' * (len(elements) > 1)}: {listed}.",
        "# A molecule or a cluster needs empty space around it, wider than the cutoff. ASE writes such a file:",
        f"# ase.io.write('my.data', atoms, format='lammps-data', specorder={list(elements)}, reduce_cell=True)",
        "read_data structure.data",
        "",
        *(f"mass {number} {atomic_masses[atomic_numbers[element]]:.4f}  # {element}" for number, element in types),
        "",
        *pair_lines(elements, pairs),
        "",
        "# On a GPU (lmp -k on g 1 -sf kk -in in.lammps) write `product` instead of `recursive`.",
        *textwrap.wrap(neighbours, 118, initial_indent="# ", subsequent_indent="# "),
        "",
        "# Energies exclude the reference energies (E0). For the teacher's total energy add for every atom:",
        *(f"#   {element}: {e0s_eV[element]!r} eV" for element in elements),
        "# report.html says whether they are energies of atoms, and what that means for energies of the potential.",
        "",
        "# How far the atoms are from the training data: the extrapolation grade gamma, every 10 steps (slower).",
        "# Above 1 the potential extrapolates; far above, do not trust it. Replace the pair lines above by:",
        *(f"# {line}" for line in grade_lines),
        "",
        "thermo 10",
        "run 0  # energy and forces once; for molecular dynamics replace it by:",
        "# timestep 0.001",
        "# velocity all create 300 42",
        "# fix integrate all nve",
        "# run 1000",
    ]
    return "\n".join(lines) + "\n"


def ml_peg(summary: RunSummary) -> str:
    """The text of `ml_peg.yml`: the potential as an entry of ML-PEG's list of models.

    Source: ML-PEG 0.5 (https://github.com/ddmms/ml-peg), developer guide, page add_models. It imports `module`, calls
    `class_name` with `kwargs`, `device` and `default_dtype`, and takes the result as an ASE calculator.
    """
    options = f"--models-file ml_peg.yml --models {shlex.quote(summary.name)}"
    return f"""\
# The ACE potential of this run for the benchmarks of ML-PEG. ML-PEG's environment needs python-ace. In this folder:
#   PYTHONPATH=$PWD ml_peg calc --category bulk_crystal --test lattice_constants {options}
#   PYTHONPATH=$PWD ml_peg analyse --category bulk_crystal --test lattice_constants {options}
# Choose benchmarks that need no other elements. Another folder: kwargs: {{folder: /path/to/runs/NAME}}.
{json.dumps(summary.name, ensure_ascii=False)}:
  module: calculator
  class_name: calculator
  device: cpu
  datasets: null
  additional_supported_elements: {json.dumps(summary.elements)}
  trained_on_dispersion: false  # true if the teacher's data have dispersion; else some benchmarks add D3
  # level_of_theory: PBE  # the functional of the teacher's data, which ML-PEG compares with the benchmark's
  kwargs: {{}}
"""
