"""What the flow adds to labelling: wall time of the label phase against the seconds of its steps. One line a figure.

python benchmarks/flow_cost.py [--pool benchmarks/data/silicon/pool.extxyz] [--repeats 3]     exit 1 when it is too much

A phase begins with the look-up and ends when the pool's table is stored, with the real teacher and an empty label
store; ingest, teacher_info and the start of Prefect's server are before it. What a step takes is told twice: as its
report has it, and as the process that runs it lives, that is with the start of the interpreter.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_HOME, temporary_settings

from containers.contract import Report
from flows.config.schema import DistillConfig
from flows.data import steps as calls
from flows.data.labelling import label
from flows.data.prepare import read_teacher
from flows.data.recipe import Recipe, resolve
from flows.run import Run
from tasks.artefact import Artefact, external
from tasks.labelling.shard_task import TeacherCall
from tasks.prefect_logging import command_line_run
from tasks.prefect_tasks import step
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

REPOSITORY = Path(__file__).parents[1]
SHARE = 0.05
TIMED = """#!/bin/bash
began=$EPOCHREALTIME
{python} "$@"
code=$?
echo "$began $EPOCHREALTIME" > {times}/$$.seconds
cp "${{@: -1}}/report.json" {times}/$$.json
exit $code
"""


class Phase(NamedTuple):
    """Seconds of one label phase: all of it, its label steps by report and by process, and the pool's table."""

    wall: float
    reports: float
    processes: float
    table: float
    steps: int

    @property
    def share(self) -> float:
        """The flow's own over the label steps' seconds."""
        return (self.wall - self.reports) / self.reports

    @property
    def share_of_processes(self) -> float:
        """The same when the start of an interpreter counts as the step's."""
        return (self.wall - self.processes) / self.processes

    def told(self) -> str:
        """The split."""
        rest = self.wall - self.processes - self.table
        return (
            f"{self.wall:.2f} s = {self.steps} label steps {self.reports:.2f} s + their interpreters'"
            f" {self.processes - self.reports:.2f} s + pool_labels {self.table:.2f} s + the rest {rest:.2f} s"
        )


class Bench:
    """A work root whose steps of the mace image leave their times in `times`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.times = folder, folder / "times"
        self.times.mkdir()
        self.python = folder / "timed-python"
        self.python.write_text(TIMED.format(python=sys.executable, times=self.times))
        self.python.chmod(0o755)

    def settings(self) -> Settings:
        """This machine's, with the interpreter that takes the time."""
        return Settings(runner="subprocess", mace_python=self.python)

    def phase(self, recipe: Recipe, pool: Artefact, asked: TeacherCall, workspace: Workspace) -> Phase:
        """Label the pool with an empty label store."""
        for name in ("labels", "pool_labels"):
            shutil.rmtree(workspace.store.root / name, ignore_errors=True)
        for path in self.times.iterdir():
            path.unlink()
        started = time.monotonic()
        run = Run(workspace)
        table = label(recipe, pool, [asked], run)
        wall = time.monotonic() - started
        assert run.work.computed == pool.metrics["structures"]
        reports = {path: Report.model_validate_json(path.read_bytes()) for path in self.times.glob("*.json")}
        steps = {path: report.seconds for path, report in reports.items() if report.step == "mace_label"}
        return Phase(wall, sum(steps.values()), sum(map(_lifetime, steps)), table.seconds, len(steps))


def _lifetime(report: Path) -> float:
    began, ended = map(float, report.with_suffix(".seconds").read_text().split())
    return ended - began


@flow(persist_result=False)
def phases(bench: Bench, pool: Path, model: Path, repeats: int) -> list[Phase]:
    """What comes before the labelling once, then the labelling `repeats` times."""
    teacher = {"model": str(model)}
    config = DistillConfig.model_validate({"name": "cost", "teacher": teacher, "pool": {"files": [str(pool)]}})
    workspace = open_workspace(bench.folder / "root", bench.settings(), run_id=flow_run.id)
    structures = step(calls.ingest_call(config, (external(pool),)), workspace)
    known = read_teacher(step(calls.teacher_info_call(external(model)), workspace), workspace)
    recipe = resolve(config, [known], set(structures.metrics["elements"]), set())
    asked = calls.label_call(recipe, external(model), known)
    print(f"flow cost: {structures.metrics['structures']} structures, {workspace.settings.cores} cores", flush=True)
    found = []
    for _ in range(repeats):
        found.append(bench.phase(recipe, structures, asked, workspace))
        print(f"  {found[-1].told()}; load {os.getloadavg()[0]:.1f}", flush=True)
    return found


def told(found: Sequence[Phase]) -> bool:
    """Print the medians; whether the flow's own cost is small enough."""
    share = statistics.median(phase.share for phase in found)
    processes = statistics.median(phase.share_of_processes for phase in found)
    verdict = f"wanted at most {SHARE:.0%}: {'met' if share <= SHARE else 'MISSED'}"
    print(f"flow cost over the label steps' seconds, by their reports: {share:.1%}, {verdict}")
    print(f"flow cost over the label steps' seconds, by their processes: {processes:.1%}")
    return share <= SHARE


def main() -> int:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    data = REPOSITORY / "benchmarks" / "data" / "silicon"
    parser.add_argument("--pool", type=Path, default=data / "pool.extxyz")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "examples" / "silicon" / "teacher.model")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not options.pool.is_file():
        print(f"no pool at {options.pool}: python benchmarks/data/make_pools.py, or give --pool", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as folder,
        temporary_settings({PREFECT_HOME: Path(folder) / "prefect"}),
        command_line_run(),
    ):
        return 0 if told(phases(Bench(Path(folder)), options.pool, options.model, options.repeats)) else 1


if __name__ == "__main__":
    sys.exit(main())
