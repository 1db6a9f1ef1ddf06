"""`choose_frames`: of the frames that explorations kept, the few that the teacher labels.

Frames that are there twice or that no simulation should reach are dropped. Of the others, the frame with the largest
extrapolation grade γ is chosen, and MaxVol swaps its atoms into the student's active set wherever they enlarge the
volume. The rest is graded against the enlarged set, and the next frame is chosen, until no frame is above
`gamma_select` or enough are chosen. A near copy of a chosen frame no longer extrapolates, so it is not chosen too.

Active set, MaxVol and γ: see `active_set.active_rows`. γ is the same as `results["gamma"]` of the student's calculator.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.data import covalent_radii
from pydantic import Field

from containers.arrays import Floats
from containers.contract import BadInput, Closed, Image, Inputs, Machine, StepMetrics
from containers.structures.table import STRUCTURES, atoms_from_table, read_structures, write_table
from containers.tensorpot.active_set.maxvol import maxvol_from
from containers.tensorpot.active_set.piece_sizes import sizes_for
from containers.tensorpot.selection.grades import INSIDE
from containers.tensorpot.student.calculator import neighbours, padded

if TYPE_CHECKING:
    from pyace import ACEBBasisSet

    from containers.tensorpot.active_set.projection_files import Projected

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {
    "frames": "frames that the explorations of a round kept (Parquet of STRUCTURES, one file or several)",
    "potential": "the student that explored (B-basis .yaml, with its core where it has one)",
    "asi": "its active set (.asi)",
}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES, by id; rows as they came
    "record": "choice.json",  # the metrics, "chosen" in the order of choice, "dropped" with the reason
}
TOO_NEAR = "a pair too near"
NOT_FINITE = "not finite"


class Params(Closed):
    """How many to choose, and what extrapolates."""

    structures: int = Field(ge=1, description="at most so many are chosen")
    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="Å; cutoff of the potential")
    projections: Literal["linear", "full"] = Field("linear", description="those of the active set, see pace_activeset")
    closest: float = Field(
        0.6,
        gt=0,
        description="share of the sum of two covalent radii; a frame with a nearer pair is dropped. Explorations end at"
        " 0.5, where nuclei fuse. The shortest bonds known are at 0.67 (U=O) and 0.77 (N2), and heat takes a tenth",
    )
    gamma_select: float = Field(2.0, ge=INSIDE, description="only frames with a larger extrapolation grade are chosen")
    method: Literal["maxvol", "random"] = Field(
        "maxvol",
        description="random: `structures` of the frames by hash, whatever their grade; for comparison only",
    )
    seed: int = Field(42, ge=0, description="of the hash that draws frames at random")


class Metrics(StepMetrics):
    """Figures of the choice; grades are the largest of an atom, None where there is no frame."""

    frames: int
    equal: int  # to another frame
    unphysical: int
    extrapolating: int  # above gamma_select before the choice
    chosen: int
    gamma_max_before: float | None
    gamma_max_left: float | None  # of the frames that are not chosen, against the enlarged active set
    by_source: dict[str, int]


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the chosen frames and the record; no frame above `gamma_select` gives an empty table."""
    from containers.tensorpot.active_set.projection_files import projections
    from containers.tensorpot.active_set.projections import Projector

    table, dropped = physical_frames(inputs.all("frames"), params)
    basis = coreless_basis(path := inputs.one("potential"))
    if basis.cutoffmax > params.cutoff + 1e-9:
        raise BadInput(f"{path} has a cutoff of {basis.cutoffmax:g} Å, and the step was given {params.cutoff:g} Å")
    projector = Projector(basis, params.projections)
    inverses = read_inverses(inputs.one("asi"), projector.functions, params.projections)
    sizes = sizes_for(machine.resources, max(projector.functions.values()))
    ready = (padded(atoms, params.cutoff) for atoms in atoms_from_table(table))
    with projections(ready, table.num_rows, projector, outputs, machine, sizes) as found:
        frames = GradedFrames(found, inverses)
        before = [frames.grade(place) for place in range(table.num_rows)]
        if params.method == "random":
            chosen = draw(table, params)
            for place in chosen:
                frames.add(place)
        else:
            chosen = choose_largest(before, frames.grade, frames.add, params, machine)
        left = [frames.grade(place) for place in sorted(set(range(table.num_rows)) - set(chosen))]
    return write(outputs, table, dropped, chosen, before, left, params)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Choose by hash; every frame has twice the grade that is needed, and none of those that are left has it."""
    table, dropped = physical_frames(inputs.all("frames"), params)
    chosen, count = draw(table, params), table.num_rows
    return write(
        outputs, table, dropped, chosen, [2 * params.gamma_select] * count, [1.0] * (count - len(chosen)), params
    )


def physical_frames(paths: Sequence[Path], params: Params) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Return each physical frame once, by id, and a record of each that was dropped, with the reason.

    Raises:
        BadInput: a frame has an element that the potential does not know.
    """
    tables = [read_structures(path).cast(STRUCTURES) for path in paths]
    table = pa.concat_tables([STRUCTURES.empty_table(), *tables])
    table = table.sort_by([(name, "ascending") for name in ("id", "source", "row")]).combine_chunks()
    kept, dropped, seen = list[int](), list[dict[str, Any]](), set[str]()
    for place, atoms in enumerate(atoms_from_table(table)):
        where = {name: atoms.info[name] for name in ("id", "source", "row")}
        if strangers := sorted(set(atoms.get_chemical_symbols()) - set(params.elements)):
            raise BadInput(
                f"{where['source']}, row {where['row']}: the frame has {', '.join(strangers)}, and the potential knows"
                f" {', '.join(params.elements)}. Explore with structures of these elements."
            )
        because = "equal" if where["id"] in seen else why_unphysical(atoms, params.closest)
        seen.add(where["id"])
        if because:
            dropped.append({**where, "because": because})
        else:
            kept.append(place)
    return table.take(pa.array(kept, pa.int64())), dropped


