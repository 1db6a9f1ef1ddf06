"""The labelling alone, as a flow: ingest, teachers, label stores, the pool's table.

::

    PYTHONPATH=. python tests/integration/labelling_run.py POOL ROOT [--model FILE] [--head NAME] [--config JSON]

prints one line of JSON at the end. Under the stub runner the pool is read all the same, and only labels are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from containers.contract import file_digest
from containers.labels.rows import read_ids
from containers.mace.labelling.mace_label import LABEL_VERSIONS
from flows.config.schema import DistillConfig
from flows.data import steps
from flows.data.labelling import label
from flows.data.prepare import read_teacher
from flows.data.recipe import check_committee, resolve
from flows.run import Run
from tasks.artefact import external
from tasks.errors import DistillError
from tasks.label_store.store import LabelStore, MachineSpeed, TeacherKey
from tasks.labelling.shard_task import machine_name
from tasks.labelling.shards import count_edges
from tasks.prefect_logging import command_line_run
from tasks.prefect_tasks import step
from tasks.runners.readiness import ready
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "examples" / "silicon" / "teacher.model"


@flow(name="labelling", persist_result=False)
def labelling(config: DistillConfig, root: Path, head: str | None = None) -> dict[str, Any]:
    """Label the config's pool; what it took and where the results lie.

    Args:
        config: only pool, teacher and labels matter.
        root: gets store/.
        head: asked for whatever heads the teachers have (a stub teacher has one).
    """
    with ready(open_workspace(root, Settings(), run_id=flow_run.id)) as workspace:
        pool = step(
            steps.ingest_call(config, tuple(external(path) for path in map(Path, config.pool.files))), _read(workspace)
        )
        models = [external(Path(model)) for model in (config.teacher.model, *config.teacher.committee)]
        check_committee({str(model.path): model.sha256 for model in models})
        teachers = [read_teacher(step(steps.teacher_info_call(model), workspace), workspace) for model in models]
        recipe = resolve(config, teachers, set(pool.metrics["elements"]), set())
        recipe = recipe.model_copy(update={"head": head or recipe.head})
        asked = [steps.label_call(recipe, model, teacher) for model, teacher in zip(models, teachers, strict=True)]
        run = Run(workspace)
        labels, work = label(recipe, pool, asked, run), run.work
        return {
            "computed": work.computed,
            "set_aside": work.set_aside,
            "cached": labels.cached,
            "metrics": labels.metrics,
            "work": work.summary().model_dump(mode="json"),
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


CUTOFF_A = 5.0  # of the teacher and of its stub


class Bench:
    """The label phase on pools of small cells, in this process or in one of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.log = folder, folder / "root", folder / "log"
        self.model = folder / "teacher.model"
        self.model.write_bytes(MODEL.read_bytes())

    def pool(self, numbers: Iterable[int], name: str = "pool.extxyz", atoms: int = 2) -> Path:
        """A file with one loosely packed cell of silicon for each number: equal numbers are equal structures."""
        side = np.arange(np.ceil(atoms ** (1 / 3)))
        grid = 2.6 * np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)[:atoms]
        rattled = [grid + np.random.default_rng(number).normal(0, 0.1, grid.shape) for number in numbers]
        cells = [Atoms(f"Si{atoms}", positions, cell=[2.6 * len(side)] * 3, pbc=True) for positions in rattled]
        ase.io.write(self.folder / name, cells)
        return self.folder / name

    def run(self, pool: Path, **options: Any) -> dict[str, Any]:
        """Label a pool in this process; see `labelled`."""
        return labelled(pool, self.root, **{"model": self.model, **options})

    def start(self, pool: Path, before: str = "", **environment: str) -> subprocess.Popen[str]:
        """Label a pool in a process of its own that runs the code `before` first."""
        script = self.folder / "child.py"
        script.write_text(f"import runpy\n{before}\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
        command = [sys.executable, str(script), str(pool), str(self.root), "--model", str(self.model)]
        server = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(REPOSITORY)}
        with self.log.open("a") as out:
            return subprocess.Popen(
                command, cwd=REPOSITORY, env={**os.environ, **server, **environment},
                stdout=subprocess.PIPE, stderr=out, text=True,
            )  # fmt: skip

    def store(self, model: Path | None = None) -> LabelStore:
        """The label store of the teacher under the settings of now."""
        stub = os.environ["DISTILL_RUNNER"] == "stub"
        digest = file_digest(model or self.model)
        key = TeacherKey(model=digest, head="Default", dtype="float32", version=LABEL_VERSIONS["float32"], stub=stub)
        return LabelStore(self.root / "store" / "labels", key)

    def expect(self, pool: Path, shards: int) -> None:
        """Let this machine seem so fast that `pool` makes so many shards (with DISTILL_SHARD_S=1)."""
        edges = float(count_edges(ase.io.read(pool, ":"), CUTOFF_A).sum())
        speed = MachineSpeed(edges_per_batch=2000, edges_per_s=edges / shards, throughput={"2000": 1})
        self.store().keep_calibration(machine_name(Settings()), speed)

    def rows(self, model: Path | None = None) -> Counter[bytes]:
        """How often each id is in the files of the teacher's label store; files are compared with their digests."""
        folder = self.store(model).folder
        files = [path for name in ("fresh", "buckets") for path in (folder / name).glob("*.arrow")]
        assert all(path.stem.rpartition("-")[2] == file_digest(path) for path in files)
        return Counter(words.tobytes() for path in files for chunk in read_ids(path) for words in chunk)


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
