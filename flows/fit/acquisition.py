"""Acquisitions: the structures that a round adds, labelled, before the student is fitted again.

A round of `flows.fit.rounds` or `flows.fit.exploration` is an acquisition and a fit from the potential before it.
Structures come from the training split of the pool, from molecular dynamics of the student, or are made for properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from containers.labels import pool_labels
from containers.properties.compare import DECIDED_BY, Group
from containers.tensorpot.selection import weak_spots
from flows.data import steps as data_steps
from flows.data.prepare import Prepared, with_structures
from flows.data.training_set import TrainingSet, frames_of, label_properties
from flows.fit import steps
from flows.fit.student import FittedStudent, Student
from flows.run import Run
from tasks.artefact import Stored


@dataclass(frozen=True)
class Acquired:
    """Data and training set with the new structures.

    Attributes:
        added_by: number of new structures by the reason.
    """

    prepared: Prepared
    training: TrainingSet
    added_by: dict[str, int]


def from_pool(prepared: Prepared, base: Student, structures: int, run: Run) -> Acquired:
    """Add so many structures of the training split that the student does worst on, or extrapolates on."""
    training = base.training
    call = steps.weak_spots_call(
        base.recipe,
        prepared.dataset,
        training.selection,
        prepared.baseline,
        base.core,
        base.active_set,
        structures,
        prepared.limits,
        run.workspace.settings,
    )
    selection = run(call)
    grown = frames_of(prepared, selection, run, training.properties)
    return Acquired(prepared, grown, selection.read(weak_spots.Metrics).added_by)


def for_properties(prepared: Prepared, base: FittedStudent, groups: Sequence[Group], run: Run) -> Acquired:
    """Add structures that decide these groups of properties, for each crystal that misses one."""
    missed: dict[str, list[Group]] = {}
    for row in base.deviations:
        group = DECIDED_BY[row.kind]
        if group in groups and prepared.limits.properties.over(row) > 1 and group not in missed.get(row.crystal, ()):
            missed.setdefault(row.crystal, []).append(group)
    training = base.training
    made = label_properties(prepared, missed, len(training.properties), run)
    if made is None:
        return Acquired(prepared, training, {})
    tables, added = (*training.properties, made), made.read(pool_labels.Metrics).labels
    grown = frames_of(prepared, training.selection, run, tables)
    return Acquired(prepared, grown, {" and ".join(groups): added})


def from_dynamics(prepared: Prepared, training: TrainingSet, tables: Mapping[str, Stored], run: Run) -> Acquired:
    """Label frames of molecular dynamics, add them to the data, and train on all that the training split has.

    A frame that is a near copy of a structure joins its family, so that no test structure has a copy in training.

    Args:
        tables: of structures, by the names that their rows have as `source`.

    Raises:
        StepFailed: of kind `BadInput` where the teacher has no label of any frame that keeps the bounds.
    """
    known, made = [prepared.dataset.file("dataset")], {f"{name}.parquet": table for name, table in tables.items()}
    grown = with_structures(
        prepared, run(data_steps.ingest_call(prepared.config, (), known, made=made, joins=True)), run
    )
    every = grown.recipe.selection.model_copy(update={"method": "all", "fraction": None})
    recipe = grown.recipe.model_copy(update={"selection": every})
    settings, given = run.workspace.settings, training.selection.file("selection")
    selection = run(data_steps.select_call(recipe, grown.dataset, grown.baseline, settings, given))
    return Acquired(grown, frames_of(grown, selection, run, training.properties), {})
