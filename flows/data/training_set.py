"""From the data set to the frames that pacemaker reads: selection, strained structures, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from containers.mace.properties import property_structures, teacher_properties
from containers.properties.compare import Group
from containers.tensorpot.frames import frames
from containers.tensorpot.selection import pace_select
from flows.data import steps
from flows.data.labelling import label
from flows.data.prepare import Prepared
from flows.run import Run
from tasks.artefact import Artefact
from tasks.prefect_logging import run_log


@dataclass(frozen=True)
class TrainingSet:
    """Selected structures and the frames made of them.

    Attributes:
        selection: of `pace_select`, or of `weak_spots`.
        frames: of the three splits.
        properties: labels of structures that decide properties, of every round that made some.
        plain: frames without these, for all stages of a fit but the last; None: `frames` are for all.
    """

    selection: Artefact
    frames: Artefact
    properties: tuple[Artefact, ...] = ()
    plain: Artefact | None = None


def training_set(prepared: Prepared, run: Run) -> TrainingSet:
    """Select training structures, label strained copies of them, write the frames."""
    ingested, settings = prepared.ingested, run.workspace.settings
    data = (prepared.dataset, prepared.baseline)
    selection = run(steps.select_call(prepared.recipe, *data, settings, ingested.given, ingested.fitted))
    found = selection.read(pace_select.Metrics)
    if ingested.given and found.how.get("given") == found.selected:
        run_log().warning("nothing new was selected: raise selection.max_structures above what the base has selected")
    return frames_of(prepared, selection, run, properties_in_training(prepared, run))


def properties_in_training(prepared: Prepared, run: Run) -> tuple[Artefact, ...]:
    """Label the structures that decide `properties.in_training`, of every crystal and molecule of the teacher."""
    properties = prepared.recipe.properties
    measured = {"elastic": properties.elastic, "phonon": properties.phonons, "vacancy": properties.vacancies}
    measured |= {"surface": properties.surfaces}
    groups = [group for group in properties.in_training if measured.get(group, True)]
    if not prepared.teacher_properties or not groups:
        return ()
    found = prepared.teacher_properties.read(teacher_properties.Metrics)
    of_crystals: list[Group] = [group for group in groups if group != "molecule"]
    wanted = {name: of_crystals for name in found.names if of_crystals}
    wanted |= {name: list[Group](["molecule"]) for name in found.molecule_names if "molecule" in groups}
    labels = label_properties(prepared, wanted, 0, run) if wanted else None
    return (labels,) if labels else ()


def label_properties(
    prepared: Prepared, wanted: Mapping[str, Sequence[Group]], before: int, run: Run
) -> Artefact | None:
    """Make structures that decide groups of properties, by crystal or molecule, and label them; None where none was
    made, which the log says."""
    assert prepared.teacher_properties
    recipe, models = prepared.recipe, prepared.models.values()
    call = steps.property_structures_call(
        recipe, models, prepared.teacher_properties, wanted, before, run.workspace.settings
    )
    made = run(call)
    found = made.read(property_structures.Metrics)
    for what, reason in found.failed.items():
        run_log().warning("no structures for %s: %s", what, reason)
    return label(recipe, made, prepared.teachers, run, "pool_labels properties") if found.structures else None


def frames_of(prepared: Prepared, selection: Artefact, run: Run, properties: tuple[Artefact, ...] = ()) -> TrainingSet:
    """Write the frames of a selection; with a stress loss, label strained copies first, in a pass of their own.

    Warn of pairs of elements that training never sees within the cutoff, and of those that the other splits have.
    """
    recipe, strains = prepared.recipe, None
    if recipe.loss_stress > 0:
        strained = run(steps.strain_call(recipe, prepared.dataset, selection))
        strains = label(recipe, strained, prepared.teachers, run, "pool_labels strains")
    made = run(steps.frames_call(recipe, prepared.dataset, selection, prepared.baseline, strains, properties))
    plain = None
    if properties and len(recipe.stages) > 1:
        call = steps.frames_call(recipe, prepared.dataset, selection, prepared.baseline, strains, ())
        plain = run(call, "frames plain")
    pairs = made.read(frames.Metrics).pairs
    if unseen := [pair for pair, splits in pairs.items() if not splits["train"]["structures"]]:
        elsewhere = [pair for pair in unseen if any(pairs[pair][name]["structures"] for name in ("validation", "test"))]
        run_log().warning(
            "training sees no pair %s within the cutoff: the potential has its core alone for it, or nothing.%s",
            ", ".join(unseen),
            f" Validation or test structures have {', '.join(elsewhere)}." if elsewhere else "",
        )
    return TrainingSet(selection, made, properties, plain)
