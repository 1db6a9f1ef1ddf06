"""What a run would do, without labelling or fitting anything.

Walks the same calls as the flow. The two cheap steps (`ingest`, `teacher_info`) may run; every other step is looked
up in the store, and from the first one that is missing on, inputs are not known yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from containers.contract import Request, write_atomic
from containers.tensorpot.pace_train import pacemaker_input
from flows import calls
from flows.config import DistillConfig
from flows.distill import elements_in, read_teacher, stored_tables, teacher_files, user_files
from flows.fit import first_plan
from flows.label import with_sources
from flows.plan import FitPlan
from flows.plan import first_plan as plan_for
from flows.recipe import Recipe, check_committee, check_sides, resolve
from tasks.artefact import Artefact, FileRef, StepCall
from tasks.errors import StoreError
from tasks.label import Asked
from tasks.label_shards import Pool
from tasks.run import look_up, request_of, run_step
from tasks.workspace import Workspace


class _Walk:
    """Collects what is told and written while walking; nothing is written before the walk has ended well."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.lines: list[str] = []
        self.requests: dict[str, Request] = {}

    def cheap(self, call: StepCall, name: str) -> Artefact:
        """Run a cheap step, or take it from the store."""
        artefact = run_step(call, self.workspace)
        self._tell(call, name, "cached" if artefact.cached else "ran now (cheap)")
        return artefact

    def seen(self, call: StepCall | None, name: str) -> Artefact | None:
        """Look a step up; `call` is None when its inputs are not known yet."""
        if call is None:
            self.lines.append(f"  {name:<24} would run (its inputs are made by the steps above)")
            return None
        artefact = look_up(call, self.workspace)
        self._tell(call, name, "cached" if artefact else "would run")
        return artefact

    def _tell(self, call: StepCall, name: str, state: str) -> None:
        self.requests[name] = request_of(call, self.workspace)
        self.lines.append(f"  {name:<24} {state:<15} key {self.requests[name].key[:8]}")


def plan(config: DistillConfig, workspace: Workspace) -> str:
    """Write plan.json, requests/ and input.yaml to runs/NAME/dry-run/ and return what to print."""
    files = user_files(config)
    walk = _Walk(workspace)
    pool = walk.cheap(calls.ingest_call(files["pool"]), "ingest")
    dft = walk.cheap(calls.dft_call(config, files["dft"]), "ingest DFT data") if files["dft"] else None
    test = walk.cheap(calls.dft_call(config, files["dft_test"]), "ingest DFT test data") if files["dft_test"] else None
    models = _models(walk, config)
    texts: dict[str, str] = {}
    if not all(models):
        walk.lines.append("  the rest is planned once the foundation models have been fetched")
    else:
        known = [model for model in models if model]
        check_committee(dict(zip(teacher_files(config), (model.sha256 for model in known), strict=True)))
        teachers = [read_teacher(walk.cheap(calls.teacher_call(model), "teacher_info"), workspace) for model in known]
        recipe = resolve(config, teachers, elements_in(pool), elements_in(dft, test))
        check_sides(stored_tables(workspace, pool, dft), config.split)
        asked = [calls.asked(recipe, model, teacher) for model, teacher in zip(known, teachers, strict=True)]
        labels = _walk_labels(walk, recipe, pool, asked)
        _walk_the_rest(walk, recipe, pool, labels, dft, test)
        texts = _texts(recipe, pool, walk.lines)
    folder = workspace.run_folder(config.name) / "dry-run"
    try:
        _write(folder, walk.requests, texts)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}. Move what is in the way.") from None
    return "\n".join([f"{config.name}: the plan, written to {folder}", *walk.lines])


def _models(walk: _Walk, config: DistillConfig) -> list[FileRef | None]:
    return [file or _fetched(walk, name) for name, file in teacher_files(config).items()]


def _fetched(walk: _Walk, name: str) -> FileRef | None:
    fetched = walk.seen(calls.fetch_call(name), f"teacher_fetch {name}")
    return fetched.file("model") if fetched else None


def _walk_labels(walk: _Walk, recipe: Recipe, pool: Artefact, asked: Sequence[Asked]) -> Artefact | None:
    """Tell how many labels each teacher's store lacks; then look the pool's table up."""
    structures = Pool(walk.workspace.store.path(pool.file("structures")))
    for number, teacher in enumerate(asked):
        missing = int(teacher.store(walk.workspace).missing(structures.ids).sum())
        name, state = f"mace_label {number + 1}" if number else "mace_label", "would run" if missing else "cached"
        walk.lines.append(f"  {name:<24} {state:<15} ({missing} of {len(structures)} structures are not labelled yet)")
    keys = [teacher.key(walk.workspace) for teacher in asked]
    with ExitStack() as stack:
        call = calls.pool_labels_call(recipe, pool, keys)
        return walk.seen(with_sources(call, asked, walk.workspace, stack), "pool_labels")


def _walk_the_rest(
    walk: _Walk, recipe: Recipe, pool: Artefact, labels: Artefact | None, dft: Artefact | None, test: Artefact | None
) -> None:
    selection = walk.seen(calls.select_call(recipe, labels) if labels else None, "pace_select")
    data_call = calls.dataset_call(recipe, labels, selection, dft, test) if labels and selection else None
    data = walk.seen(data_call, "dataset")
    first = first_plan(recipe, data) if data else expected_plan(recipe, pool)
    call = calls.train_call(recipe, first, data, None, walk.workspace.settings) if data else None
    fitted = walk.seen(call, "pace_train attempt 1")
    potential = fitted.file("potential") if fitted else None
    active = walk.seen(calls.active_set_call(potential, data) if potential and data else None, "pace_activeset")
    if potential and active and data:
        walk.seen(calls.evaluate_call(recipe, potential, active, data, test), "evaluate")
    else:
        walk.seen(None, "evaluate")


def expected_plan(recipe: Recipe, pool: Artefact) -> FitPlan:
    """The first plan as the pool's mean size suggests it; the selected structures decide the batch in the end."""
    train = recipe.config.train
    structures = min(recipe.config.selection.max_structures, pool.metrics["structures"])
    atoms = round(structures * pool.metrics["atoms"] / pool.metrics["structures"])
    return plan_for(train.maxiter, train.batch_size, structures, atoms)


def _texts(recipe: Recipe, pool: Artefact, lines: list[str]) -> dict[str, str]:
    first = expected_plan(recipe, pool)
    told = {"recipe": recipe.model_dump(mode="json"), "first_attempt": first.model_dump(mode="json"), "steps": lines}
    params = calls.train_params(recipe, first)
    return {"plan.json": json.dumps(told, indent=1), "input.yaml": pacemaker_input(params, 0, 0, "fresh").text()}


def _write(folder: Path, requests: dict[str, Request], texts: dict[str, str]) -> None:
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("requests/*.json"), folder / "plan.json", folder / "input.yaml"):
        old.unlink(missing_ok=True)  # of an earlier plan that may have gone farther
    for name, request in requests.items():
        file = folder / "requests" / f"{name.replace(' ', '_')}.json"
        write_atomic(file, request.model_dump_json(indent=1).encode())
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
