"""Label a pool: cut structures that the label stores lack into shards, label them, and make the pool's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
"""Failures that may not come again: the structures that the shard left are labelled in another round."""


def label(
    recipe: Recipe, pool: Artefact, teachers: Sequence[TeacherCall], run: Run, name: str = "pool_labels"
) -> Artefact:
    """Return the labels of the pool's structures, in its order; `run` keeps them, with time and counts.

    Args:
        name: of the task run that makes the table.

    Raises:
        StepFailed: a shard failed in a way that another try does not repair. The labels of other shards are in the
            store.
        StoreError: the work root cannot hold the shards or their labels (a full disk, permissions).
    """
    workspace, work = run.workspace, LabellingTotals()
    keys = [teacher.key(workspace) for teacher in teachers]
    call, table = steps.pool_labels_call(recipe, pool, keys), pool.file("structures")
    if run.note:
        if not is_made(table):
            raise Missing
        ids = StructurePool(workspace.store.path(table)).ids
        for number, teacher in enumerate(teachers, 1):
            missing = int(teacher.store(workspace).missing(ids).sum())
            state = "would run" if missing else "cached"
            task = f"mace_label {number}" if number > 1 else "mace_label"
            text = f"{state:<15} ({missing} of {len(ids)} structures are not labelled yet)"
            run.note(task + name.removeprefix("pool_labels"), text)
        with _sources_of(call, teachers, workspace) as whole:
            return run(whole, name)
    if look_up(call, workspace):
        run.labels.append(run(call, name))
        return run.labels[-1]
    ensure_gpu_limit(workspace.settings, workspace.settings.teacher_device)
    with work.timed(), disk_faults_told("labelling", workspace):
        structures = StructurePool(workspace.store.path(table))
        with ExitStack() as stack:
            runner = cache(lambda: stack.enter_context(started(workspace.settings)))  # a cluster only where needed
            for teacher in teachers:
                _label_missing(teacher, structures, workspace, runner, work)
        call = steps.pool_labels_call(recipe, pool, keys, work.set_aside)
        with _sources_of(call, teachers, workspace) as whole:
            run.labels.append(run(whole, name))
    run.work.include(work)
    return run.labels[-1]


def label_or_refusal(
    recipe: Recipe, pool: Artefact, teachers: Sequence[TeacherCall], run: Run, name: str
) -> tuple[Artefact | None, str | None]:
    """Return the labels as `label` does; None and the reason where no label keeps the bounds."""
    try:
        return label(recipe, pool, teachers, run, name), None
    except StepFailed as failure:
        if failure.kind != "BadInput":  # what `pool_labels` raises when no label keeps the bounds
            raise
        return None, failure.message


@contextmanager
def _sources_of(call: StepCall, teachers: Sequence[TeacherCall], workspace: Workspace) -> Iterator[StepCall]:
    """Yield the call with the files of the teachers' label stores, which stay until the block is left."""
    with ExitStack() as stack:
        files = [file for teacher in teachers for file in stack.enter_context(teacher.store(workspace).reading())]
        yield call.model_copy(update={"sources": {"labels": tuple(files)}})


