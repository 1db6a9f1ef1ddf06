"""Label a pool: what the label stores lack is cut into shards and labelled; then the pool's own table is made.

How the structures without a label are cut into shards: pure decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect.task_runners import TaskRunner

from containers.mace.labelling import mace_label
from containers.mace.labelling.batches import evenly
from flows.data import steps
from flows.data.recipe import Recipe
from flows.run import Missing, Run, is_made
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed
from tasks.label_store.store import MachineSpeed
from tasks.labelling.gpu_limit import ensure_gpu_limit
from tasks.labelling.shard_task import SOLID_EDGES, ShardDone, TeacherCall, label_shard, speed_known_of
from tasks.labelling.shards import Places, ShardFile, StructurePool
from tasks.labelling.statistics import LabellingTotals
from tasks.labelling.task_runner import run_shards, started
from tasks.prefect_logging import run_log
from tasks.progress.labelling import LabelProgress
from tasks.run_step import disk_faults_told, look_up
from tasks.runners.cancellation import end_running
from tasks.workspace import Workspace

WAIT_S = 30.0
ACCIDENTS = ("Killed", "Died", "OutOfMemory")
"""Failures of a step that may not come again: what its shard left is labelled in another round."""


def label(
    recipe: Recipe, pool: Artefact, teachers: Sequence[TeacherCall], run: Run, name: str = "pool_labels"
) -> Artefact:
    """Return the labels of the pool's structures, in its order; `run` keeps them and what they took.

    Args:
        name: of the task run that makes the table.

    Raises:
        StepFailed: a shard failed in a way that another try does not mend. What other shards gave is in the store.
        StoreError: the work root cannot hold the shards or their labels (a full disk, permissions).
    """
    workspace, work = run.workspace, LabellingTotals()
    keys = [teacher.key(workspace) for teacher in teachers]
    call = steps.pool_labels_call(recipe, pool, keys)
    if run.note:
        _note_missing(pool, teachers, run, name.removeprefix("pool_labels"))
        with ExitStack() as stack:
            return run(with_sources(call, teachers, workspace, stack), name)
    if look_up(call, workspace):
        run.labels.append(run(call, name))
        return run.labels[-1]
    ensure_gpu_limit(workspace.settings, workspace.settings.teacher_device)
    with work.timed(), disk_faults_told("labelling", workspace):
        structures = StructurePool(workspace.store.path(pool.file("structures")))
        with ExitStack() as stack:
            runner = cache(lambda: stack.enter_context(started(workspace.settings)))  # a cluster only where needed
            for teacher in teachers:
                _Labelling(teacher, structures, workspace, runner, work).complete()
        call = steps.pool_labels_call(recipe, pool, keys, work.set_aside)
        with ExitStack() as stack:
            run.labels.append(run(with_sources(call, teachers, workspace, stack), name))
    run.work.include(work)
    return run.labels[-1]


def _note_missing(pool: Artefact, teachers: Sequence[TeacherCall], run: Run, of: str) -> None:
    """Tell how many labels each teacher's store lacks."""
    if not is_made(table := pool.file("structures")) or run.note is None:
        raise Missing
    structures = StructurePool(run.workspace.store.path(table))
    for number, teacher in enumerate(teachers, 1):
        missing = int(teacher.store(run.workspace).missing(structures.ids).sum())
        state = "would run" if missing else "cached"
        told = f"{state:<15} ({missing} of {len(structures)} structures are not labelled yet)"
        run.note(f"mace_label {number}{of}" if number > 1 else f"mace_label{of}", told)


def with_sources(call: StepCall, teachers: Sequence[TeacherCall], workspace: Workspace, stack: ExitStack) -> StepCall:
    """The call with the files of the teachers' label stores, which stay until `stack` is left."""
    files = [file for teacher in teachers for file in stack.enter_context(teacher.store(workspace).reading())]
    return call.model_copy(update={"sources": {"labels": tuple(files)}})


