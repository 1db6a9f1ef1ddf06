"""The structures of a data set as the selection sees them: what each is for, and whether pacemaker could use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.contract import BadInput
from containers.structures.table import atoms_from_table
from containers.tensorpot.frames.frame_file import energy_corrected, energy_problem, fit_ready
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import pair_terms

AT_ONCE = 250
"""Structures read at a time."""
Role = Literal["candidate", "given", "dft", "validation", "test"]
"""`given` was selected before; `dft` is a DFT structure of the training side, which is always trained on."""


@dataclass
class DataSet:
    """A file of the dataset step, read a piece at a time.

    Attributes:
        given: ids that were selected before, most important first.
        ids, roles, elements: of the structures that `structures` has given so far.
    """

    path: Path
    potential: Potential
    baseline: Baseline
    given: tuple[str, ...] = ()
    ids: list[str] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    elements: list[frozenset[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        table = pq.read_table(self.path, columns=["id", "origin", "side"])
        places = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        self._by_dft = {key for key, origin, side in places if origin == "dft" and side != "test"}
        known = {key for key, origin, side in places if (origin, side) == ("teacher", "train")}
        if strangers := [key for key in self.given if key not in known]:
            raise BadInput(
                f"the selection that was given names {strangers[0]}, row {self.given.index(strangers[0])}, which is not"
                " on the training side of the data set: give the selection and the data set of the same earlier run"
            )

    @property
    def rows(self) -> int:
        """All rows of the file, of every side."""
        return int(pq.read_metadata(self.path).num_rows)

    def structures(self) -> Iterator[Atoms]:
        """What training, validation and test could use, ready for pyace, in the order of the file.

        Raises:
            BadInput: nothing is left to choose from; at the end.
        """
        given, asked = set(self.given), Counter[str]()
        for atoms, origin, side in self._rows():
            asked[side] += 1
            role = self._role(str(atoms.info["id"]), origin, side, given)
            if role is None:
                continue
            fit = self._usable(atoms, origin == "dft")
            if isinstance(fit, Atoms):
                self.ids.append(str(atoms.info["id"]))
                self.roles.append(role)
                self.elements.append(frozenset(atoms.get_chemical_symbols()))
                yield fit
        if not {"candidate", "given"} & set(self.roles):
            raise BadInput(
                f"no structure is left to choose from: the data set has {asked.total()} labelled structures, of which"
                f" {asked['train']} are on the training side and none of the teacher's can be used by pacemaker at a"
                f" cutoff of {self.potential.cutoff:g} Å. Add structures of more families, lower the shares of"
                " split.validation and split.test, or raise the cutoff."
            )

    def _rows(self) -> Iterator[tuple[Atoms, str, str]]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE, use_threads=False):  # no threads: processes are forked
                table = pa.Table.from_batches([batch])
                sides = table["side"].to_pylist()
                yield from zip(atoms_from_table(table), table["origin"].to_pylist(), sides, strict=True)

    def _role(self, key: str, origin: str, side: str, given: set[str]) -> Role | None:
        if origin == "dft":
            return "dft" if side == "train" else None
        if side != "train":
            return "test" if side == "test" else "validation"
        if key in self._by_dft:
            return None  # trained on with its DFT label
        return "given" if key in given else "candidate"

    def _usable(self, atoms: Atoms, dft: bool) -> Atoms | str:
        symbols = atoms.get_chemical_symbols()
        if unknown := sorted(set(symbols) - set(self.potential.elements)):
            return f"has {', '.join(unknown)}, which the potential does not"
        origin: Literal["dft", "teacher"] = "dft" if dft else "teacher"
        energy = self.baseline.on_teachers_scale(float(atoms.get_potential_energy()), Counter(symbols), origin)
        corrected = energy_corrected(energy, atoms, self.baseline.e0s_eV) - self._pair_energy(atoms)
        if reason := energy_problem(corrected, len(atoms)):
            return reason
        return fit_ready(atoms, self.potential.cutoff)

    def _pair_energy(self, atoms: Atoms) -> float:
        if not self.baseline.pairs:
            return 0.0
        return pair_terms(atoms, self._pairs())[0]

    def _pairs(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: term.model_dump() for name, term in self.baseline.pairs.items()}


def read_given(path: Path) -> tuple[str, ...]:
    """Ids of an earlier selection in its order."""
    table = pq.read_table(path)
    if missing := [name for name in ("id", "order") if name not in table.column_names]:
        raise BadInput(
            f"{path} is no selection: it has no column {missing[0]}. Give selection.parquet of an earlier run."
        )
    return tuple(table.sort_by("order")["id"].to_pylist())