def why_unphysical(atoms: Atoms, closest: float) -> str | None:
    """Return the reason why the teacher should not see a frame; None where there is none.

    Args:
        closest: smallest distance of a pair, as a share of the sum of its covalent radii.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return NOT_FINITE
    radii = covalent_radii[atoms.numbers]
    first, second, vectors = neighbours(atoms, 2 * closest * float(radii.max()))
    near = np.linalg.norm(vectors, axis=1) < closest * (radii[first] + radii[second])
    return TOO_NEAR if near.any() else None


def coreless_basis(path: Path) -> ACEBBasisSet:
    """Load the basis of a student without the core.

    The core fades an atom's energy, and full projections of a faded atom would be too small: pyace's γ has no core.
    """
    from pyace import ACEBBasisSet

    from containers.tensorpot.student.potential import load_basis

    configuration = load_basis(path).to_BBasisConfiguration()
    for block in configuration.funcspecs_blocks:
        block.inner_cutoff_type, block.r_in, block.delta_in = "distance", 0.0, 0.0
    return ACEBBasisSet(configuration)


def read_inverses(path: Path, functions: dict[str, int], projections: str) -> dict[str, Floats]:
    """Read the (F, F) inverse active set of each element.

    Raises:
        BadInput: the file belongs to another potential, or to other projections.
    """
    with np.load(path) as archive:
        inverses = {name: np.asarray(archive[name], dtype=float) for name in archive.files}
    for name, count in functions.items():
        if name not in inverses or inverses[name].shape != (count, count):
            found = f"{len(inverses[name])} functions" if name in inverses else "none"
            raise BadInput(
                f"{path} has {found} of {name}, and the potential has {count} with {projections} projections. Give the"
                " active set of this potential and the projections that it was made with."
            )
    return inverses


class GradedFrames:
    """Extrapolation grades of frames against an active set that takes in frames.

    The active set is kept in units of the student's own, `rows @ inverse`, where it begins as the unit matrix. So
    columns of any size, and directions that the training set lacks, lose no digits.
    """

    def __init__(self, projected: Projected, inverses: dict[str, Floats]) -> None:
        """Place the rows of every frame in the files of `projected`: those of a frame follow each other in one."""
        self._inverses = inverses
        self._active = {name: np.eye(len(inverse)) for name, inverse in inverses.items()}
        self._grading = dict(inverses)
        self._where: dict[int, list[tuple[str, Path, int, int]]] = {}
        for name, rows in projected.elements.items():
            for file, owners in zip(rows.files, rows.owners, strict=True):
                places, starts = np.unique(owners, return_index=True)
                ends = [*starts[1:].tolist(), len(owners)]
                for place, start, end in zip(places.tolist(), starts.tolist(), ends, strict=True):
                    self._where.setdefault(place, []).append((name, file, start, end))

    def rows(self, place: int) -> dict[str, Floats]:
        """Return the (n, F) projections of a frame's atoms by element."""
        return {name: np.load(file, mmap_mode="r")[start:end] for name, file, start, end in self._where[place]}

    def grade(self, place: int) -> float:
        """Return the largest grade of a frame's atoms."""
        return max(float(np.abs(rows @ self._grading[name]).max()) for name, rows in self.rows(place).items())

    def add(self, place: int) -> None:
        """Swap a frame's atoms into the active set where that enlarges the volume."""
        for name, rows in self.rows(place).items():
            if np.abs(rows @ self._grading[name]).max() <= INSIDE:
                continue  # no swap enlarges it
            joined = np.concatenate([self._active[name], rows @ self._inverses[name]])
            picked = maxvol_from(joined, np.arange(joined.shape[1], dtype=np.int64), INSIDE)
            self._active[name] = joined[picked]
            self._grading[name] = self._inverses[name] @ np.linalg.inv(joined[picked])