class _Labelling:
    """Rounds of labelling, until a teacher's store has an answer to all structures that this machine can take."""

    def __init__(
        self,
        teacher: TeacherCall,
        pool: StructurePool,
        workspace: Workspace,
        runner: Callable[[], TaskRunner[Any]],
        work: LabellingTotals,
    ) -> None:
        self.teacher, self.pool, self.workspace, self.runner, self.work = teacher, pool, workspace, runner, work
        self.store = teacher.store(workspace)
        self.left: Places = np.arange(len(pool))
        self.rounds = self.fruitless = 0
        self.measured: MachineSpeed | None = None  # by this run

    def complete(self) -> None:
        """Return when nothing is left to label, here or by another run."""
        while True:
            with self.store.claim(self.pool.ids.take(self.left)) as claim:
                mine = self.left[claim.mine]
                if len(mine):
                    self._label(self._shards(mine, claim.folder))
            if len(mine):
                self.store.compact()
            elif claim.elsewhere:
                run_log().info("waiting for another run that labels %d of these structures", claim.elsewhere)
                self.store.wait(self.pool.ids.take(self.left), WAIT_S)
            else:
                return

    def _shards(self, places: Places, folder: Path) -> list[ShardFile]:
        """The structures as shards; on a machine of unknown speed only the first one."""
        known = self.store.calibration(speed_known_of(self.workspace.settings)) or self.measured
        atoms = self.pool.atoms[places]
        self.rounds += 1
        if known is None and self.rounds == 1:
            first = places[pilot(atoms)]
            return self.pool.write(first, [range(len(first))], folder)
        count = self._count(known, places)
        costs = self.pool.edges(places, self.teacher.cutoff_A) if count > 1 else atoms
        return self.pool.write(places, cut(costs, count), folder)

    def _count(self, known: MachineSpeed | None, places: Places) -> int:
        """How many shards, from the edges of some structures."""
        if known is None:  # stubs, and structures without neighbours
            return FEWEST_SHARDS
        some = places[evenly(range(len(places)), COUNTED)]
        per_atom = self.pool.edges(some, self.teacher.cutoff_A).sum() / max(self.pool.atoms[some].sum(), 1)
        seconds = self.pool.atoms[places].sum() * per_atom / known.edges_per_s
        return shard_count(seconds, self.workspace.settings.shard_s)

    def _label(self, shards: Sequence[ShardFile]) -> None:
        with LabelProgress(shards) as progress:
            results = run_shards(
                self.runner(),
                label_shard,
                [{"shard": shard, "asked": self.teacher, "workspace": self.workspace} for shard in shards],
                [f"label shard {number + 1} of {len(shards)}" for number in range(len(shards))],
                tick=progress.tick,
                fatal=lambda error: not _is_accident(error),
                end=partial(end_running, self.workspace.run_id),
                finished=lambda place, result: progress.ended(shards[place], isinstance(result, ShardDone)),
            )
            done = [result for result in results if isinstance(result, ShardDone)]
            self._account(done)
            self.fruitless = 0 if done else self.fruitless + 1
            self._judge([result for result in results if isinstance(result, BaseException)])

    def _judge(self, failures: Sequence[BaseException]) -> None:
        """Raise a failure that another round does not mend, tell the others."""
        for failure in failures:
            if self.fruitless > 1 or not _is_accident(failure):
                raise failure
            run_log().warning("a shard ended early (%s); what it left is labelled again", str(failure).splitlines()[0])

    def _account(self, done: Sequence[ShardDone]) -> None:
        for shard in done:
            self.work.add(shard)
        if measured := [shard.calibration for shard in done if shard.calibration]:
            self.measured = sorted(measured, key=lambda one: one.edges_per_s)[len(measured) // 2]
            self._keep_speed_of_cluster(
                self.measured, sum(mace_label.Metrics.of(shard.metrics).edges for shard in done if shard.calibration)
            )
        set_aside = pa.array([bytes.fromhex(identity) for identity in self.work.set_aside], pa.binary(32))
        self.left = self.left[~pc.is_in(self.pool.ids.take(self.left), set_aside).to_numpy(zero_copy_only=False)]

    def _keep_speed_of_cluster(self, typical: MachineSpeed, edges: int) -> None:
        """A shard keeps the speed of the machine that labelled it; a cluster's is that of a typical shard."""
        settings = self.workspace.settings
        if (settings.dask_address or settings.dask_cluster) and edges >= SOLID_EDGES:
            self.store.keep_calibration(speed_known_of(settings), typical)


def _is_accident(error: BaseException) -> bool:
    return isinstance(error, StepFailed) and error.kind in ACCIDENTS


PILOT_ATOMS = 8_000
"""Atoms of the first shard on an unknown machine: some seconds of work, enough to find its speed and batches."""
FEWEST_SHARDS = 8
COUNTED = 200
"""Structures whose edges tell how many all have."""
SHORTEST = 1 / 3
"""The least part of the wanted seconds that a shard may take so that there are FEWEST_SHARDS."""


def shard_count(seconds: float, wanted_s: float) -> int:
    """Shards for so many seconds of work on one device.

    Each takes about `wanted_s`; where the work allows there are at least FEWEST_SHARDS, none shorter than a third of
    that (20 s of 60): a shard costs a start of the step.
    """
    enough = int(seconds / (wanted_s * SHORTEST))
    return max(round(seconds / wanted_s), min(FEWEST_SHARDS, enough), 1)


def cut(costs: NDArray[np.int64], shards: int) -> list[range]:
    """Consecutive structures in so many shards of equal cost, as far as whole structures allow; none is empty.

    Args:
        costs: of each structure, edges. One without edges counts as one.
    """
    done = np.cumsum(np.maximum(costs, 1))
    if not len(done):
        return []
    ends = np.searchsorted(done, done[-1] * np.arange(1, shards + 1) / shards - 0.5) + 1
    borders = np.unique(np.minimum([0, *ends], len(done)))
    return [range(start, stop) for start, stop in pairwise(borders)]


def pilot(atoms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the structures to begin with on a machine whose speed is not known: evenly over the pool.

    All of them when they are no more than two pilots.
    """
    share = PILOT_ATOMS / max(int(atoms.sum()), 1)
    if share >= 1 / 2:
        return np.arange(len(atoms))
    return np.array(evenly(range(len(atoms)), max(round(len(atoms) * share), 1)))
