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
from containers.structures.state import union
from containers.tensorpot.fit.pace_train import pacemaker_input
from flows.config.loading import teacher_files, user_files
from flows.config.schema import DistillConfig
from flows.data import steps
from flows.data.labelling import with_sources
from flows.data.prepare import Ingested, ingest_all, read_teacher, stored_tables, tables_of
from flows.data.recipe import Recipe, check_committee, check_elements, check_sides, resolve
from flows.fit import steps as fit_steps
from flows.fit.attempts import first_names, first_plan, fit
from flows.fit.basis_plan import basis_lines
from flows.fit.student import finish
from tasks.artefact import Artefact, FileRef, StepCall
from tasks.errors import StoreError
from tasks.labelling.shard_task import Asked
from tasks.labelling.shards import Pool
from tasks.run_step import look_up, request_of, run_step
from tasks.workspace import Workspace


class _Missing(Exception):
    """A result is not in the store: what follows it is not known."""


class _Walk:
    """Collects what is told and written while walking; nothing is written before the walk has ended well."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.lines: list[str] = []
        self.requests: dict[str, Request] = {}

    def cheap(self, call: StepCall, name: str | None = None) -> Artefact:
        """Run a cheap step, or take it from the store."""
        artefact = run_step(call, self.workspace)
        self._tell(call, name or call.step, "cached" if artefact.cached else "ran now (cheap)")
        return artefact

    def seen(self, call: StepCall | None, name: str) -> Artefact | None:
        """Look a step up; `call` is None when its inputs are not known yet."""
        if call is None:
            self.lines.append(f"  {name:<28} would run (its inputs are made by the steps above)")
            return None
        artefact = look_up(call, self.workspace)
        self._tell(call, name, "cached" if artefact else "would run")
        return artefact

    def found(self, call: StepCall, name: str | None = None) -> Artefact:
        """Look a step up in the place of running it; raises `_Missing`."""
        if artefact := self.seen(call, name or call.step):
            return artefact
        raise _Missing

    def attempt(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
        """The same for an attempt at a fit."""
        return self.found(call, run_name)

    def _tell(self, call: StepCall, name: str, state: str) -> None:
        self.requests[name] = request_of(call, self.workspace)
        self.lines.append(f"  {name:<28} {state:<15} key {self.requests[name].key[:8]}")


def plan(config: DistillConfig, workspace: Workspace) -> str:
    """Write plan.json, requests/ and input.yaml to runs/NAME/dry-run/ and return what to print."""
    files = user_files(config)
    walk = _Walk(workspace)
    models = _models(walk, config)
    known = [model for model in models if model]
    if all(models):
        check_committee(dict(zip(teacher_files(config), (model.sha256 for model in known), strict=True)))
    teachers = [read_teacher(walk.cheap(steps.teacher_call(model), "teacher_info"), workspace) for model in known]
    ingested = ingest_all(config, files, walk.cheap, union(teacher.reads for teacher in teachers))
    texts: dict[str, str] = {}
    basis: list[str] = []
    if not all(models):
        walk.lines.append("  the rest is planned once the foundation models have been fetched")
    else:
        recipe = resolve(config, teachers, ingested.pool_elements, ingested.dft_elements)
        check_sides(stored_tables(workspace, ingested), config.split)
        check_elements(recipe, tables_of(workspace, ingested))
        asked = [steps.asked(recipe, model, teacher) for model, teacher in zip(known, teachers, strict=True)]
        _walk_the_data(walk, recipe, ingested, asked)
        basis = basis_lines(recipe, _expected(recipe, ingested.pool)[1])
        texts = _texts(recipe, ingested.pool, [*walk.lines, *basis])
    folder = workspace.run_folder(config.name) / "dry-run"
    try:
        _write(folder, walk.requests, texts)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}. Move what is in the way.") from None
    return "\n".join([f"{config.name}: the plan, written to {folder}", *walk.lines, *basis, *config.notices])


def _models(walk: _Walk, config: DistillConfig) -> list[FileRef | None]:
    return [file or _fetched(walk, name) for name, file in teacher_files(config).items()]


def _fetched(walk: _Walk, name: str) -> FileRef | None:
    fetched = walk.seen(steps.fetch_call(name), f"teacher_fetch {name}")
    return fetched.file("model") if fetched else None


def _walk_labels(walk: _Walk, recipe: Recipe, table: Artefact, asked: Sequence[Asked], of: str = "") -> Artefact | None:
    """Tell how many labels each teacher's store lacks; then look the table of labels up."""
    structures = Pool(walk.workspace.store.path(table.file("structures")))
    for number, teacher in enumerate(asked):
        missing = int(teacher.store(walk.workspace).missing(structures.ids).sum())
        name = f"mace_label {number + 1}{of}" if number else f"mace_label{of}"
        state = "would run" if missing else "cached"
        walk.lines.append(f"  {name:<28} {state:<15} ({missing} of {len(structures)} structures are not labelled yet)")
    keys = [teacher.key(walk.workspace) for teacher in asked]
    with ExitStack() as stack:
        call = steps.pool_labels_call(recipe, table, keys)
        return walk.seen(with_sources(call, asked, walk.workspace, stack), f"pool_labels{of}")


