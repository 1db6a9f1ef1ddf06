"""Every step once, on tiny data, by the runner that DISTILL_RUNNER names: `python chain.py POOL MODEL ROOT`.

A process of its own: in process, the steps load torch and TensorFlow. Prints an artefact for each step, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from ase.build import bulk
from ase.io import write

from containers.contract import load_step, no_progress
from containers.mace.labelling import mace_label
from containers.properties.compare import Group
from containers.properties.results import Properties
from containers.tensorpot.exploration.dynamics import Condition
from flows.config.schema import DistillConfig
from flows.config.training import Limits
from flows.data import steps
from flows.data.prepare import read_teacher
from flows.data.recipe import Recipe, resolve
from flows.fit import steps as fit_steps
from flows.fit.repairs import first_plan
from tasks.artefact import Artefact, External, StepCall, external
from tasks.labelling.shard_task import TeacherCall, shard_call
from tasks.labelling.shards import ShardFile, StructurePool
from tasks.run_step import request_of, run_step
from tasks.runners.base import runner_of
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

ITERATIONS = 4
LIMITS = Limits(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
MODEL = "small"
CONDITION = Condition(ensemble="NPT", temperature_K=600, picoseconds=0.02)


def config(pool: str, model: str) -> DistillConfig:
    """The smallest distillation that a fit accepts."""
    return DistillConfig.model_validate(
        {
            "name": "tiny",
            "teacher": {"model": model},
            "pool": {"files": [pool]},
            "dataset": {"likeness_A": 0.0},  # all eight are alike
            "pacemaker": {"functions_per_element": 12, "b_basis": "small"},
            "selection": {"max_structures": 4},  # some are left for weak_spots
            "stability": {"picoseconds": 0.02},
            "trajectory": {"picoseconds": 0.02, "temperatures_K": [300.0], "frames": 2},
            "properties": {"phonons": False, "vacancies": False, "supercell_A": 5},
            "train": {"maxiter": ITERATIONS, "threads": 1},
            "explore": {
                "structures": 20,
                "slabs": False,
                "compositions": ["Si"],
                "drawn_crystals": 2,
                "drawn_atoms": 4,
                "conditions": [{"temperature_K": 600}],
            },
        }
    )


def chain(pool: Path, model: Path, workspace: Workspace) -> dict[str, Artefact]:
    """The way of the flow without its decisions: step -> result."""
    done: dict[str, Artefact] = {"teacher_fetch": fetched(workspace)}

    def run(call: StepCall, name: str | None = None) -> Artefact:
        return done.setdefault(call.step, run_step(call, workspace))

    teacher = external(model)
    given = config(str(pool), str(model))
    structures = run(steps.ingest_call(given, (external(pool),)))
    recipe = resolved(given, run(steps.teacher_info_call(teacher)), structures, workspace)
    labels = run(labels_call(recipe, structures, run, teacher, workspace))
    data = run(data_call(recipe, labels, teacher, workspace))
    baseline = run(steps.baseline_call(recipe, labels, None, None, []))
    selection = run(steps.select_call(recipe, data, baseline, workspace.settings))
    run(steps.strain_call(recipe, data, selection))
    frames = run(steps.frames_call(recipe, data, selection, baseline, None))
    fitted = run(fit_steps.train_call(recipe, first_plan(recipe.stages[0]), frames, None, workspace.settings))
    potential = fitted.file("best")
    active_set = run(fit_steps.active_set_call(recipe, potential, frames))
    core = run(fit_steps.core_call(recipe, potential, active_set, frames, baseline))
    of_teacher = run(steps.teacher_properties_call(recipe, [teacher], labels, None, workspace.settings))
    run(fit_steps.student_properties_call(recipe, core, active_set, baseline, of_teacher))
    stable = run(fit_steps.stability_call(recipe, core, active_set, frames, baseline))
    run(fit_steps.evaluate_call(recipe, core, active_set, frames, baseline, None))
    run(fit_steps.weak_spots_call(recipe, data, selection, baseline, core, active_set, 1, LIMITS, workspace.settings))
    crystal = Properties.read(workspace.store.path(of_teacher.file("properties"))).crystals[0].name
    missed: dict[str, list[Group]] = {crystal: ["elastic", "surface"]}
    run(steps.property_structures_call(recipe, [teacher], of_teacher, missed, 0, workspace.settings))
    made = run(fit_steps.trajectory_call(recipe, core, active_set, frames, baseline, stable))
    run(fit_steps.teacher_motion_call(recipe, [teacher], made, workspace.settings))
    run(fit_steps.trajectory_errors_call(core, active_set, baseline, made, None))
    write(pool.with_name("seed.extxyz"), bulk("Si"))
    seeds = run_step(steps.ingest_call(given, (external(pool.with_name("seed.extxyz")),)), workspace)
    run(steps.composition_seeds_call(given, [teacher], recipe.head, None, workspace.settings))
    starts = run(steps.seed_pool_call(given, seeds))
    start = pq.read_table(workspace.store.path(starts.file("starts")))["id"][0].as_py()
    moved = run(fit_steps.explore_call(recipe, CONDITION, start, 1, 1, starts, core, active_set, baseline))
    run(fit_steps.choose_frames_call(recipe, [moved], 5, potential, active_set, workspace.settings))
    checked = run_step(steps.ingest_call(given, (), made={"1 check.parquet": made.file("structures")}), workspace)
    run(fit_steps.frame_errors_call(core, active_set, baseline, checked, None))
    run(fit_steps.committee_call([core.file("potential")] * 2, frames, baseline))
    return done


def data_call(recipe: Recipe, labels: Artefact, model: External, workspace: Workspace) -> StepCall:
    """The data set of the pool alone."""
    asked = TeacherCall(model=model, params=mace_label.Params(head=recipe.head), cutoff_A=recipe.potential.cutoff)
    return steps.dataset_call(recipe, labels, None, None, None, [asked.key(workspace)])


def labels_call(
    recipe: Recipe, structures: Artefact, run: Callable[[StepCall], Artefact], model: External, workspace: Workspace
) -> StepCall:
    """`pool_labels` for what one shard labelled, which is run here like any step, its result in the store."""
    table = structures.file("structures")
    pool = StructurePool(workspace.store.path(table))
    asked = TeacherCall(model=model, params=mace_label.Params(head=recipe.head), cutoff_A=recipe.potential.cutoff)
    shard = ShardFile(file=pool.table, sha256=table.sha256, structures=len(pool), atoms=int(pool.atoms.sum()))
    labelled = run(shard_call(shard, asked, workspace.settings, None))
    store = asked.store(workspace)
    if store.missing(pool.ids).any():
        store.commit(workspace.store.path(labelled.file("labels")), pool.ids, pool.atoms)
    call = steps.pool_labels_call(recipe, structures, [asked.key(workspace)])
    with store.reading() as files:
        return call.model_copy(update={"sources": {"labels": files}})


def resolved(config: DistillConfig, teacher: Artefact, structures: Artefact, workspace: Workspace) -> Recipe:
    """The recipe for what the first two steps found."""
    return resolve(config, [read_teacher(teacher, workspace)], set(structures.metrics["elements"]), set())


def fetched(workspace: Workspace) -> Artefact:
    """The step `teacher_fetch` in its stub: in earnest it downloads (see test_network.py)."""
    request = request_of(steps.fetch_call(MODEL), workspace).model_copy(update={"stub": True})
    if report := workspace.store.find(request, verify=True):
        return Artefact.of(report, cached=True)
    folder = workspace.store.stage(request)
    runner_of(workspace).run(folder, load_step(request.step).IMAGE, request, no_progress)
    return Artefact.of(workspace.store.publish(folder, request), cached=False)


def main(pool: str, model: str, root: str) -> None:
    """Print step -> artefact."""
    workspace = open_workspace(Path(root), Settings(cores=1), verify=True)
    artefacts = chain(Path(pool), Path(model), workspace)
    print(json.dumps({step: artefact.model_dump(mode="json") for step, artefact in artefacts.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
