"""From the data set to the frames that pacemaker is given: selection, strained structures, weights."""

from __future__ import annotations

from collections.abc import Sequence

from flows import calls
from flows.data import Prepared, Runner
from flows.label import label
from tasks.artefact import Artefact
from tasks.label_work import Work
from tasks.prefect_run import run_log


def training_set(prepared: Prepared, run: Runner) -> tuple[Artefact, Sequence[Work]]:
    """The frames of the three sides, and what the labelling of strained structures took."""
    recipe, dataset, baseline, ingested = prepared.recipe, prepared.dataset, prepared.baseline, prepared.ingested
    call = calls.select_call(recipe, dataset, baseline, run.workspace.settings, ingested.given, ingested.fitted)
    selection = run(call)
    how = selection.metrics["how"]
    if ingested.given and how.get("given") == selection.metrics["selected"]:
        run_log().warning("nothing new was selected: raise selection.max_structures above what the base has selected")
    return frames_of(prepared, selection, run)


def frames_of(prepared: Prepared, selection: Artefact, run: Runner) -> tuple[Artefact, Sequence[Work]]:
    """The frames of a selection, and what the labelling of strained structures took."""
    strains, works = _strained(prepared, selection, run)
    call = calls.frames_call(prepared.recipe, prepared.dataset, selection, prepared.baseline, strains)
    return run(call), works


def _strained(prepared: Prepared, selection: Artefact, run: Runner) -> tuple[Artefact | None, list[Work]]:
    """Labels of strained copies of selected structures, in a labelling pass of their own; none without stress."""
    if prepared.recipe.config.pacemaker.loss_stress == 0:
        return None, []
    strains = run(calls.strain_call(prepared.recipe, prepared.dataset, selection))
    labels, work = label(prepared.recipe, strains, prepared.teachers, run.workspace, "pool_labels strains")
    run.done["pool_labels strains"] = labels
    return labels, [work]
