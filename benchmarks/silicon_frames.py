"""pacemaker's frames of the silicon pool for the benchmarks of the fit, made by the steps themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from ase import Atoms
from ase.io import iread

from containers.contract import Closed, Resources
from containers.ingest import ingest
from containers.labels import pool_labels
from containers.mace.labelling import mace_label
from containers.mace.teacher import teacher_info
from containers.mace.teacher.description import Teacher, choose_head
from containers.structures.table import structure_id, structures_table
from containers.tensorpot.baseline import baseline
from containers.tensorpot.dataset import dataset
from containers.tensorpot.frames import frames as frame_sets
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection import pace_select
from tasks.artefact import Artefact, FileRef, StepCall, external
from tasks.labelling.shards import StructurePool
from tasks.run_step import run_step
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from tasks.labelling.shard_task import TeacherCall

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "benchmarks" / "data" / "silicon"


@dataclass(frozen=True)
class Labelled:
    """Labelled structures with their sides."""

    place: Workspace
    threads: int
    dataset: FileRef
    baseline: FileRef

    def run(self, step: str, params: Closed, **inputs: FileRef) -> Artefact:
        """The result of a step."""
        return run_step(_call(step, params, self.threads, **inputs), self.place)

    def selection(self, potential: Potential, method: str, structures: int) -> Artefact:
        """Training structures."""
        params = {"potential": potential, "method": method, "max_structures": structures, "grades": False}
        chosen = pace_select.Params.model_validate(params)
        return self.run("pace_select", chosen, dataset=self.dataset, baseline=self.baseline)

    def frames(self, potential: Potential, selection: Artefact) -> Artefact:
        """The frames of the three sides."""
        params = frame_sets.Params(elements=potential.elements, cutoff=potential.cutoff)
        data = {"dataset": self.dataset, "baseline": self.baseline, "selection": selection.file("selection")}
        return self.run("frames", params, **data)


def pool(data: Path, wanted: Callable[[Atoms], bool] = lambda atoms: True) -> list[Atoms]:
    """The wanted structures of the silicon pool by their ids."""
    structures = []
    for row, atoms in enumerate(iread(data / "pool.extxyz")):
        if wanted(atoms):
            kept = {key: str(atoms.info[key]) for key in ("group", "family")}
            atoms.info = {"id": structure_id(atoms), "source": "pool.extxyz", "row": row, **kept}
            structures.append(atoms)
    return sorted(structures, key=lambda atoms: str(atoms.info["id"]))


def labelled(place: Workspace, data: Path, structures: Sequence[Atoms], cutoff: float, threads: int) -> Labelled:
    """The structures with the teacher's labels (float64), split as the flow splits them."""
    from tasks.labelling.shard_task import TeacherCall  # brings Prefect, and --help can do without

    pq.write_table(structures_table(structures), place.root / "pool.parquet")
    pooled, model = external(place.root / "pool.parquet"), external(data / "teacher.model")
    info = run_step(_call("teacher_info", teacher_info.Params(), threads, model=model), place)
    teacher = Teacher.read(place.store.path(info.file("teacher")))
    head = choose_head(teacher, None)
    e0s = {"Si": teacher.e0s_eV[head]["Si"]}
    ingested = run_step(_call("ingest", ingest.Params(file_names=("pool.parquet",)), threads, files=pooled), place)
    asked = TeacherCall(model=model, params=mace_label.Params(head=head, dtype="float64"), cutoff_A=teacher.r_max_A)
    labels = _labels(place, asked, ingested.file("structures"), e0s, threads).file("labels")
    taken = baseline.Params(elements=("Si",), cutoff=cutoff, teacher_e0s_eV=e0s)
    merged = dataset.Params(elements=("Si",), teachers=(asked.key(place).digest,))
    return Labelled(
        place,
        threads,
        run_step(_call("dataset", merged, threads, labels=labels), place).file("dataset"),
        run_step(_call("baseline", taken, threads, labels=labels), place).file("baseline"),
    )


def _labels(place: Workspace, asked: TeacherCall, table: FileRef, e0s: dict[str, float], threads: int) -> Artefact:
    structures, kept = StructurePool(place.store.path(table)), asked.store(place)
    rows = run_step(_call("mace_label", asked.params, threads, structures=table, model=asked.model), place)
    kept.commit(place.store.path(rows.file("labels")), structures.ids, structures.atoms)
    params = pool_labels.Params(teachers=(asked.key(place).digest,), e0s_eV=e0s)
    with kept.reading() as files:
        call = _call("pool_labels", params, threads, structures=table)
        return run_step(call.model_copy(update={"sources": {"labels": files}}), place)


def _call(step: str, params: Closed, threads: int, **inputs: FileRef) -> StepCall:
    files = {name: (file,) for name, file in inputs.items()}
    given = Resources(threads=threads)
    return StepCall(step=step, params=params.model_dump(mode="json"), inputs=files, resources=given)
