"""The section on the student's own trajectory: errors by run and grade, unstable runs, frames without a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.report.markup import Note, Table
from tasks.report.publish import publish
from tasks.report.summary import RunSummary
from tasks.report.trajectory import trajectory

FIGURES = {
    "energy_mae_meV_per_atom": 1.5, "energy_rmse_meV_per_atom": 2.0, "energy_max_meV_per_atom": 4.0,
    "force_mae_meV_per_A": 42.0, "force_rmse_meV_per_A": 53.0, "force_max_meV_per_A": 200.0,
}  # fmt: skip
NONE = dict.fromkeys(FIGURES)


def of_run(name: str, **changes: Any) -> dict[str, Any]:
    values = {
        "run": name, "temperature_K": None, "mean_temperature_K": 150.5, "atoms": 64, "steps": 2000,
        "timestep_fs": 1.0, "unstable_because": None, "frames": 10, "labelled": 10, "gamma_max": 1.25,
        "teacher_force_size_meV_per_A": 320.0, "set_aside": 0, "set_aside_because": None, **FIGURES,
    }  # fmt: skip
    return {**values, **changes}


@pytest.fixture
def followed(finished: RunSummary) -> RunSummary:
    """A stable run and one that fell apart, where a label was set aside."""
    hot = of_run(
        "NVT 2000 K", steps=640, unstable_because="atoms fused, 2 of them", frames=4, labelled=3, set_aside=1,
        set_aside_because="a force of 200 eV/Å, at most 100",
    )  # fmt: skip
    grades = [
        {"gamma_above": None, "gamma_up_to": 1, "atoms": 700, "frames": 9, **FIGURES},
        {"gamma_above": 1, "gamma_up_to": 5, "atoms": 90, "frames": 4, **FIGURES},
        {"gamma_above": 25, "gamma_up_to": None, "atoms": 2, "frames": 0, **NONE},
    ]
    frame = {"run": "NVE", "time_ps": 0.5, "gamma_max": 1.2, "energy_error_meV_per_atom": -2.0,
             "force_rmse_meV_per_A": 50.0}  # fmt: skip
    metrics = {"runs": [of_run("NVE"), hot], "by_gamma": grades, "frames": [frame, {**frame, "run": "NVT 2000 K"}]}
    step = finished.steps["ingest"]
    steps = {
        "trajectory": step.model_copy(
            update={"metrics": {"temperatures_from": "trajectory.temperatures_K", "motion_atom_steps": 72_000}}
        ),
        "trajectory_errors": step.model_copy(update={"metrics": metrics}),
    }
    return finished.model_copy(update={"steps": finished.steps | steps})


def beside_the_teacher(run: RunSummary) -> RunSummary:
    """The run with g(r) and mean square displacement of both."""
    curves = {"r_A": [1.0, 2.0], "g": [0.0, 1.5], "time_ps": [0.0, 0.4], "msd_A2": [0.0, 0.02]}
    metrics = {"temperature_K": 300.0, "steps": 1000, "g_difference_percent": 2.5, "teacher_msd_A2": 0.02,
               "student_msd_A2": 0.03, "msd_after_ps": 0.4, "teacher": curves, "student": curves}  # fmt: skip
    made = run.steps["ingest"].model_copy(update={"metrics": metrics})
    return run.model_copy(update={"steps": run.steps | {"teacher_motion": made}})


def test_every_run_and_every_grade_has_its_errors(followed: RunSummary) -> None:
    parts = trajectory(followed).parts
    runs, grades = (part for part in parts if isinstance(part, Table))
    assert runs.rows[0] == ("NVE", "150.5", "10 of 10", "1.25", "1.5", "2", "42", "53", "320")
    assert [row[:3] for row in grades.rows] == [("up to 1", "700", "9"), ("1 to 5", "90", "4"), ("above 25", "2", "0")]
    assert grades.rows[2][3:] == ("–",) * 4
    text = " ".join(part for part in parts if isinstance(part, str))
    assert "NVT 2000 K became unstable after 0.64 ps: atoms fused, 2 of them. It has the 4 frames until then." in text
    assert "NVT 2000 K: 1 of 4 frames has no label" in text
    assert "a force of 200 eV/Å" in text


def test_the_page_and_the_artifact_show_the_pictures(followed: RunSummary, tmp_path: Path) -> None:
    texts = publish(beside_the_teacher(followed), tmp_path / "run")
    assert texts["trajectory"].count("data:image/png") == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Energy error over time and force error over the largest extrapolation grade" in page
    assert "g(r) and mean square displacement of both" in page


def test_a_run_without_it_says_so(finished: RunSummary) -> None:
    assert trajectory(finished).parts == ["Not measured: trajectory.picoseconds is 0."]


def test_g_of_r_is_shown_beside_the_teachers_or_what_it_would_cost(followed: RunSummary) -> None:
    pool = followed.steps["pool_labels"]
    steps = {"pool_labels": pool.model_copy(update={"metrics": {**pool.metrics, "atoms": 3600}})}
    known = followed.model_copy(update={"steps": followed.steps | steps})
    note = " ".join(part.text for part in trajectory(known).parts if isinstance(part, Note))
    assert "a run of it would cost 20 times the labelling of the pool, about 21 s at the speed of this run" in note
    assert "less than 0.1 times" in note
    parts = trajectory(beside_the_teacher(followed)).parts
    rows = [row for part in parts if isinstance(part, Table) for row in part.rows]
    assert ("mean square displacement after 0.4 ps (Å²)", "student 0.03, teacher 0.02") in rows


def test_a_run_of_the_teacher_that_ended_early_is_told_and_has_no_picture(followed: RunSummary, tmp_path: Path) -> None:
    metrics = {"temperature_K": 300.0, "steps": 1000, "failed": "its forces are no numbers after 0.02 ps"}
    made = followed.steps["ingest"].model_copy(update={"metrics": metrics})
    broken = followed.model_copy(update={"steps": followed.steps | {"teacher_motion": made}})
    (note,) = [part.text for part in trajectory(broken).parts if isinstance(part, Note) and "g(r)" in part.text]
    assert note.endswith("its run at 300 K ended early, because its forces are no numbers after 0.02 ps.")
    assert publish(broken, tmp_path / "run")["trajectory"].count("data:image/png") == 1
