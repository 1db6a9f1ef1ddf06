"""Every step once, on tiny data, by the runner that DISTILL_RUNNER names: `python chain.py POOL MODEL ROOT`.

A process of its own: in process, the steps load torch and TensorFlow. Prints an artefact for each step, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from containers.contract import load_step, no_progress
from flows import calls
from flows.config import DistillConfig
from flows.plan import first_plan
from flows.recipe import Recipe, resolve
from tasks.artefact import Artefact, StepCall, external
from tasks.run import request_of, run_step, runner_of
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

ITERATIONS = 4
MODEL = "small"


def config(pool: str, model: str) -> DistillConfig:
    """The smallest distillation that a fit accepts."""
    return DistillConfig.model_validate(
        {
            "name": "tiny",
            "teacher": {"model": model},
            "pool": {"files": [pool]},
            "pacemaker": {"functions_per_element": 12, "b_basis": "small"},
            "selection": {"max_structures": 20},
            "train": {"maxiter": ITERATIONS, "threads": 1},
        }
    )


def chain(pool: Path, model: Path, workspace: Workspace) -> dict[str, Artefact]:
    """The way of the flow without its decisions: step -> result."""
    done: dict[str, Artefact] = {"teacher_fetch": fetched(workspace)}

    def run(call: StepCall) -> Artefact:
        return done.setdefault(call.step, run_step(call, workspace))

    teacher = external(model)
    structures = run(calls.ingest_call((external(pool),)))
    recipe = resolved(config(str(pool), str(model)), run(calls.teacher_call(teacher)), structures, workspace)
    labels = run(calls.label_call(recipe, structures, teacher, workspace.settings))
    data = run(calls.dataset_call(recipe, labels, run(calls.select_call(recipe, labels)), None, None))
    plan = first_plan(ITERATIONS, "auto", data.metrics["train_structures"], data.metrics["train_atoms"])
    potential = run(calls.train_call(recipe, plan, data, None, workspace.settings)).file("potential")
    active_set = run(calls.active_set_call(potential, data))
    run(calls.evaluate_call(recipe, potential, active_set, data, None))
    return done


def resolved(config: DistillConfig, teacher: Artefact, structures: Artefact, workspace: Workspace) -> Recipe:
    """The recipe for what the first two steps found."""
    from flows.distill import elements_in, read_teacher

    return resolve(config, read_teacher(teacher, workspace), elements_in(structures))


def fetched(workspace: Workspace) -> Artefact:
    """The step `teacher_fetch` in its stub: in earnest it downloads (see test_network.py)."""
    request = request_of(calls.fetch_call(MODEL), workspace).model_copy(update={"stub": True})
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
