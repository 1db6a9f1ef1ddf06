"""The plan of a run, without labelling or fitting anything.

The functions of the flow with a `Run` that looks results up. The two cheap steps (`ingest`, `teacher_info`) may run.
The walk ends at the first result that is missing and whose figures the next call depends on.
"""

from __future__ import annotations

import json
from contextlib import suppress

from containers.contract import Request, write_atomic
from containers.ingest import ingest
from containers.tensorpot.fit.pace_train import pacemaker_input
from flows.config.loading import teacher_files, user_files
from flows.config.schema import DistillConfig
from flows.data.prepare import label_and_merge, resolve_inputs
from flows.data.recipe import Recipe
from flows.data.training_set import training_set
from flows.fit import steps as fit_steps
from flows.fit.attempts import attempt_name
from flows.fit.basis_plan import basis_lines
from flows.fit.repairs import first_plan
from flows.fit.student import make_student
from flows.run import Missing, Run, Unmade, is_made
from tasks.artefact import Artefact, StepCall
from tasks.errors import StoreError
from tasks.run_step import look_up, request_of, run_step
from tasks.workspace import Workspace

CHEAP = ("ingest", "teacher_info")
UNKNOWN = "would run (its inputs are made by the steps above)"


class _Look:
    """Looks up steps instead of running them, and collects the line and the request of each."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self.requests: dict[str, Request] = {}

    def note(self, name: str, text: str) -> None:
        self.lines[name] = f"  {name:<28} {text}"

    def __call__(self, call: StepCall, workspace: Workspace, name: str) -> Artefact:
        if not all(is_made(file) for files in call.inputs.values() for file in files):
            self.note(name, UNKNOWN)
            return Unmade.by(call.step)
        found = run_step(call, workspace) if call.step in CHEAP else look_up(call, workspace)
        state = "would run" if found is None else "cached" if found.cached else "ran now (cheap)"
        self.requests[name] = request_of(call, workspace)
        self.note(name, f"{state:<15} key {self.requests[name].key[:8]}")
        return found or Unmade.by(call.step)


def plan(config: DistillConfig, workspace: Workspace) -> str:
    """Write plan.json, requests/ and input.yaml to runs/NAME/dry-run/ and return what to print.

    Nothing is written before the walk has ended well.
    """
    look = _Look()
    run = Run(workspace, step=look, note=look.note)
    texts: dict[str, str] = {}
    basis: list[str] = []
    try:
        known = resolve_inputs(config, user_files(config), teacher_files(config), run)
    except Missing as missing:
        look.lines[""] = f"  {missing}"
    else:
        with suppress(Missing):
            prepared = label_and_merge(known, run)
            make_student(prepared, training_set(prepared, run), run)
        gate = ["stability"] if config.stability.picoseconds > 0 else []
        fits = [attempt_name(known.recipe, stage, 1) for stage in range(1, len(known.recipe.stages) + 1)]
        certain = ["pace_select", "frames", *fits, "pace_activeset", "pace_corerep"]
        for name in [*certain, *gate, "evaluate"]:  # the task runs that there will be in any case, if no stage fails
            if name not in look.lines:
                look.note(name, UNKNOWN)
        recipe, expected = known.recipe, _expected(known.recipe, known.ingested.pool)
        basis, first = basis_lines(recipe, expected[1]), first_plan(recipe.stages[0])
        found = {"config": known.config, "recipe": recipe, "first_attempt": first}
        values = {name: value.model_dump(mode="json") for name, value in found.items()}
        texts = {
            "plan.json": json.dumps({**values, "steps": [*look.lines.values(), *basis]}, indent=1),
            "input.yaml": pacemaker_input(fit_steps.train_params(recipe, first), *expected, "fresh").text(),
        }
    for name, request in look.requests.items():
        texts[f"requests/{name.replace(' ', '_')}.json"] = request.model_dump_json(indent=1)
    folder = workspace.run_folder(config.name) / "dry-run"
    try:
        (folder / "requests").mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("requests/*.json"), folder / "plan.json", folder / "input.yaml"):
            old.unlink(missing_ok=True)  # of an earlier plan that may have gone farther
        for name, text in texts.items():
            write_atomic(folder / name, text.encode())
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}. Move what is in the way.") from None
    return "\n".join([f"{config.name}: the plan, written to {folder}", *look.lines.values(), *basis, *config.notices])


def _expected(recipe: Recipe, pool: Artefact) -> tuple[int, int]:
    """Training structures and their atoms, as the pool's mean size suggests; the selection decides in the end."""
    selection, found = recipe.selection, pool.read(ingest.Metrics)
    pooled = found.structures
    structures = min(round(selection.fraction * pooled) if selection.fraction else selection.max_structures, pooled)
    structures = max(structures, 1)
    return structures, round(structures * found.atoms / pooled)
