"""Sections of the invariants and of the speed."""

from __future__ import annotations

from typing import Any

from containers.properties.speed import Speed
from containers.tensorpot.evaluation.invariants import Figure, Invariants
from tasks.report import invariants
from tasks.report.markup import to_markdown
from tasks.report.summary import RunSummary


def with_metrics(finished: RunSummary, **metrics: dict[str, Any]) -> RunSummary:
    """The run with steps of these metrics."""
    step = finished.steps["ingest"]
    steps = {name: step.model_copy(update={"metrics": found}) for name, found in metrics.items()}
    return finished.model_copy(update={"steps": finished.steps | steps})


def test_each_invariant_has_its_figure_limit_and_structure(finished: RunSummary) -> None:
    figures = {
        "rotation_force_meV_per_A": Figure(value=2e-9, limit=1e-4, structure="ab" * 32),
        "gradient_force_meV_per_A": Figure(value=0.001, limit=0.1, structure="cd" * 32),
    }
    found = Invariants(figures=figures, structures={"ab" * 32: "Si", "cd" * 32: "Si"}, lammps_missing="no lmp")
    exported = {"yace_difference_eV_per_atom": 2e-16, "yace_compared_structures": 20}
    summary = with_metrics(finished, pace_corerep={"invariants": found.model_dump(), **exported})
    text = to_markdown("", [invariants.invariants(summary)], {})
    assert "| turned structures: force (meV/Å) | 2e-09 | 0.0001 | abababababab |" in text
    assert "| forces against the slope of the energy: force (meV/Å) | 0.001 | 0.1 | cdcdcdcdcdcd |" in text
    assert "| .yace against .yaml: energy (meV/atom) | 2e-13 | 0.01 | 20 structures |" in text
    assert "LAMMPS was not compared: no lmp." in text
    assert "Not checked" in to_markdown("", [invariants.invariants(finished)], {})


def test_runtimes_stand_side_by_side_in_atoms_per_second(finished: RunSummary) -> None:
    teacher = Speed(
        cell="Si Fd-3m, 64 atoms", atoms=64, atoms_per_s={"labeller_float32": 2500.0, "mace_float64": 800.0}
    )
    student = teacher.model_copy(update={"atoms_per_s": {"calculator": 1e4}, "missing": {"lammps": "no lmp"}})
    steps = {
        "teacher_properties": {"speed": teacher.model_dump()},
        "student_properties": {"speed": student.model_dump()},
    }
    text = to_markdown("", [invariants.speed(with_metrics(finished, **steps))], {})
    assert "The cell is Si Fd-3m, 64 atoms." in text
    assert "LAMMPS was not timed: no lmp." in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| teacher, our labeller, float32 | 2,500 | 400 |",
        "| teacher, ASE calculator of MACE, float64 | 800 | 1250 |",
        "| student, calculator.py without γ | 10,000 | 100 |",
    ]


def test_without_crystals_the_evaluator_alone_has_a_speed(finished: RunSummary) -> None:
    text = to_markdown("", [invariants.speed(with_metrics(finished, evaluate={"student_us_per_atom": 20.0}))], {})
    assert "not timed on one cell" in text
    assert "50,000 | 20 |" in text
