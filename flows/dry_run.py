"""What a run would do, without labelling or fitting anything.

Walks the same calls as the flow. The two cheap steps (`ingest`, `teacher_info`) may run; every other step is looked
up in the store, and from the first one that is missing on, inputs are not known yet.
"""

from __future__ import annotations

import json
from pathlib import Path

from containers.contract import write_atomic
from containers.mace.teacher_info import Teacher
from containers.tensorpot.pacemaker_input import Fit, PacemakerInput
from flows import calls
from flows.config import DistillConfig
from flows.distill import user_files
from flows.fit import first_plan
from flows.plan import FitPlan
from flows.plan import first_plan as plan_for
from flows.recipe import Recipe, resolve
from tasks.artefact import Artefact, StepCall
from tasks.run import look_up, request_of, run_step
from tasks.workspace import Workspace


class _Walk:
    """The lines told and the requests written while walking."""

    def __init__(self, folder: Path, workspace: Workspace) -> None:
        self.folder, self.workspace = folder, workspace
        self.lines: list[str] = []

    def cheap(self, call: StepCall, name: str) -> Artefact:
        """Run a cheap step, or take it from the store."""
        artefact = run_step(call, self.workspace)
        self._write(call, name, "cached" if artefact.cached else "ran now (cheap)")
        return artefact

    def seen(self, call: StepCall | None, name: str) -> Artefact | None:
        """Look a step up; `call` is None when its inputs are not known yet."""
        if call is None:
            self.lines.append(f"  {name:<24} would run (its inputs are made by the steps above)")
            return None
        artefact = look_up(call, self.workspace)
        self._write(call, name, "cached" if artefact else "would run")
        return artefact

    def _write(self, call: StepCall, name: str, state: str) -> None:
        request = request_of(call, self.workspace)
        file = self.folder / "requests" / f"{name.replace(' ', '_')}.json"
        write_atomic(file, request.model_dump_json(indent=1).encode())
        self.lines.append(f"  {name:<24} {state:<10} key {request.key[:8]}")


def plan(config: DistillConfig, workspace: Workspace) -> str:
    """Write plan.json, requests/ and input.yaml to runs/NAME/dry-run/ and return what to print."""
    files = user_files(config)
    folder = workspace.run_folder(config.name) / "dry-run"
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    walk = _Walk(folder, workspace)
    pool = walk.cheap(calls.ingest_call(files["pool"]), "ingest")
    keys = config.dft.energy_key, config.dft.forces_key
    dft = walk.cheap(calls.ingest_call(files["dft"], *keys), "ingest DFT data") if files["dft"] else None
    test = (
        walk.cheap(calls.ingest_call(files["dft_test"], *keys), "ingest DFT test data") if files["dft_test"] else None
    )
    if not files["teacher"]:
        walk.seen(calls.fetch_call(config.teacher.model), "teacher_fetch")
        return "\n".join([*walk.lines, "the rest is planned once the foundation model has been fetched"])
    model = files["teacher"][0]
    teacher = walk.cheap(calls.teacher_call(model), "teacher_info")
    found = {element for table in (pool, dft, test) if table for element in table.metrics["elements"]}
    recipe = resolve(config, Teacher.read(workspace.store.path(teacher.file("teacher"))), found)
    labels = walk.seen(calls.label_call(recipe, pool, model, workspace.settings), "mace_label")
    data = _walk_to_data(walk, recipe, labels, dft, test)
    first = first_plan(recipe, data) if data else _expected_plan(recipe, pool)
    _walk_the_rest(walk, recipe, first, labels, data, test)
    _write_plan(folder, recipe, first, walk.lines)
    return "\n".join([f"{config.name}: the plan, written to {folder}", *walk.lines])


def _walk_to_data(
    walk: _Walk, recipe: Recipe, labels: Artefact | None, dft: Artefact | None, test: Artefact | None
) -> Artefact | None:
    selection = walk.seen(calls.select_call(recipe, labels) if labels else None, "pace_select")
    call = calls.dataset_call(recipe, labels, selection, dft, test) if labels and selection else None
    return walk.seen(call, "dataset")


def _walk_the_rest(
    walk: _Walk, recipe: Recipe, first: FitPlan, labels: Artefact | None, data: Artefact | None, test: Artefact | None
) -> None:
    settings = walk.workspace.settings
    fitted = walk.seen(calls.train_call(recipe, first, data, None, settings) if data else None, "pace_train attempt 1")
    potential = fitted.file("potential") if fitted else None
    active = walk.seen(calls.active_set_call(potential, data) if potential and data else None, "pace_activeset")
    if potential and active and data:
        walk.seen(calls.evaluate_call(recipe, potential, active, data, test), "evaluate")
    else:
        walk.seen(None, "evaluate")


def _expected_plan(recipe: Recipe, pool: Artefact) -> FitPlan:
    """The first plan as the pool's mean size suggests it; the selected structures decide the batch in the end."""
    structures = min(recipe.config.selection.max_structures, pool.metrics["structures"])
    atoms = round(structures * pool.metrics["atoms"] / pool.metrics["structures"])
    return plan_for(recipe.config.train.maxiter, recipe.config.train.batch_size, structures, atoms)


def _write_plan(folder: Path, recipe: Recipe, first: FitPlan, lines: list[str]) -> None:
    plan = {"recipe": recipe.model_dump(mode="json"), "first_attempt": first.model_dump(mode="json"), "steps": lines}
    write_atomic(folder / "plan.json", json.dumps(plan, indent=1).encode())
    params = calls.train_params(recipe, first)
    fit = Fit(loss=params.loss, maxiter=params.maxiter, repulsion=params.reference_potential == "zbl")
    asked = PacemakerInput(potential=params.potential, fit=fit, batch_size=first.batch_size, seed=params.seed)
    write_atomic(folder / "input.yaml", asked.text().encode())
