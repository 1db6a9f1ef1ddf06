"""Energies taken from the labels before the fit and added again after it: reference energies, and a pair potential.

The pair potential is there only where the student learns a difference (delta learning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Literal

from pydantic import Field

from containers.contract import Closed
from containers.structures.table import Origin

E0Source = Literal["teacher", "isolated_atoms", "least_squares", "given"]


class PairTerm(Closed):
    """The pair potential of two elements, switched off smoothly from `inner_A` to `outer_A`."""

    form: Literal["zbl", "lj"]
    epsilon_eV: float | None = Field(None, gt=0, description="depth of a Lennard-Jones well, eV; None for ZBL")
    sigma_A: float | None = Field(None, gt=0, description="where a Lennard-Jones energy is zero, Å; None for ZBL")
    inner_A: float = Field(gt=0, description="Å; up to here the term is whole")
    outer_A: float = Field(gt=0, description="Å; from here on it is zero")


class Baseline(Closed):
    """Energies are eV, lengths Å. Pairs are named by their elements in alphabetic order: `Al-Ni`."""

    e0s_eV: dict[str, float] = Field(description="element -> reference energy of an atom")
    e0s_from: E0Source = "teacher"
    dft_offsets_eV: dict[str, float] = Field(
        {}, description="element -> DFT energy less the teacher's, an atom; taken from every DFT energy; empty: none"
    )
    dft_compared: int = Field(0, ge=0, description="DFT training structures that the offsets were found on")
    pairs: dict[str, PairTerm] = Field({}, description="empty unless the student learns the difference to it")

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read the file of `write`."""
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n")

    def on_teachers_scale(self, energy: float, counts: Mapping[str, int], origin: Origin) -> float:
        """Return a total energy (eV) of DFT on the teacher's scale; the teacher's own is unchanged."""
        if origin == "teacher":
            return energy
        return energy - sum(self.dft_offsets_eV.get(symbol, 0.0) * count for symbol, count in sorted(counts.items()))


def pair_names(elements: Sequence[str]) -> list[str]:
    """`Al-Al`, `Al-Ni`, `Ni-Ni`."""
    return ["-".join(pair) for pair in combinations_with_replacement(sorted(elements), 2)]
