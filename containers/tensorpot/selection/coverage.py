"""Elements that training never sees, found on the ingested tables before anything is labelled. Pure but for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from containers.structures.split import Side, Split
from containers.structures.table import STRUCTURES, Origin, atoms_from_table, flat, list_lengths
from containers.tensorpot.baseline.reference_energies import counts_of, isolated
from containers.tensorpot.dataset.admission import Place, Sides, places_in, pool_families
from containers.tensorpot.dataset.history import AT_ONCE, known_places

ISOLATED = "it is an isolated atom, which pacemaker drops"


@dataclass(frozen=True)
class Unseen:
    """A structure that training does not see.

    Attributes:
        side: where the split or an earlier set puts it.
        reason: why a structure of the training side is not trained on; empty for the other sides.
        settled: its side is that of an earlier set, which nothing changes.
    """

    place: Place
    side: Side
    reason: str
    settled: bool

    def __str__(self) -> str:
        if self.reason:
            return f"{self.place}: {self.reason}"
        by = ", where the earlier data set has it" if self.settled else ""
        return f"{self.place}, of the family {self.place.family!r} on the {self.side} side{by}"


@dataclass(frozen=True)
class Tables:
    """Ingested structures (Parquet): pool and DFT data by their origin, DFT test data, the data set of a base."""

    new: Mapping[Origin, Path]
    dft_test: Path | None = None
    base: Path | None = None


def never_trained(elements: Sequence[str], cutoff: float, tables: Tables, split: Split) -> dict[str, list[Unseen]]:
    """Return for each element that no structure of the training side has the structures with it, of whatever side.

    Labels that are rejected, atoms without neighbours in larger structures and copies of DFT test structures are not
    known yet: the `frames` step looks again.

    Args:
        cutoff: of the potential, Å.
    """
    labels, dft = ([tables.new[origin]] if origin in tables.new else [] for origin in ("teacher", "dft"))
    sides = Sides(split, known_places(tables.base), pool_families(labels, dft))
    seen, unseen = np.zeros(len(elements), dtype=bool), {element: list[Unseen]() for element in elements}
    files: list[tuple[Origin | None, Path]] = [*tables.new.items()]
    files += [(None, path) for path in (tables.base, tables.dft_test) if path]
    for origin, path in files:
        for batch in pq.ParquetFile(path).iter_batches(AT_ONCE, columns=STRUCTURES.names):
            table = pa.Table.from_batches([batch])
            lengths = list_lengths(table["numbers"])
            has = counts_of(flat(table["numbers"]), lengths, elements)
            whole = has.sum(axis=1) == lengths
            if not (wanted := np.flatnonzero((has[:, ~seen] > 0).any(axis=1))).size:
                continue
            single = np.flatnonzero(lengths == 1)
            alone = zip(single.tolist(), atoms_from_table(table.take(pa.array(single))), strict=True)
            lonely, here = {row for row, atoms in alone if isolated(atoms, cutoff)}, list(places_in(table))
            for row in wanted.tolist():
                found = _unseen(here[row], origin, sides, whole[row], row in lonely)
                if found is None:
                    seen |= has[row] > 0
                    continue
                for place in np.flatnonzero(has[row]).tolist():
                    unseen[elements[place]].append(found)
    return {element: unseen[element] for place, element in enumerate(elements) if not seen[place]}


def _unseen(place: Place, origin: Origin | None, sides: Sides, whole: bool, lonely: bool) -> Unseen | None:
    """Return why training does not see a structure; None when it does.

    Args:
        origin: None for rows of a base, and for DFT test data.
        whole: whether the potential has all its elements.
    """
    in_base, side = place.key in sides.base.sides, sides.of(place)
    settled = in_base or place.family in sides.base.families
    if origin is None and not in_base:
        return Unseen(place, "test", "it is DFT test data", settled)
    reason = ISOLATED if lonely else "" if whole else "it has elements that the potential does not have"
    return Unseen(place, side, reason, settled) if reason or side != "train" else None
