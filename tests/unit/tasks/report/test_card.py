"""The card: each section's verdict by its rule, in words, and the whole one that agrees with `converged`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows.fit import next_round
from tasks.report import card
from tasks.report.markup import Judgement
from tasks.report.page import artifacts, page
from tasks.report.summary import Labelling, RunSummary

STABLE = {
    "stable": True, "unstable_because": None, "atoms": 64, "steps": 2000, "drift_meV_per_atom_per_ps": 1e-4,
    "gamma_share_above_1": 0.9, "gamma_share_above_5": 0.0, "gamma_share_above_25": 0.0,
    "timestep_fs": 1.0, "lost_atoms": 0, "fused_atoms": 0, "shortest_distance_A": 2.2,
}  # fmt: skip


def changed(run: RunSummary, evaluation: dict[str, Any] | None = None, **metrics: dict[str, Any]) -> RunSummary:
    """A run with other errors against the teacher, and other metrics of steps."""
    figures = json.loads(run.files["evaluation"].read_text())
    figures["teacher"] |= evaluation or {}
    run.files["evaluation"].write_text(json.dumps(figures))
    step = run.steps["ingest"]
    steps = {name: step.model_copy(update={"metrics": values}) for name, values in metrics.items()}
    return RunSummary.model_validate({**run.model_dump(), "steps": {**run.steps, **steps}})


def verdict(run: RunSummary, section: str) -> Judgement:
    return next(one for one in card.judge(run) if one.section == section)


def test_a_section_without_figures_is_not_measured_and_says_why(finished: RunSummary) -> None:
    assert verdict(finished, "stability")[1:3] == ("not measured", "stability.picoseconds is 0")
    assert verdict(finished, "properties").grade == "not measured"
    assert verdict(finished, "speed")[1:3] == ("not measured", "the student was not timed")
    reused = changed(finished.model_copy(update={"labelling": Labelling()}), evaluate={"student_us_per_atom": 20.0})
    assert "the teacher labelled nothing" in verdict(reused, "speed").reason


@pytest.mark.parametrize(
    ("row", "grade"),
    [
        ({"force_mae_meV_per_A": 130.0}, "check"),
        ({"force_mae_meV_per_A": 110.0, "energy_mae_meV_per_atom": None}, "good"),
    ],
)
def test_a_group_above_the_limit_that_the_mean_hides_is_to_check(
    finished: RunSummary, row: dict[str, Any], grade: str
) -> None:
    run = changed(finished, {"by_group": [{"name": "liquid", **row}]})
    assert verdict(run, "errors").grade == grade
    assert ("group liquid: force MAE (meV/Å) 130" in verdict(run, "errors").reason) == (grade == "check")


@pytest.mark.parametrize(("share", "grade"), [(0.02, "good"), (0.021, "check")])
def test_two_percent_of_the_test_atoms_may_extrapolate(finished: RunSummary, share: float, grade: str) -> None:
    assert verdict(changed(finished, {"gamma_share_above_1": share}), "extrapolation").grade == grade
    assert card.EXTRAPOLATING == next_round.EXTRAPOLATING


@pytest.mark.parametrize(
    ("figures", "grade"),
    [
        ({}, "good"),
        ({"gamma_share_above_5": 0.03}, "check"),
        ({"gamma_share_above_25": 0.001}, "check"),
        ({"stable": False, "unstable_because": "atoms fused"}, "fails"),
    ],
)
def test_molecular_dynamics(finished: RunSummary, figures: dict[str, Any], grade: str) -> None:
    assert verdict(changed(finished, stability={**STABLE, **figures}), "stability").grade == grade


@pytest.mark.parametrize(
    ("figures", "grade"),
    [
        ({"dimer_rises": {"Si-Si": True}}, "good"),
        ({"dimer_rises": {"Si-Si": False}}, "check"),
        ({"dimer_rises": {"Si-Si": False}, "bonded_dimer_falls_eV": {"Si-Si": 3.0}}, "fails"),
    ],
)
def test_short_distances(finished: RunSummary, figures: dict[str, Any], grade: str) -> None:
    assert verdict(changed(finished, pace_corerep=figures), "short distances").grade == grade


def test_a_run_without_core_repulsion_is_to_check(finished: RunSummary) -> None:
    finished.files["core_repulsion"].write_text('{"pairs": {}}')
    assert verdict(finished, "short distances").grade == "check"


@pytest.mark.parametrize(("microseconds", "grade"), [(20.0, "good"), (200.0, "check")])
def test_a_student_must_be_ten_times_as_fast(finished: RunSummary, microseconds: float, grade: str) -> None:
    assert verdict(changed(finished, evaluate={"student_us_per_atom": microseconds}), "speed").grade == grade


def test_runtimes_timed_on_one_cell_decide_where_there_are_some(finished: RunSummary) -> None:
    speeds = {"student_properties": {"calculator": 9e3, "lammps": 5e4}, "teacher_properties": {"mace_float64": 4e3}}
    timed = {step: {"speed": {"atoms_per_s": found}} for step, found in speeds.items()}
    assert "12.5 times (one core each, the same cell)" in verdict(changed(finished, **timed), "speed").reason


@pytest.mark.parametrize(
    ("run", "grade"),
    [
        ({"force_mae_meV_per_A": 90.0, "energy_mae_meV_per_atom": 5.0}, "good"),
        ({"force_mae_meV_per_A": 130.0, "energy_mae_meV_per_atom": 5.0}, "check"),
        ({"force_mae_meV_per_A": None, "energy_mae_meV_per_atom": 5.0}, "check"),
        ({"force_mae_meV_per_A": 90.0, "energy_mae_meV_per_atom": 5.0, "unstable_because": "hot"}, "check"),
    ],
)
def test_own_trajectory(finished: RunSummary, run: dict[str, Any], grade: str) -> None:
    metrics = {"runs": [{"run": "NVT 300 K", **run}]}
    assert verdict(changed(finished, trajectory_errors=metrics), "own trajectory").grade == grade


def test_invariants_name_the_check_that_is_nearest_to_its_limit(finished: RunSummary) -> None:
    figures = {
        "rotation_force_meV_per_A": {"value": 0.1, "limit": 1.0},
        "gradient_force_meV_per_A": {"value": 0.5, "limit": 1.0},
    }
    found = verdict(changed(finished, pace_corerep={"invariants": {"figures": figures}}), "invariants")
    assert found[1:3] == (
        "good",
        "2 checks hold; the nearest to its limit (forces against the slope of the energy) is at 50 % of it",
    )


def test_the_whole_verdict_is_converged_and_a_run_that_is_not_has_a_section_that_fails(finished: RunSummary) -> None:
    assert not any(one.grade == "fails" for one in card.judge(finished))
    assert card.whole(finished).text.endswith("To check: extrapolation.")
    over = changed(finished, {"force_mae_meV_per_A": 120.1})
    over = over.model_copy(update={"converged": False, "not_converged_because": "force MAE"})
    assert [one.section for one in card.judge(over) if one.grade == "fails"] == ["errors"]
    other = finished.model_copy(update={"converged": False, "not_converged_because": "the moon"})
    assert card.judge(other)[-1] == Judgement("other checks", "fails", "the moon", "See the sections below.")
    assert not card.whole(other).good


def test_page_and_artifact_begin_with_the_card_in_words_and_colours(finished: RunSummary) -> None:
    html, text = page(finished, {}), artifacts(finished, {})["card"]
    assert html.index('<span class="badge check">check</span>') < html.index('class="figures"')
    assert "| extrapolation | 🟠 check | 5.00 % of the test atoms" in text
    assert "| speed | ⚪ not measured | the student was not timed |" in text
    stub = finished.model_copy(update={"stub": True})
    assert {one.grade for one in card.judge(stub)} == {"not measured"}
