"""One shard of the labelling: from its file, through the step `mace_label`, to rows in the label store."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from containers.contract import Closed, InputFile, Request, Resources, write_atomic
from containers.labels.rows import binary_ids
from containers.mace.labelling import mace_label
from tasks.artefact import External, FileRef, StepCall, call
from tasks.errors import DistillError, StepFailed
from tasks.label_store.checks import checked_reasons
from tasks.label_store.store import Calibration, LabelStore, TeacherKey
from tasks.labelling.gpu_limit import gpu_slot
from tasks.labelling.shards import Shard
from tasks.prefect_logging import run_log
from tasks.progress.labelling import told_in
from tasks.run_step import run_unstored
from tasks.settings import Settings
from tasks.workspace import Workspace

SOLID_EDGES, SOLID_S = 100_000, 3.0
"""From so much work on a shard tells the machine's speed; a shorter one is mostly its beginning."""


class Asked(Closed):
    """One teacher and how it is asked."""

    model: FileRef
    params: mace_label.Params
    cutoff_A: float

    def key(self, workspace: Workspace) -> TeacherKey:
        """What its labels are kept under."""
        return TeacherKey(
            model=self.model.sha256,
            head=self.params.head,
            dtype=self.params.dtype,
            version=mace_label.LABEL_VERSIONS[self.params.dtype],
            stub=workspace.settings.runner == "stub",
        )

    def store(self, workspace: Workspace) -> LabelStore:
        """Where its labels are kept."""
        return LabelStore(workspace.store.root / "labels", self.key(workspace), workspace.verify)


class ShardDone(Closed):
    """What became of a shard; its labels are in the store."""

    labelled: int = 0
    set_aside: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    calibration: Calibration | None = None


@task(name="label", cache_policy=NO_CACHE, persist_result=False)
def label_shard(shard: Shard, asked: Asked, workspace: Workspace) -> ShardDone:
    """Label the structures of a shard and commit their labels. One that was committed before is not labelled again."""
    try:
        return _labelled(shard, asked, _here(workspace))
    except (DistillError, FileNotFoundError) as error:
        if shard.file.exists():
            raise
        run_log().info("the shard was committed by another attempt: %s", str(error).splitlines()[0])
        return ShardDone()


def _labelled(shard: Shard, asked: Asked, workspace: Workspace) -> ShardDone:
    if not shard.file.exists():  # who labelled it died between the commit and its answer
        return ShardDone()
    store, machine = asked.store(workspace), machine_name(workspace.settings)
    call = shard_call(shard, asked, workspace.settings, store.calibration(machine))
    with (
        gpu_slot(workspace.settings, call.resources.device),
        _input_kept(shard),
        run_unstored(call, workspace, told_in(shard.progress)) as (report, folder),
    ):
        given = pq.read_table(shard.file, columns=["id", "numbers"])
        ids, atoms = binary_ids(given["id"]), given["numbers"].combine_chunks().value_lengths().to_numpy()
        set_aside = checked_reasons(folder / "outputs" / mace_label.OUTPUTS["set_aside"], ids)
        labelled = store.commit(folder / "outputs" / mace_label.OUTPUTS["labels"], ids, atoms, set_aside)
        shard.file.unlink(missing_ok=True)
    metrics = mace_label.Metrics.of(report.metrics)
    calibration = _measured(metrics, store.calibration(machine))
    if calibration and _is_solid(metrics):
        store.keep_calibration(machine, calibration)
    return ShardDone(labelled=labelled, set_aside=set_aside, metrics=report.metrics, calibration=calibration)


def _here(workspace: Workspace) -> Workspace:
    """The workspace on the machine that this task runs on: it may have other cores than the flow's."""
    if "cores" in workspace.settings.model_fields_set:
        return workspace
    settings = workspace.settings.model_copy(update={"cores": Settings().cores})
    return workspace.model_copy(update={"settings": settings})


def shard_call(shard: Shard, asked: Asked, settings: Settings, known: Calibration | None) -> StepCall:
    """The step for a shard, with the batches that were found best on this machine, if any were."""
    bound = settings.edges_per_batch or (known.edges_per_batch if known and known.throughput else None)
    resources = Resources(
        threads=settings.cores,
        device=settings.teacher_device,
        edges_per_batch=bound,
        acceleration=settings.acceleration,
    )
    file = External(path=shard.file, sha256=shard.sha256)
    return call("mace_label", asked.params, resources, structures=file, model=asked.model)


def speed_known_of(settings: Settings) -> str:
    """Whose speed decides how large shards are: a cluster's, or this machine's."""
    return settings.dask_address or settings.dask_cluster or machine_name(settings)


def machine_name(settings: Settings) -> str:
    """Machines of the same name label at the same speed."""
    if settings.teacher_device == "cuda":
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        processor = _told(words) or "cuda"
    else:
        processor = f"{_cpu()}, {settings.cores} processes"
    return f"{processor}, acceleration {settings.acceleration}"


def _told(words: list[str]) -> str:
    """What a program prints, in one line; nothing where it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else " + ".join(done.stdout.splitlines())


def _cpu() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _measured(metrics: mace_label.Metrics, known: Calibration | None) -> Calibration | None:
    """What the shard told of the machine's speed; None when it computed nothing."""
    if not metrics.edges or not metrics.edges_per_s:
        return None
    return Calibration(
        edges_per_batch=metrics.edges_per_batch,
        edges_per_s=metrics.edges_per_s,
        throughput=metrics.calibration or (known.throughput if known else {}),
    )


def _is_solid(metrics: mace_label.Metrics) -> bool:
    """Whether a shard was long enough to tell the machine's speed."""
    seconds = metrics.edges / metrics.edges_per_s
    return metrics.edges >= SOLID_EDGES or seconds >= SOLID_S


@contextmanager
def _input_kept(shard: Shard) -> Iterator[None]:
    """A failed step's folder gets the shard's structures, which are otherwise gone when its run ends."""
    try:
        yield
    except StepFailed as failed:
        with suppress(OSError):  # a full disk, or no links here: that must not hide what failed
            _keep_input(shard, failed.folder)
        raise


def _keep_input(shard: Shard, folder: Path) -> None:
    kept, request = folder / "structures.parquet", folder / "request.json"
    os.link(shard.file, kept)
    asked = Request.model_validate_json(request.read_bytes())
    inputs = {**asked.inputs, "structures": (InputFile(path=kept, sha256=shard.sha256),)}
    write_atomic(request, asked.model_copy(update={"inputs": inputs}).model_dump_json(indent=1).encode())
