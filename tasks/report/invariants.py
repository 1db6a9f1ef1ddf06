"""Sections of the report: invariants that hold for the potential, and the speed of each runtime. Pure."""

from __future__ import annotations

from containers.properties.speed import Speed
from containers.tensorpot.evaluation.invariants import Invariants
from containers.tensorpot.student.yace import FORCE_TOLERANCE, TOLERANCE
from tasks.report.markup import Note, Section, Table, number
from tasks.report.summary import RunSummary

INVARIANTS = {
    "rotation": "turned structures",
    "translation": "moved structures",
    "permutation": "atoms in another order",
    "gradient": "forces against the slope of the energy",
    "lammps": "LAMMPS against calculator.py",
}
QUANTITIES = {"energy_meV_per_atom": "energy (meV/atom)", "force_meV_per_A": "force (meV/Å)"}
RUNTIMES = {
    "labeller_float32": "teacher, our labeller, float32",
    "labeller_float64": "teacher, our labeller, float64",
    "mace_float32": "teacher, ASE calculator of MACE, float32",
    "mace_float64": "teacher, ASE calculator of MACE, float64",
    "calculator_with_gamma": "student, calculator.py with γ",
    "calculator": "student, calculator.py without γ",
    "lammps": "student, LAMMPS (pair_style pace recursive)",
    "evaluator": "student, LAMMPS's evaluator in pyace, a test structure",
}


def invariants(summary: RunSummary) -> Section:
    """Invariants of every potential: the largest difference of each kind, and the limit beyond which a run ends."""
    title, metrics = "Invariants", summary.metrics("pace_corerep")
    found = Invariants.model_validate(metrics.get("invariants", {}))
    if not found.figures:
        return Section(title, ["Not checked: the potential comes from a step that did not check them."])
    rows = []
    for name, figure in found.figures.items():
        invariant, _, quantity = name.partition("_")
        label = f"{INVARIANTS[invariant]}: {QUANTITIES[quantity]}"
        rows.append((label, number(figure.value), number(figure.limit), figure.structure[:12]))
    for key, quantity, limit in (
        ("yace_difference_eV_per_atom", "energy (meV/atom)", TOLERANCE),
        ("yace_force_difference_eV_per_A", "force (meV/Å)", FORCE_TOLERANCE),
    ):
        if (value := metrics.get(key)) is not None:
            structures = f"{number(metrics['yace_compared_structures'])} structures"
            rows.append((f".yace against .yaml: {quantity}", number(1000 * value), number(1000 * limit), structures))
    missing = f"LAMMPS was not compared: {found.lammps_missing}." if found.lammps_missing else ""
    return Section(
        title,
        [
            "Energy and forces do not change when a structure is turned, moved or its atoms are reordered. Forces are"
            f" the negative slope of the energy. This was checked on {number(len(found.structures) - 1)} training"
            f" structures, which have every element ({', '.join(summary.elements)}), and on one of them without its"
            " periodic images. A larger difference than the limit"
            " ends the run.",
            missing,
            Table(("check", "largest difference", "limit", "structure"), rows),
            Note("Forces beyond some 10 eV/Å have larger limits, in proportion."),
        ],
    )


def speed(summary: RunSummary) -> Section:
    """Atoms per second of teacher and student, each on one core, with the same cell."""
    teacher, student = (
        Speed.model_validate(summary.metrics(step).get("speed", {}))
        for step in ("teacher_properties", "student_properties")
    )
    per_s, cell = {**teacher.atoms_per_s, **student.atoms_per_s}, student.cell or teacher.cell
    if per_s:
        said = [f"The cell is {cell}. Each runtime has one core of the machine that ran its step."]
        said += [f"The teacher was on {teacher.device}."] if teacher.device != "cpu" else []
    else:
        said = ["The runtimes were not timed on one cell: `properties` has no crystals."]
        if per_atom := summary.metrics("evaluate").get("student_us_per_atom"):
            per_s = {"evaluator": 1e6 / per_atom}
    said += [f"LAMMPS was not timed: {reason}." for reason in student.missing.values()]
    rows = [
        (words, number(round(per_s[name])), number(1e6 / per_s[name]))
        for name, words in RUNTIMES.items()
        if per_s.get(name)
    ]
    return Section("Speed", [*said, Table(("runtime", "atoms/s", "µs/atom"), rows)])
