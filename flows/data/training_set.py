"""From the data set to the frames that pacemaker is given: selection, strained structures, weights."""

from __future__ import annotations

from collections.abc import Sequence

from flows.data import steps
from flows.data.labelling import label
from flows.data.prepare import Prepared
from flows.run import Runner
from tasks.artefact import Artefact
from tasks.labelling.statistics import Work
from tasks.prefect_logging import run_log


def training_set(prepared: Prepared, run: Runner) -> tuple[Artefact, Sequence[Work]]:
    """The frames of the three sides, and what the labelling of strained structures took."""
    recipe, dataset, baseline, ingested = prepared.recipe, prepared.dataset, prepared.baseline, prepared.ingested
    call = steps.select_call(recipe, dataset, baseline, run.workspace.settings, ingested.given, ingested.fitted)
    selection = run(call)
    how = selection.metrics["how"]
    if ingested.given and how.get("given") == selection.metrics["selected"]:
        run_log().warning("nothing new was selected: raise selection.max_structures above what the base has selected")
    return frames_of(prepared, selection, run)


def frames_of(prepared: Prepared, selection: Artefact, run: Runner) -> tuple[Artefact, Sequence[Work]]:
    """The frames of a selection, and what the labelling of strained structures took."""
    strains, works = _strained(prepared, selection, run)
    call = steps.frames_call(prepared.recipe, prepared.dataset, selection, prepared.baseline, strains)
    frames = run(call)
    warn_of_pairs(frames)
    return frames, works


def warn_of_pairs(frames: Artefact) -> None:
    """Warn of pairs of elements that training never sees within the cutoff, and of those that other sides have."""
    pairs = frames.metrics["pairs"]
    unseen = [pair for pair, sides in pairs.items() if not sides["train"]["structures"]]
    if not unseen:
        return
    elsewhere = [
        pair for pair in unseen if pairs[pair]["validation"]["structures"] or pairs[pair]["test"]["structures"]
    ]
    more = f" Validation or test structures have {', '.join(elsewhere)}." if elsewhere else ""
    run_log().warning(
        "training sees no pair %s within the cutoff: the potential has its core alone for it, or nothing.%s",
        ", ".join(unseen),
        more,
    )


def _strained(prepared: Prepared, selection: Artefact, run: Runner) -> tuple[Artefact | None, list[Work]]:
    """Labels of strained copies of selected structures, in a labelling pass of their own; none without stress."""
    if prepared.recipe.config.pacemaker.loss_stress == 0:
        return None, []
    strains = run(steps.strain_call(prepared.recipe, prepared.dataset, selection))
    labels, work = label(prepared.recipe, strains, prepared.teachers, run.workspace, "pool_labels strains")
    run.done["pool_labels strains"] = labels
    return labels, [work]
