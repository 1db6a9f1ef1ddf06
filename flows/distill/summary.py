"""The result of a distillation: the summary that the report is made from, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containers.contract import Closed
from containers.labels import pool_labels
from containers.metrics import of_side
from containers.properties.compare import Deviation
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation import stability
from containers.tensorpot.exploration import choose_frames
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames import frames
from containers.tensorpot.selection import pace_select
from containers.tensorpot.student.baseline import Baseline
from flows.config.training import Limits
from flows.fit.attempts import Attempt, led_to
from flows.fit.rounds import Results
from flows.fit.verdict import ACCIDENTS, hint_for
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import StepFailed
from tasks.report import summary as run_summary
from tasks.report.exploration import Exploration
from tasks.report.summary import Labelling, RunSummary
from tasks.workspace import Workspace

FIT_FIGURES = ("stop_criterion", "iterations", "resumed_at", "best_iteration")
SHOWN = 5
"""Properties that the reason names."""
CHECKED = {"force_mae_meV_per_A": ("force MAE", "meV/Å"), "energy_mae_meV_per_atom": ("energy MAE", "meV/atom")}


class Outcome(Closed):
    """Result of a run of the flow."""

    name: str
    folder: Path
    stub: bool
    converged: bool
    not_converged_because: str | None
    figures: dict[str, float]

    @classmethod
    def of(cls, summary: RunSummary, workspace: Workspace) -> Outcome:
        """Return the outcome that a summary holds."""
        teacher = summary.fidelity["teacher"] or {}
        return cls(
            name=summary.name,
            folder=workspace.run_folder(summary.name),
            stub=summary.stub,
            converged=summary.converged,
            not_converged_because=summary.not_converged_because,
            figures={
                key: value
                for key, value in teacher.items()
                if key.endswith(("meV_per_A", "meV_per_atom")) and not isinstance(value, dict)
            },
        )


def not_converged_because(
    errors: dict[str, Any],
    chosen: Attempt,
    unstable_because: str | None,
    limits: Limits,
    last: bool = True,
    falls_eV: Mapping[str, float] | None = None,
    properties: Sequence[Deviation] = (),
) -> str | None:
    """Return why the result does not count as converged; None when it does.

    Test errors, the fit's end, molecular dynamics, the core and properties count. An error that is not known exceeds
    its limit.

    Args:
        errors: on the test structures.
        unstable_because: result of the stability gate; None when the student is stable, or there was no gate.
        last: `chosen` is the last attempt.
        falls_eV: pairs whose dimer falls on the way in although training has their bonds.
        properties: of crystals; none where no crystal was compared.
    """
    found = []
    for key, (name, unit) in CHECKED.items():
        value, limit = errors.get(key), getattr(limits, key)
        if value is None:
            found.append(f"the {name} on the test structures is not known")
        elif value > limit:
            found.append(f"{name} {value:.3g} {unit} on the test structures, wanted at most {limit:g}")
    if chosen.verdict != "converged":
        # a later run continues the last attempt alone
        hint = hint_for(chosen.verdict, failed=False) if last or chosen.verdict not in ACCIDENTS else ""
        found.append(f"{chosen.name} ended as {chosen.verdict}. {hint}".strip())
    if unstable_because:
        found.append(f"unstable in molecular dynamics: {unstable_because}")
    if falls_eV:
        deepest = sorted(falls_eV, key=lambda pair: -falls_eV[pair])
        shown = ", ".join(f"{pair} (by {falls_eV[pair]:.2g} eV)" for pair in deepest[:5])
        more = f" and {len(deepest) - 5} more" if len(deepest) > 5 else ""
        found.append(
            f"the energy of a dimer falls on the way in for {shown}{more}: add structures with these pairs compressed"
            " to the pool, or set pacemaker.r_in_A"
        )
    missed = sorted((row for row in properties if limits.properties.over(row) > 1), key=limits.properties.over)[::-1]
    if missed:
        found.append("; ".join(map(limits.properties.sentence, missed[:SHOWN])))
        if len(missed) > SHOWN:
            found.append(f"{len(missed) - SHOWN} more properties beyond their limits")
    return "; ".join(found) or None


def summarise(inputs: dict[str, str], results: Results, run: Run, explored: Exploration | None = None) -> RunSummary:
    """Return the values of report.json, manifest.json and the page.

    Args:
        inputs: the user's files and the teachers -> sha256.
    """
    prepared, student, attempts = results.prepared, results.best, results.attempts
    recipe, workspace = student.recipe, run.workspace
    config, store = prepared.config, workspace.store
    # where rounds repeat a step, the best student's; the attempts at fits come last
    done = dict(sorted({**run.done, **student.results}.items(), key=lambda named: named[1].step == "pace_train"))
    labelling, baseline = run.work.summary(), Baseline.read(store.path(prepared.baseline.file("baseline")))
    evaluation = json.loads(store.path(student.evaluation.file("evaluation")).read_bytes())
    chosen = attempts.index(student.taken)
    unstable = student.stability.read(stability.Metrics).unstable_because if student.stability else None
    last = chosen == len(attempts) - 1
    falls = student.core.read(pace_corerep.Metrics).bonded_dimer_falls_eV
    limits, rows = prepared.limits, student.deviations
    because = not_converged_because(evaluation["teacher"], attempts[chosen], unstable, limits, last, falls, rows)
    if explored and explored.unsettled_because:
        because = "; ".join(filter(None, (because, explored.unsettled_because)))
    first, selected = (one.read(pace_select.Metrics) for one in (results.selection, student.training.selection))
    committee = config.teacher.model_dump(include={"committee", "max_force_std"}) if config.teacher.committee else {}
    made = {
        **student.results,
        "pool_labels": run.labels[0],
        "dataset": prepared.dataset,
        **({"teacher_properties": prepared.teacher_properties} if prepared.teacher_properties else {}),
        "baseline": prepared.baseline,
        "pace_select": student.training.selection,
    }
    added = [one for one in run.done.values() if one.step == "choose_frames" and one.read(choose_frames.Metrics).chosen]
    made |= {"choose_frames": added[-1]} if added else {}
    return RunSummary(
        name=config.name,
        config=config.model_dump(mode="json"),
        versions={name: version for one in (*done.values(), student.fit) for name, version in one.versions.items()},
        inputs=inputs,
        stub=workspace.settings.runner == "stub",
        seeds={"train.seed": config.train.seed},
        elements=recipe.potential.elements,
        teacher={**prepared.infos[0].model_dump(mode="json"), "head": recipe.head, **committee},
        baseline=baseline,
        steps=done,
        labels=label_counts(run.labels, labelling, 1 + len(config.teacher.committee)),
        labelling=labelling,
        selection=run_summary.SelectionCounts(  # of the published student; candidates and grades of the first selection
            pool=run.labels[0].read(pool_labels.Metrics).labels,
            candidates=first.candidates,
            set_aside=student.training.frames.read(frames.Metrics).set_aside,
            selected=selected.selected,
            how=selected.how,
            scarce_elements=tuple(first.scarce_elements),
            grades=first.grades,
        ),
        attempts=tuple(_attempt(attempt, workspace) for attempt in attempts),
        chosen=chosen,
        extensions=results.extensions,
        exploration=explored,
        thresholds=limits.model_dump(include=set(CHECKED)),
        property_limits=limits.properties,
        converged=because is None,
        not_converged_because=because,
        fits=fits_of(led_to(student.fit, attempts), config.train.bootstrap, workspace),
        files={
            name: store.path(made[step].file(output))
            for name, (step, output) in {**run_summary.PUBLISHED, **run_summary.PROPERTIES, **run_summary.READ}.items()
            if step in made
        },
    )


def label_counts(tables: Sequence[Artefact], labelling: Labelling, teachers: int) -> run_summary.LabelCounts:
    """Return how many predictions were computed and reused, and how many structures of the pool have no label.

    Args:
        tables: of labels, the pool's first.
        teachers: their number; each has a prediction for every structure that fitted in memory.
    """
    found = [table.read(pool_labels.Metrics) for table in tables]
    predictions = teachers * sum(table.structures - table.rejected_by.get("memory", 0) for table in found)
    return run_summary.LabelCounts(
        computed=labelling.computed,
        reused=max(predictions - labelling.computed, 0),
        rejected=found[0].rejected,
        rejected_by=found[0].rejected_by,
    )


def _attempt(attempt: Attempt, workspace: Workspace) -> run_summary.AttemptSummary:
    done = attempt.artefact
    metrics = done.metrics if done else {}
    return run_summary.AttemptSummary(
        name=attempt.name,
        stage=attempt.stage,
        plan=attempt.plan.model_dump(mode="json"),
        verdict=attempt.verdict,
        seconds=attempt.seconds,
        **{key: metrics[key] for key in FIT_FIGURES if done},
        train=of_side(metrics, "train"),
        validation=of_side(metrics, "validation"),
        last_validation=of_side(metrics, "last_validation"),
        history=workspace.store.path(done.file("history")) if done else None,
        message=attempt.result.message if isinstance(attempt.result, StepFailed) else "",
    )


def fits_of(chain: Sequence[Attempt], bootstrap: int | None, workspace: Workspace) -> tuple[run_summary.FitFiles, ...]:
    """Return the files that repeat each fit of a chain (see `led_to`)."""
    path, found, before = workspace.store.path, list[run_summary.FitFiles](), chain[0].artefact
    for number, attempt in enumerate(chain, 1):
        start, origin = attempt.start, ""
        assert attempt.artefact is not None
        assert before is not None
        if start:  # a potential of the fit before
            best, fitted = start.name == before.outputs["best"].name, before.read(pace_train.Metrics)
            iteration = fitted.best_iteration if best else fitted.interim_iteration
            origin = f"the {'best' if best else 'last'} potential of {found[-1].folder}, of iteration {iteration}"
        found.append(
            run_summary.FitFiles(
                folder=f"{number}-{attempt.name.removeprefix('pace_train ').replace(' ', '-')}",
                attempt=attempt.name,
                start=origin,
                bootstrap=bootstrap,
                input_yaml=path(attempt.artefact.file("input")),
                start_yaml=path(start) if start else None,
                train=path(attempt.inputs["train"][0]),
                validation=path(attempt.inputs["validation"][0]),
            )
        )
        before = attempt.artefact
    return tuple(found)
