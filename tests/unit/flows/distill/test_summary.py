from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from containers.properties.compare import Deviation
from flows.config.training import Limits
from flows.distill.summary import CHECKED, fits_of, label_counts, not_converged_because
from flows.fit.attempts import Attempt
from flows.fit.repairs import FitPlan
from flows.fit.verdict import HINTS, Verdict
from tasks.report.publish import fit_files, fit_readme
from tasks.report.summary import Labelling
from tasks.settings import Settings
from tasks.workspace import Workspace

LIMITS = Limits(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
GOOD = {"force_mae_meV_per_A": 99.0, "energy_mae_meV_per_atom": 9.0}


NAME = "pace_train attempt 2"
PLAN = FitPlan(stage_maxiter=1, maxiter=1, kappa=0.3, batch_size=1)
UNFINISHED: tuple[Verdict, ...] = ("iterations_used_up", "killed", "not_accurate")


def test_each_fit_is_published_with_what_it_read_and_where_it_began(artefact: Any) -> None:
    first, second = (artefact("pace_train", mark, best_iteration=12, interim_iteration=15) for mark in ("one", "two"))
    frames, more = artefact("frames", "one"), artefact("frames", "two")
    read = [{name: (data.file(name),) for name in ("train", "validation")} for data in (frames, more)]
    chain = [
        Attempt("pace_train stage 1 attempt 1", PLAN, "converged", 1.0, first, read[0]),
        Attempt("pace_train round 1 stage 1 attempt 2", PLAN, "converged", 1.0, second,
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
    assert {*CHECKED, "properties"} == set(Limits.model_fields)


def miss(name: str, value: str, limit: str) -> str:
    return f"{name} MAE {value} on the test structures, wanted at most {limit}"


FORCE, ENERGY = miss("force", "123 meV/Å", "100"), miss("energy", "10.1 meV/atom", "10")
UNKNOWN = "the {} MAE on the test structures is not known"
LARGE = {**GOOD, "force_mae_meV_per_A": 123.4}
FALLS = (
    "the energy of a dimer falls on the way in for Ni-Ni (by 1.5 eV), Al-Au (by 0.25 eV): add structures with these"
    " pairs compressed to the pool, or set pacemaker.r_in_A"
)


MISSED = "elastic C44 of Si Fd-3m differs by -17.5 % from the teacher's, wanted at most 10 %"


def elastic(deviation: float | None, teacher: float | None = 80.0) -> Deviation:
    student = None if deviation is None else 80.0 + 0.8 * deviation
    given = {"crystal": "Si Fd-3m", "property": "C44", "kind": "elastic", "unit": "GPa"}
    return Deviation(**given, teacher=teacher, student=student, deviation=deviation)


@pytest.mark.parametrize(
    ("errors", "verdict", "more", "because"),
    [
        (GOOD, "converged", {}, None),
        ({**GOOD, "force_mae_meV_per_A": 0.0}, "converged", {"falls_eV": {}}, None),
        ({**GOOD, "force_mae_meV_per_A": 100.0}, "converged", {}, None),
        (LARGE, "converged", {}, FORCE),
        ({**GOOD, "energy_mae_meV_per_atom": 10.1}, "converged", {}, ENERGY),
        ({"force_mae_meV_per_A": 123.4}, "converged", {}, f"{FORCE}; {UNKNOWN.format('energy')}"),
        ({**GOOD, "force_mae_meV_per_A": None}, "converged", {}, UNKNOWN.format("force")),
        *((GOOD, end, {}, f"{NAME} ended as {end}. {HINTS[end]}") for end in UNFINISHED),
        (GOOD, "time_limit", {"last": False}, f"{NAME} ended as time_limit."),  # only the last attempt is continued
        (LARGE, "killed", {}, f"{FORCE}; {NAME} ended as killed. {HINTS['killed']}"),
        (GOOD, "converged", {"unstable_because": "2 atoms fused"}, "unstable in molecular dynamics: 2 atoms fused"),
        (GOOD, "converged", {"falls_eV": {"Al-Au": 0.25, "Ni-Ni": 1.5}}, FALLS),
        (GOOD, "converged", {"properties": [elastic(9.9), elastic(None, teacher=None)]}, None),
        (GOOD, "converged", {"properties": [elastic(9.9), elastic(-17.5)]}, MISSED),
        (
            GOOD,
            "converged",
            {"properties": [elastic(None)]},
            "elastic C44 of Si Fd-3m could not be measured with the student",
        ),
    ],
)
def test_test_errors_fit_stability_and_core_decide_convergence(
    artefact: Any, errors: dict[str, Any], verdict: Any, more: dict[str, Any], because: str | None
) -> None:
    attempt = Attempt(NAME, PLAN, verdict, 1.0, artefact("pace_train"))
    given = {"unstable_because": None, **more}
    assert not_converged_because(errors, attempt, limits=LIMITS, **given) == because


@pytest.mark.parametrize(("computed", "teachers", "reused"), [(30, 1, 66), (120, 3, 168)])
def test_predictions_are_computed_or_reused_and_structures_rejected(artefact, computed, teachers, reused) -> None:
    """Each of 100 structures but the 4 that exceed the memory has a prediction of each teacher."""
    rejected_by = {"force": 8, "memory": 4}
    labels = artefact("pool_labels", structures=100, labels=90, rejected=10, rejected_by=rejected_by)
    counts = label_counts([labels], Labelling(computed=computed), teachers)
    assert (counts.computed, counts.reused, counts.rejected) == (computed, reused, 10)
    assert counts.rejected_by == rejected_by
