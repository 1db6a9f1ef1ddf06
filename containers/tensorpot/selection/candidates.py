"""The structures of a data set as the selection sees them: the part of each, and whether pacemaker could use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow.parquet as pq
from ase import Atoms

from containers.contract import BadInput, Progress, no_progress
from containers.tensorpot.dataset.roles import Role, read_roles, read_rows
from containers.tensorpot.frames.frame_file import Labelled, fit_label
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import padded

Part = Literal["candidate", "given", "dft", "validation", "test"]
"""`given` was selected before; `dft` is a DFT structure of the training side, which is always trained on."""


class Usable(NamedTuple):
    """One structure that pacemaker could use; `row` is its place in the file."""

    row: int
    id: str
    part: Part
    elements: frozenset[str]


@dataclass(frozen=True)
class DataSet:
    """A file of the dataset step, read a piece at a time.

    Attributes:
        elements, cutoff: of the potential; Å.
        given: ids that were selected before, most important first.
    """

    path: Path
    elements: tuple[str, ...]
    cutoff: float
    baseline: Baseline
    given: tuple[str, ...] = ()
    progress: Progress = no_progress

    @property
    def rows(self) -> int:
        """All rows of the file, of every side."""
        return int(pq.read_metadata(self.path).num_rows)

    @cached_property
    def usable(self) -> list[Usable]:
        """Usable structures of training, validation and test, in the order of the file.

        Raises:
            BadInput: `given` is of another data set, or nothing is left to choose from.
        """
        roles, given, found = read_roles(self.path), set(self.given), list[Usable]()
        known = {role.id for role in roles if role.of_pool}
        if strangers := [key for key in self.given if key not in known]:
            raise BadInput(
                f"the selection that was given names {strangers[0]}, row {self.given.index(strangers[0])}, which is not"
                " on the training side of the data set: give the selection and the data set of the same earlier run"
            )
        parts = [_part(role, given) for role in roles]
        rows = [row for row, part in enumerate(parts) if part]
        for row, atoms in zip(rows, read_rows(self.path, [part is not None for part in parts]), strict=True):
            label = fit_label(atoms, roles[row].origin, self.elements, self.cutoff, self.baseline)
            if (part := parts[row]) and isinstance(label, Labelled):
                found.append(Usable(row, label.name, part, frozenset(atoms.get_chemical_symbols())))
            self.progress(row + 1, len(roles), "structures")
        if not any(one.part in ("candidate", "given") for one in found):
            raise BadInput(
                f"no structure is left to choose from: the data set has {len(roles)} labelled structures, of which"
                f" {Counter(role.side for role in roles)['train']} are on the training side and none of the teacher's"
                f" can be used by pacemaker at a cutoff of {self.cutoff:g} Å. Add structures of more families, lower"
                " the shares of split.validation and split.test, or raise the cutoff."
            )
        return found

    def labelled(self, part: Part | None = None) -> Iterator[Atoms]:
        """Yield the usable structures with their labels as they came; of one part only when given."""
        wanted = [False] * self.rows
        for one in self.usable:
            wanted[one.row] = part is None or one.part == part
        return read_rows(self.path, wanted)

    def structures(self) -> Iterator[Atoms]:
        """Yield the usable structures ready for pyace."""
        return (padded(atoms, self.cutoff) for atoms in self.labelled())

    def ids(self, part: Part) -> list[str]:
        """Ids of the usable structures of one part."""
        return [one.id for one in self.usable if one.part == part]


def _part(role: Role, given: set[str]) -> Part | None:
    """Part of a row in the selection; None: it takes none."""
    if role.side != "train":
        return role.side if role.origin == "teacher" else None
    if role.origin == "dft":
        return "dft"
    if role.replaced:
        return None  # trained on with its DFT label
    return "given" if role.id in given else "candidate"


def read_given(path: Path) -> tuple[str, ...]:
    """Ids of an earlier selection in its order."""
    table = pq.read_table(path)
    if missing := [name for name in ("id", "order") if name not in table.column_names]:
        raise BadInput(
            f"{path} is no selection: it has no column {missing[0]}. Give selection.parquet of an earlier run."
        )
    return tuple(table.sort_by("order")["id"].to_pylist())