def _label_missing(
    teacher: TeacherCall,
    pool: StructurePool,
    workspace: Workspace,
    runner: Callable[[], TaskRunner[Any]],
    work: LabellingTotals,
) -> None:
    """Label in rounds, until a teacher's store has a row for all structures that this machine can take.

    A structure that another run labels is waited for. An accident of a shard costs another round; it is raised after
    the second round in a row that labelled nothing.
    """
    store, settings = teacher.store(workspace), workspace.settings
    left: Places = np.arange(len(pool))
    first, fruitless, measured = True, 0, None
    while True:
        with store.claim(pool.ids.take(left)) as claim:
            mine = left[claim.mine]
            if len(mine):
                known = store.calibration(speed_known_of(settings)) or measured
                shards = _shards(pool, mine, teacher.cutoff_A, known, first, settings.shard_s, claim.folder)
                results = _label_shards(shards, teacher, workspace, runner())
        if not len(mine):
            if not claim.elsewhere:
                return
            run_log().info("waiting for another run that labels %d of these structures", claim.elsewhere)
            store.wait(pool.ids.take(left), WAIT_S)
            continue
        done = [result for result in results if isinstance(result, ShardDone)]
        for shard in done:
            work.add(shard)
        if timed := [shard for shard in done if shard.calibration]:
            speeds = [shard.calibration for shard in timed if shard.calibration]
            measured = sorted(speeds, key=lambda one: one.edges_per_s)[len(speeds) // 2]
            edges = sum(mace_label.Metrics.of(shard.metrics).edges for shard in timed)
            if (settings.dask_address or settings.dask_cluster) and edges >= SOLID_EDGES:
                # each shard keeps the speed of its machine; that of the cluster is that of a typical shard
                store.keep_calibration(speed_known_of(settings), measured)
        set_aside = pa.array([bytes.fromhex(identity) for identity in work.set_aside], pa.binary(32))
        left = left[~pc.is_in(pool.ids.take(left), set_aside).to_numpy(zero_copy_only=False)]
        first, fruitless = False, 0 if done else fruitless + 1
        for failure in results:
            if isinstance(failure, BaseException):
                if fruitless > 1 or not _is_accident(failure):
                    raise failure
                message = str(failure).splitlines()[0]
                run_log().warning("a shard ended early (%s); the rest of it is labelled again", message)
        store.compact()


def _label_shards(
    shards: Sequence[ShardFile], teacher: TeacherCall, workspace: Workspace, runner: TaskRunner[Any]
) -> list[ShardDone | BaseException]:
    with LabelProgress(shards) as progress:
        return run_shards(
            runner,
            label_shard,
            [{"shard": shard, "teacher": teacher, "workspace": workspace} for shard in shards],
            [f"label shard {number + 1} of {len(shards)}" for number in range(len(shards))],
            tick=progress.tick,
            fatal=lambda error: not _is_accident(error),
            end=partial(end_running, workspace.run_id),
            finished=lambda place, result: progress.ended(shards[place], isinstance(result, ShardDone)),
        )


def _shards(
    pool: StructurePool,
    places: Places,
    cutoff_A: float,
    known: MachineSpeed | None,
    first: bool,
    shard_s: float,
    folder: Path,
) -> list[ShardFile]:
    """Write structures as shards; in the first round on a machine of unknown speed only some of them as one shard.

    Where that gave no speed (stubs, structures without neighbours), there are FEWEST_SHARDS.
    """
    atoms, count = pool.atoms[places], FEWEST_SHARDS
    if known is None and first:
        some = places[pilot(atoms)]
        return pool.write(some, [range(len(some))], folder)
    if known:
        some = places[evenly(range(len(places)), COUNTED)]
        edges_per_atom = pool.edges(some, cutoff_A).sum() / max(pool.atoms[some].sum(), 1)
        count = shard_count(atoms.sum() * edges_per_atom / known.edges_per_s, shard_s)
    costs = pool.edges(places, cutoff_A) if count > 1 else atoms
    return pool.write(places, cut(costs, count), folder)


def _is_accident(error: BaseException) -> bool:
    return isinstance(error, StepFailed) and error.kind in ACCIDENTS


PILOT_ATOMS = 8_000
"""Atoms of the first shard on an unknown machine: some seconds of work, enough to find its speed and batches."""
FEWEST_SHARDS = 8
COUNTED = 200
"""Structures whose edges are counted to estimate those of all."""
SHORTEST = 1 / 3
"""The least part of the wanted seconds that a shard may take so that there are FEWEST_SHARDS."""


def shard_count(seconds: float, wanted_s: float) -> int:
    """Return the number of shards for so many seconds of work on one device.

    Each takes about `wanted_s`; where the work allows there are at least FEWEST_SHARDS, none shorter than a third of
    that (20 s of 60): a shard costs a start of the step.
    """
    enough = int(seconds / (wanted_s * SHORTEST))
    return max(round(seconds / wanted_s), min(FEWEST_SHARDS, enough), 1)


def cut(costs: NDArray[np.int64], shards: int) -> list[range]:
    """Cut structures into so many shards of equal cost, as far as whole structures allow; none is empty.

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
    """Return the places of the structures to begin with on a machine of unknown speed: evenly over the pool.

    All of them when they are no more than two pilots.
    """
    share = PILOT_ATOMS / max(int(atoms.sum()), 1)
    if share >= 1 / 2:
        return np.arange(len(atoms))
    return np.array(evenly(range(len(atoms)), max(round(len(atoms) * share), 1)))
