from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.config.training import Convergence
from flows.distill.summary import CHECKED, fits_of, label_counts, misses, not_converged_because
from flows.fit.attempts import Attempt
from flows.fit.repairs import FitPlan
from flows.fit.verdict import MENDS
from tasks.report.publish import fit_files, fit_readme
from tasks.report.summary import Labelling
from tasks.settings import Settings
from tasks.workspace import Workspace

LIMITS = Convergence(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
GOOD = {"force_mae_meV_per_A": 99.0, "energy_mae_meV_per_atom": 9.0}


@pytest.fixture
def ended(artefact: Any) -> Any:
    def make(verdict: Any) -> Attempt:
        return Attempt(
            "pace_train attempt 2",
            FitPlan(asked=1, maxiter=1, kappa=0.3, batch_size=1),
            verdict,
            1.0,
            artefact("pace_train"),
        )

    return make


def test_each_fit_is_published_with_what_it_read_and_where_it_began(artefact: Any) -> None:
    plan = FitPlan(asked=1, maxiter=1, kappa=0.3, batch_size=1)
    first, second = (artefact("pace_train", mark, best_iteration=12, interim_iteration=15) for mark in ("one", "two"))
    frames, more = artefact("frames", "one"), artefact("frames", "two")
    read = [{name: (data.file(name),) for name in ("train", "validation")} for data in (frames, more)]
    chain = [
        Attempt("pace_train stage 1 attempt 1", plan, "converged", 1.0, first, read[0]),
        Attempt("pace_train round 1 stage 1 attempt 2", plan, "converged", 1.0, second,
                {**read[1], "start": (first.file("best"),)}),
    ]  # fmt: skip
    workspace = Workspace(root=Path("root"), settings=Settings(cores=1))
    one, other = fits_of(chain, 3, workspace)
    assert (one.folder, one.start, one.start_yaml) == ("1-stage-1-attempt-1", "", None)
    assert other.folder == "2-round-1-stage-1-attempt-2"
    assert other.start == "the best potential of 1-stage-1-attempt-1, of iteration 12"
    assert other.start_yaml == workspace.store.path(first.file("best"))
    assert [fit.train for fit in (one, other)] == [workspace.store.path(data.file("train")) for data in (frames, more)]
    assert one.input_yaml == workspace.store.path(first.file("input"))
    inside = fit_files((one, other))
    folder = f"fit/{one.folder}/"
    assert {name.removeprefix(folder) for name in inside if name.startswith(folder)} == {
        "input.yaml", "validation.pckl.gzip", "whole.pckl.gzip", "draw.py",
    }  # fmt: skip
    assert "python draw.py 3" in fit_readme((one, other), best_iteration=7)


def test_every_threshold_is_checked() -> None:
    assert set(CHECKED) == set(Convergence.model_fields)


@pytest.mark.parametrize("force", [0.0, 99.0, 100.0])
def test_errors_up_to_the_limits_are_no_miss(force: float) -> None:
    assert misses({**GOOD, "force_mae_meV_per_A": force}, LIMITS) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"force_mae_meV_per_A": 123.4}, "force MAE 123 meV/Å on the test structures, wanted at most 100"),
        ({"energy_mae_meV_per_atom": 10.1}, "energy MAE 10.1 meV/atom on the test structures, wanted at most 10"),
        ({"force_mae_meV_per_A": None}, "the force MAE on the test structures is not known"),
    ],
)
def test_a_miss_names_the_figure_and_the_limit(change: dict[str, Any], told: str) -> None:
    assert misses({**GOOD, **change}, LIMITS) == told


def test_both_misses_are_told_and_a_figure_that_is_not_there_is_one() -> None:
    told = misses({"force_mae_meV_per_A": 200.0}, LIMITS)
    assert told is not None
    assert [part.split(" MAE")[0] for part in told.split("; ")] == ["force", "the energy"]


def test_good_errors_of_a_finished_fit_are_converged(ended) -> None:
    assert not_converged_because(GOOD, ended("converged"), None, LIMITS) is None


@pytest.mark.parametrize("verdict", ["iterations_used_up", "killed", "not_accurate"])
def test_an_unfinished_fit_has_not_converged_however_small_its_test_errors(ended, verdict) -> None:
    because = not_converged_because(GOOD, ended(verdict), None, LIMITS)
    assert because == f"pace_train attempt 2 ended as {verdict}. {MENDS[verdict]}"


def test_nothing_is_promised_of_an_accident_that_is_not_the_last_attempt(ended) -> None:
    because = not_converged_because(GOOD, ended("time_limit"), None, LIMITS, last=False)
    assert because == "pace_train attempt 2 ended as time_limit."


def test_a_converged_fit_that_misses_on_the_test_side_has_not_converged(ended) -> None:
    because = not_converged_because({**GOOD, "force_mae_meV_per_A": 101.0}, ended("converged"), None, LIMITS)
    assert because == "force MAE 101 meV/Å on the test structures, wanted at most 100"


def test_a_miss_and_an_unfinished_fit_are_both_told(ended) -> None:
    because = not_converged_because({**GOOD, "force_mae_meV_per_A": 101.0}, ended("killed"), None, LIMITS)
    assert because is not None
    assert because.startswith("force MAE 101")
    assert f"; pace_train attempt 2 ended as killed. {MENDS['killed']}" in because


def test_a_potential_that_molecular_dynamics_breaks_has_not_converged(ended) -> None:
    because = not_converged_because(GOOD, ended("converged"), "2 atoms fused", LIMITS)
    assert because == "unstable in molecular dynamics: 2 atoms fused"


def test_a_pair_that_no_core_makes_repel_has_not_converged(ended) -> None:
    falls = {"Al-Au": 0.25, "Ni-Ni": 1.5}
    because = not_converged_because(GOOD, ended("converged"), None, LIMITS, falls_eV=falls)
    assert because is not None
    assert "falls on the way in for Ni-Ni (by 1.5 eV), Al-Au (by 0.25 eV): add structures" in because
    assert not_converged_because(GOOD, ended("converged"), None, LIMITS, falls_eV={}) is None


def test_labels_are_computed_reused_or_rejected(artefact) -> None:
    labels = artefact("pool_labels", structures=100, labels=90, rejected=10, rejected_by={"force": 8, "memory": 4})
    counts = label_counts([labels], Labelling(computed=30), teachers=1)
    assert (counts.computed, counts.reused, counts.rejected) == (30, 66, 10)
    assert counts.rejected_by == {"force": 8, "memory": 4}


def test_each_member_of_a_committee_gives_an_answer(artefact) -> None:
    labels = artefact("pool_labels", structures=100, labels=100, rejected=0, rejected_by={})
    counts = label_counts([labels], Labelling(computed=120), teachers=3)
    assert (counts.computed, counts.reused) == (120, 180)
