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
from tasks.label_store.store import LabelStore, MachineSpeed, TeacherKey
from tasks.labelling.gpu_limit import gpu_slot
from tasks.labelling.shards import ShardFile, write_progress
from tasks.prefect_logging import run_log
from tasks.run_step import run_unstored
from tasks.settings import Settings
from tasks.workspace import Workspace

SOLID_EDGES, SOLID_S = 100_000, 3.0
"""A shard of so much work shows the machine's speed; a shorter one is mostly its start."""


class TeacherCall(Closed):
    """One teacher, and how it labels."""

    model: FileRef
    params: mace_label.Params
    cutoff_A: float

    def key(self, workspace: Workspace) -> TeacherKey:
        """The key of its labels in the store."""
        return TeacherKey(
            model=self.model.sha256,
            head=self.params.head,
            dtype=self.params.dtype,
            version=mace_label.LABEL_VERSIONS[self.params.dtype],
            stub=workspace.settings.runner == "stub",
        )

    def store(self, workspace: Workspace) -> LabelStore:
        """The store of its labels."""
        return LabelStore(workspace.store.root / "labels", self.key(workspace), workspace.verify)


class ShardDone(Closed):
    """Result of one shard; its labels are in the store."""

    labelled: int = 0
    set_aside: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    calibration: MachineSpeed | None = None


@task(name="label", cache_policy=NO_CACHE, persist_result=False)
def label_shard(shard: ShardFile, teacher: TeacherCall, workspace: Workspace) -> ShardDone:
    """Label the structures of a shard and commit their labels. One that was committed before is not labelled again."""
    if "cores" not in workspace.settings.model_fields_set:  # this machine may have other cores than the flow's
        settings = workspace.settings.model_copy(update={"cores": Settings().cores})
        workspace = workspace.model_copy(update={"settings": settings})
    try:
        # without its file, who labelled it died between the commit and its answer
        return _label(shard, teacher, workspace) if shard.file.exists() else ShardDone()
    except (DistillError, FileNotFoundError) as error:
        if shard.file.exists():
            raise
        run_log().info("the shard was committed by another attempt: %s", str(error).splitlines()[0])
        return ShardDone()


def _label(shard: ShardFile, teacher: TeacherCall, workspace: Workspace) -> ShardDone:
    store, machine = teacher.store(workspace), machine_name(workspace.settings)
    call = shard_call(shard, teacher, workspace.settings, store.calibration(machine))
    with (
        gpu_slot(workspace.settings, call.resources.device),
        _input_kept(shard),
        run_unstored(call, workspace, write_progress(shard.progress)) as (report, folder),
    ):
        given = pq.read_table(shard.file, columns=["id", "numbers"])
        ids, atoms = binary_ids(given["id"]), given["numbers"].combine_chunks().value_lengths().to_numpy()
        set_aside = checked_reasons(folder / "outputs" / mace_label.OUTPUTS["set_aside"], ids)
        labelled = store.commit(folder / "outputs" / mace_label.OUTPUTS["labels"], ids, atoms, set_aside)
        shard.file.unlink(missing_ok=True)
    metrics, calibration, known = mace_label.Metrics.of(report.metrics), None, store.calibration(machine)
    if metrics.edges and metrics.edges_per_s:  # something was computed
        calibration = MachineSpeed(
            edges_per_batch=metrics.edges_per_batch,
            edges_per_s=metrics.edges_per_s,
            throughput=metrics.calibration or (known.throughput if known else {}),
        )
        if metrics.edges >= SOLID_EDGES or metrics.edges / metrics.edges_per_s >= SOLID_S:
            store.keep_calibration(machine, calibration)
    return ShardDone(labelled=labelled, set_aside=set_aside, metrics=report.metrics, calibration=calibration)


def shard_call(shard: ShardFile, teacher: TeacherCall, settings: Settings, known: MachineSpeed | None) -> StepCall:
    """The step for a shard, with the batches that were found best on this machine, if any were."""
    bound = settings.edges_per_batch or (known.edges_per_batch if known and known.throughput else None)
    resources = Resources(
        threads=settings.cores,
        device=settings.teacher_device,
        edges_per_batch=bound,
        acceleration=settings.acceleration,
    )
    file = External(path=shard.file, sha256=shard.sha256)
    return call("mace_label", teacher.params, resources, structures=file, model=teacher.model)


def speed_known_of(settings: Settings) -> str:
    """Name of the machine whose speed decides how large shards are: a cluster, or this one."""
    return settings.dask_address or settings.dask_cluster or machine_name(settings)


def machine_name(settings: Settings) -> str:
    """Machines of the same name label at the same speed."""
    if settings.teacher_device == "cuda":
        processor, words = "cuda", ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        with suppress(OSError, subprocess.CalledProcessError):  # it is missing, or fails
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            processor = " + ".join(done.stdout.splitlines()) or processor
    else:
        cpus = Path("/proc/cpuinfo")
        lines = cpus.read_text().splitlines() if cpus.is_file() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else platform.processor() or platform.machine()
        processor = f"{name}, {settings.cores} processes"
    return f"{processor}, acceleration {settings.acceleration}"


@contextmanager
def _input_kept(shard: ShardFile) -> Iterator[None]:
    """A failed step's folder gets the shard's structures, which are otherwise gone when its run ends."""
    try:
        yield
    except StepFailed as failed:
        with suppress(OSError):  # a full disk, or no links here: that must not hide what failed
            kept, path = failed.folder / "structures.parquet", failed.folder / "request.json"
            os.link(shard.file, kept)
            request = Request.model_validate_json(path.read_bytes())
            inputs = {**request.inputs, "structures": (InputFile(path=kept, sha256=shard.sha256),)}
            write_atomic(path, request.model_copy(update={"inputs": inputs}).model_dump_json(indent=1).encode())
        raise