def _walk_the_data(walk: _Walk, recipe: Recipe, ingested: Ingested, asked: Sequence[Asked]) -> None:
    labels = _walk_labels(walk, recipe, ingested.pool, asked)
    of_dft = [_walk_labels(walk, recipe, table, asked, f" {name}") for name, table in ingested.with_dft]
    dft, test, by_teacher = ingested.dft, ingested.dft_test, [one for one in of_dft if one]
    keys = [teacher.key(walk.workspace) for teacher in asked]
    merged = steps.dataset_call(recipe, labels, dft, test, ingested.merged, keys) if labels else None
    dataset = walk.seen(merged, "dataset")
    earlier = (ingested.earlier_baseline, ingested.merged)
    complete = labels and len(by_teacher) == len(of_dft)
    call = steps.baseline_call(recipe, labels, dft, test, by_teacher, *earlier) if labels and complete else None
    baseline = walk.seen(call, "baseline")
    if baseline and dataset:
        _walk_the_set(walk, recipe, ingested, dataset, baseline)
    else:
        for name in ("pace_select", "frames", *_fitting(recipe)):
            walk.seen(None, name)


def _fitting(recipe: Recipe) -> list[str]:
    """The task runs from the first attempt on that there will be in any case, if no stage fails."""
    gate = ["stability"] if recipe.config.stability.picoseconds > 0 else []
    return [*first_names(recipe), "pace_activeset", "pace_corerep", *gate, "evaluate"]


def _walk_the_set(walk: _Walk, recipe: Recipe, ingested: Ingested, dataset: Artefact, baseline: Artefact) -> None:
    settings = walk.workspace.settings
    select = steps.select_call(recipe, dataset, baseline, settings, ingested.given, ingested.fitted)
    selection = walk.seen(select, "pace_select")
    frames_call = None
    if selection and recipe.config.pacemaker.loss_stress == 0:
        frames_call = steps.frames_call(recipe, dataset, selection, baseline, None)
    elif selection:
        walk.seen(steps.strain_call(recipe, dataset, selection), "strain")
    frames = walk.seen(frames_call, "frames")
    try:
        if frames is None:
            raise _Missing
        _, best = fit(recipe, frames, walk.workspace, walk.attempt)
        finish(recipe, best, frames, baseline, ingested.dft_test, walk.found)
    except _Missing:
        for name in _fitting(recipe):
            if name not in walk.requests:
                walk.seen(None, name)


def _expected(recipe: Recipe, pool: Artefact) -> tuple[int, int]:
    """Training structures and their atoms, as the pool's mean size suggests; the selection decides in the end."""
    selection, pooled = recipe.config.selection, pool.metrics["structures"]
    structures = min(round(selection.fraction * pooled) if selection.fraction else selection.max_structures, pooled)
    structures = max(structures, 1)
    return structures, round(structures * pool.metrics["atoms"] / pooled)


def _texts(recipe: Recipe, pool: Artefact, lines: list[str]) -> dict[str, str]:
    first = first_plan(recipe)
    told = {"recipe": recipe.model_dump(mode="json"), "first_attempt": first.model_dump(mode="json"), "steps": lines}
    params = fit_steps.train_params(recipe, first)
    return {
        "plan.json": json.dumps(told, indent=1),
        "input.yaml": pacemaker_input(params, *_expected(recipe, pool), "fresh").text(),
    }


def _write(folder: Path, requests: dict[str, Request], texts: dict[str, str]) -> None:
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("requests/*.json"), folder / "plan.json", folder / "input.yaml"):
        old.unlink(missing_ok=True)  # of an earlier plan that may have gone farther
    for name, request in requests.items():
        file = folder / "requests" / f"{name.replace(' ', '_')}.json"
        write_atomic(file, request.model_dump_json(indent=1).encode())
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
