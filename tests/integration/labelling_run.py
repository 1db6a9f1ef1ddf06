"""The labelling alone, as a flow: ingest, teachers, label stores, the pool's table.

::

    PYTHONPATH=. python tests/integration/labelling_run.py POOL ROOT [--model FILE] [--head NAME] [--config JSON]

prints one line of JSON at the end. Under the stub runner the pool is read all the same, and only labels are made up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows import calls
from flows.config import DistillConfig
from flows.distill import elements_in, read_teacher
from flows.label import label
from flows.recipe import check_committee, resolve
from tasks.artefact import external
from tasks.errors import DistillError
from tasks.machine import ready
from tasks.prefect_run import command_line_run
from tasks.settings import Settings
from tasks.steps import step
from tasks.workspace import Workspace, open_workspace

MODEL = Path(__file__).parents[2] / "examples" / "silicon" / "teacher.model"


@flow(name="labelling", persist_result=False)
def labelling(config: DistillConfig, root: Path, head: str | None = None) -> dict[str, Any]:
    """Label the config's pool; what it took and where the results lie.

    Args:
        config: only pool, teacher and labels matter.
        root: gets store/.
        head: asked for whatever heads the teachers have (a stub teacher has one).
    """
    with ready(open_workspace(root, Settings(), run_id=flow_run.id)) as workspace:
        started = time.monotonic()
        pool = step(calls.ingest_call(tuple(external(path) for path in map(Path, config.pool.files))), _read(workspace))
        models = [external(Path(model)) for model in (config.teacher.model, *config.teacher.committee)]
        check_committee({str(model.path): model.sha256 for model in models})
        teachers = [read_teacher(step(calls.teacher_call(model), workspace), workspace) for model in models]
        recipe = resolve(config, teachers, elements_in(pool), set())
        recipe = recipe.model_copy(update={"head": head or recipe.head})
        asked = [calls.asked(recipe, model, teacher) for model, teacher in zip(models, teachers, strict=True)]
        prepared = time.monotonic()
        labels, work = label(recipe, pool, asked, workspace)
        ended = time.monotonic()
        return {
            "computed": work.computed,
            "set_aside": work.set_aside,
            "cached": labels.cached,
            "metrics": labels.metrics,
            "work": work.summary().model_dump(mode="json"),
            "seconds": ended - prepared,
            "seconds_before": prepared - started,
            "labels": str(workspace.store.path(labels.file("labels"))),
            "rejected": str(workspace.store.path(labels.file("rejected"))),
            "stores": [str(teacher.store(workspace).folder) for teacher in asked],
        }


def _read(workspace: Workspace) -> Workspace:
    """Where the pool is read: a stub of `ingest` would not look at it."""
    runner = "in_process" if workspace.settings.runner == "stub" else workspace.settings.runner
    return workspace.model_copy(update={"settings": workspace.settings.model_copy(update={"runner": runner})})


def labelled(
    pool: Path, root: Path, model: Path = MODEL, head: str | None = None, **config: dict[str, Any]
) -> dict[str, Any]:
    """What `labelling` gives for a pool file; `config` has more keys of DistillConfig, `teacher` with others."""
    teacher = {"model": str(model), **config.pop("teacher", {})}
    given = {"name": "labelling", "pool": {"files": [str(pool)]}, "teacher": teacher, **config}
    return labelling(DistillConfig.model_validate(given), root, head)


def main(arguments: list[str]) -> int:
    """The command; its exit code is the project's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--head")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON")
    given = parser.parse_args(arguments)
    try:
        with command_line_run():
            done = labelled(given.pool, given.root, given.model, given.head, **given.config)
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
