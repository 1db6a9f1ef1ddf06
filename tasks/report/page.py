"""The page and the Markdown artifacts of a run: the order of their sections, and the sections that frame them. Pure."""

from __future__ import annotations

import json

from tasks.report import sections
from tasks.report.figures import ERRORS, duration, number
from tasks.report.lammps import INSTALL, neighbour_words, pair_lines
from tasks.report.markup import STUB, Code, Note, Pictures, Section, Table, Tiles, Verdict, to_html, to_markdown
from tasks.report.summary import RunSummary


def page(summary: RunSummary, pictures: Pictures) -> str:
    """report.html."""
    found = [
        headline(summary),
        origin(summary),
        usage(summary),
        sections.attempts(summary),
        sections.learning_curve(summary, pictures),
        sections.extensions(summary),
        sections.fidelity(summary),
        sections.failures(summary),
        sections.stability(summary),
        sections.references(summary),
        sections.repulsion(summary),
        sections.data(summary),
        sections.pairs(summary),
        sections.grades(summary),
        steps(summary),
    ]
    return to_html(f"{summary.name}: distilled ACE potential", found, pictures)


def artifacts(summary: RunSummary, pictures: Pictures) -> dict[str, str]:
    """Markdown by artifact key."""
    after_the_fit = [sections.extensions(summary), sections.stability(summary)]
    found = {
        "labels": [sections.data(summary), sections.grades(summary)],
        "attempts": [headline(summary), sections.attempts(summary), *after_the_fit],
        "learning-curve": [sections.learning_curve(summary, pictures)],
        "parity": [sections.fidelity(summary), sections.failures(summary)],
    }
    return {key: to_markdown(f"{summary.name}: {key}", parts, pictures) for key, parts in found.items()}


def headline(summary: RunSummary) -> Section:
    """The verdict and the figures that decide it."""
    teacher, selection = summary.fidelity["teacher"] or {}, summary.selection
    tiles = []
    for key, limit in summary.thresholds.items():
        value = teacher.get(key)
        met = "not known" if value is None else "met" if value <= limit else "not met"
        tiles.append((ERRORS[key], number(value), f"at most {number(limit)}: {met}"))
    spent = sum(step.seconds for step in summary.steps.values() if not step.cached)
    tiles += [
        ("structures selected", number(selection.selected), f"of {number(selection.candidates)} candidates"),
        ("computed in this run", duration(spent), "the rest came from the store"),
    ]
    if summary.converged:
        verdict = Verdict(True, "Converged", "Both errors are within their limits, and all checks passed.")
    else:
        because = summary.not_converged_because or "No reason was given."
        verdict = Verdict(False, "Finished, not converged", because)
    return Section(
        "",
        [
            Note(f"ACE potential for {', '.join(summary.elements)}, distilled from a MACE model."),
            *([STUB] if summary.stub else []),
            verdict,
            Tiles(tiles),
            Note(
                "Errors are against the teacher, on test structures that neither the fit nor the choice of the"
                " potential used. Force errors are per Cartesian component."
            ),
        ],
    )


def origin(summary: RunSummary) -> Section:
    """Teacher, input files and config."""
    return Section(
        "Teacher, data and config",
        [
            Table((), [(key, number(value)) for key, value in summary.teacher.items()], "The teacher, from its file:"),
            Table(
                ("file", "sha256 (start)"),
                [(name, digest[:16]) for name, digest in summary.inputs.items()],
                "Input files:",
            ),
            Code(json.dumps(summary.config, indent=1, ensure_ascii=False, default=str), "The config of this run"),
        ],
    )


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
    """Return a key of E0_KINDS. Where the source does not tell it, the energies of the training structures decide."""
    if summary.baseline.e0s_from == "isolated_atoms":
        return "isolated_atoms"
    if summary.baseline.e0s_from == "least_squares":
        return "averages"
    median = summary.metrics("frames")["energy_less_e0s_eV_per_atom"]["all"]
    bound = median is not None and median < -LEAST_BINDING_EV
    return "probably_isolated_atoms" if bound else "probably_averages"


def usage(summary: RunSummary) -> Section:
    """How to use the potential, and which energies it leaves out."""
    kind, frames = kind_of_e0s(summary), summary.metrics("frames")
    medians, e0s = frames["energy_less_e0s_eV_per_atom"], summary.baseline.e0s_eV
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
    return Section(
        "How to use the potential",
        [
            "In this folder, `lmp -in in.lammps` runs LAMMPS with the potential on a training structure,"
            f" `structure.data`. LAMMPS needs its package ML-PACE: `{INSTALL}`. These lines choose the potential:",
            Code("\n".join(["units metal", *pair_lines(summary.elements, bool(summary.baseline.pairs))])),
            neighbour_words(int(frames["lammps_neighbours"])),
            "Energies of the potential exclude the reference energies (E0) below, one for each atom. Add them to"
            " compare with the teacher's total energies. Forces and stresses need no correction.",
            Table(
                ("element", "E0 (eV/atom)", "training structures with it: median energy relative to the E0s (eV/atom)"),
                [(element, repr(e0s[element]), number(medians[element])) for element in summary.elements],
            ),
            f"{E0S_FROM[summary.baseline.e0s_from]} Half of the training structures have less than"
            f" {number(medians['all'])} eV/atom relative to the E0s. The E0s are {E0_KINDS[kind]}. {meaning}",
            "The E0s cancel where the atoms are the same on both sides and both energies come from this potential. That"
            " holds for E(N-1) - (N-1)/N E(N) of a vacancy in a crystal of one element, for surfaces, and for formation"
            " energies relative to crystals of the elements. Never use E0, or 0, as the energy of a removed atom. Never"
            " mix energies of the .yace with total energies of DFT or the teacher.",
            Table(
                (), [(label, number(measured[key])) for key, label in sizes.items() if measured.get(key) is not None]
            ),
            "In Python: in this folder, `from calculator import calculator` gives an ASE calculator of total energies,"
            " forces, stress and γ. It needs only ASE and python-ace.",
            "The extrapolation grade γ of new structures comes from `potential.yaml` with `potential.asi`. "
            "`in.lammps` shows the lines.",
            "The folder `fit` has pacemaker's input and data of each fit that led to the potential. Its `README.md`"
            " says how to repeat them.",
        ],
    )


def steps(summary: RunSummary) -> Section:
    """Seconds and memory of each step, and the versions."""
    rows = [
        (
            name,
            "from the store" if step.cached else "computed",
            duration(step.seconds),
            f"{step.peak_memory_MB:,.0f} MB",
            step.key[:12],
        )
        for name, step in summary.steps.items()
    ]
    versions = "\n".join(f"{name} {version}" for name, version in sorted(summary.versions.items()))
    head = ("step", "this run", "computing time", "peak memory", "key")
    return Section("Steps", [Table(head, rows), Code(versions, "Versions")])
