"""Words on the reference energies: what they are, and what that means for energies of the `.yace`. Pure."""

from __future__ import annotations

from html import escape

from tasks.report.markup import table
from tasks.report.summary import RunSummary
from tasks.report.tables import number

LEAST_BINDING_EV = 0.5
"""eV/atom. Atoms of every element but the noble gases are bound by more in its crystal (Kittel, Introduction to Solid
State Physics, table of cohesive energies: 0.67 of mercury is the smallest, at most 0.16 of noble gases)."""

FROM = {
    "teacher": "They are the teacher's own.",
    "isolated_atoms": "They are energies of isolated atoms in the data.",
    "least_squares": "They were fitted to the teacher's energies by least squares.",
    "given": "They were given in the config.",
}
KINDS = {
    "isolated_atoms": "energies of isolated atoms",
    "averages": "averages over the data, no energies of atoms",
    "probably_isolated_atoms": "probably energies of isolated atoms",
    "probably_averages": "probably averages over the data, no energies of atoms",
}
MEANING = {
    True: "An atom far from all others has the energy 0 in the .yace, about the energy of a bound atom. So cohesive,"
    " atomization and sublimation energies cannot be read from it: they would be wrong by eV an atom.",
    False: "An atom far from all others has the energy 0 in the .yace, and the energy of a structure there is about its"
    " binding energy.",
}
CANCEL = (
    "The E0s cancel where the atoms are the same on both sides and both energies come from this potential. That holds"
    " for E(N-1) - (N-1)/N E(N) of a vacancy in a crystal of one element, for surfaces, and for formation energies over"
    " the elements' own crystals. Never use E0, or 0, as the energy of a removed atom, and never mix energies of the"
    " .yace with total energies of DFT or the teacher."
)


def kind_of_e0s(summary: RunSummary) -> str:
    """A key of KINDS. Where nobody says what the E0s are, the energies of the training structures over them decide."""
    if summary.baseline.e0s_from == "isolated_atoms":
        return "isolated_atoms"
    if summary.baseline.e0s_from == "least_squares":
        return "averages"
    median = summary.energy_less_e0s["all"]
    bound = median is not None and median < -LEAST_BINDING_EV
    return "probably_isolated_atoms" if bound else "probably_averages"


def energy_words(summary: RunSummary) -> str:
    """What the E0s are, in plain text."""
    kind, median = kind_of_e0s(summary), summary.energy_less_e0s["all"]
    found = f"Half of the training structures have less than {number(median)} eV/atom over the E0s."
    return f"{FROM[summary.baseline.e0s_from]} {found} The E0s are {KINDS[kind]}. {MEANING[kind.endswith('averages')]}"


def energies(summary: RunSummary) -> str:
    """HTML: the E0s and what they mean for energies of the potential."""
    medians = summary.energy_less_e0s
    rows = [(element, repr(summary.baseline.e0s_eV[element]), number(medians[element])) for element in summary.elements]
    head = ("element", "E0 (eV per atom)", "energies of training structures with it, over the E0s: median (eV/atom)")
    return (
        "<p>Energies of the potential exclude the reference energies (E0) below, one for each atom."
        " Add them to compare with the teacher's total energies; forces and stresses need nothing.</p>"
        f"{table(head, rows)}<p>{escape(energy_words(summary))}</p><p>{escape(CANCEL)}</p>"
    )