def choose_largest(
    before: Sequence[float],
    grade: Callable[[int], float],
    add: Callable[[int], None],
    params: Params,
    machine: Machine,
) -> list[int]:
    """Return places of frames: each has the largest grade of all that were left, and one above `gamma_select`.

    A swap seldom raises a grade. So only the frames whose grade of before is the largest are graded again; before the
    end, all are.

    Args:
        before: grades against the student's own active set.
    """
    heap = [(-gamma, place) for place, gamma in enumerate(before)]
    heapq.heapify(heap)
    chosen, graded = list[int](), [0] * len(before)  # how many were chosen when a frame was graded last
    while heap and len(chosen) < params.structures:
        gamma, place = -heap[0][0], heap[0][1]
        if graded[place] < len(chosen):
            graded[place] = len(chosen)
            heapq.heapreplace(heap, (-grade(place), place))
        elif gamma > params.gamma_select:
            heapq.heappop(heap)
            add(place)
            chosen.append(place)
            machine.progress(len(chosen), params.structures, "frames chosen")
        elif any(graded[left] < len(chosen) for _, left in heap):
            heap = [(-grade(left), left) for _, left in heap]
            heapq.heapify(heap)
            graded = [len(chosen)] * len(before)
        else:
            break
    return chosen


def draw(table: pa.Table, params: Params) -> list[int]:
    """Return places of `structures` frames in an order that depends on the seed and on each id alone."""
    ids = table["id"].to_pylist()
    hashes = [hashlib.sha256(f"frames:{params.seed}:{key}".encode()).hexdigest() for key in ids]
    return sorted(range(len(ids)), key=hashes.__getitem__)[: params.structures]


def write(
    outputs: Path,
    table: pa.Table,
    dropped: Sequence[dict[str, Any]],
    chosen: Sequence[int],
    before: Sequence[float],
    left: Sequence[float],
    params: Params,
) -> dict[str, Any]:
    """Write both outputs; return the metrics.

    Args:
        table: the physical frames by id.
        chosen: their places, in the order of choice.
        before: grades of all against the student's own active set.
        left: grades of those not chosen against the enlarged one.
    """
    write_table(outputs / OUTPUTS["structures"], table.take(pa.array(sorted(chosen), pa.int64())))
    rows = [dict(table.slice(place, 1).select(["id", "source", "row"]).to_pylist()[0]) for place in chosen]
    reasons = Counter(one["because"] for one in dropped)
    metrics = {
        "method": params.method,
        "frames": table.num_rows + len(dropped),
        "equal": reasons["equal"],
        "unphysical": reasons[TOO_NEAR] + reasons[NOT_FINITE],
        "unphysical_because": {name: reasons[name] for name in (TOO_NEAR, NOT_FINITE)},
        "extrapolating": sum(gamma > params.gamma_select for gamma in before),
        "chosen": len(chosen),
        "gamma_max_before": max(before, default=None),
        "gamma_max_left": max(left, default=None),
        "by_source": dict(sorted(Counter(row["source"] for row in rows).items())),
    }
    record = {
        **metrics,
        "chosen": [{**row, "gamma_before": before[place]} for row, place in zip(rows, chosen, strict=True)],
        "dropped": list(dropped),
    }
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    (outputs / OUTPUTS["record"]).write_text(text + "\n")
    return metrics
