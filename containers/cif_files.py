"""Structures out of CIF files, ordered ones alone.

ASE reads a site that is partly occupied as if it were full, and of several atoms at one place it takes the first: one
ordered choice of many, at a composition that the file does not have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.cif import CIFBlock, parse_cif

from containers.contract import BadInput

FULL = 1e-3  # so near to 1 an occupancy is full
OCCUPANCY, GROUP, LABEL = "_atom_site_occupancy", "_atom_site_disorder_group", "_atom_site_label"
NOTHING = (".", "?")
SAID_TWICE = "scaled_positions"  # ASE's warning of two sites at one place begins so
MAKE_ORDERED = (
    "make ordered supercells of it (such as by pymatgen's OrderDisorderedStructureTransformation, or special"
    " quasi-random structures) and give those"
)


def cif_frames(path: Path, name: str) -> Iterator[Atoms]:
    """The structure of each block that has one.

    Raises:
        BadInput: sites that are not fully occupied, or disorder written otherwise; names file, frame and site.
    """
    blocks = (block for block in parse_cif(str(path)) if block.has_structure())
    for row, block in enumerate(blocks):
        place = f"{name}: frame {row} (from 0)"
        _check_occupancies(block, place)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=SAID_TWICE)
            try:
                atoms = block.get_atoms(fractional_occupancies=False)
            except UserWarning as warning:
                raise BadInput(f"{place}: two atoms are at one place ({warning}): disorder. {MAKE_ORDERED}") from None
        yield atoms


def _check_occupancies(block: CIFBlock, place: str) -> None:
    labels = _column(block, LABEL)
    for site, value in enumerate(_column(block, OCCUPANCY)):
        if value != "." and not (isinstance(value, int | float) and abs(value - 1) <= FULL):  # "." is the default, 1
            which = f"site {labels[site]}" if site < len(labels) else f"site {site} (from 0)"
            raise BadInput(
                f"{place}: {which} has the occupancy {value}: the structure is disordered, and reading it as an ordered"
                f" one would change its composition. {MAKE_ORDERED}"
            )
    if len(groups := {str(value) for value in _column(block, GROUP)} - set(NOTHING)) > 1:
        raise BadInput(f"{place}: atoms are in {len(groups)} groups of disorder ({GROUP}). {MAKE_ORDERED}")


def check_ordered(atoms: Atoms, place: str) -> None:
    """Refuse a structure that was read from a disordered one: ASE keeps the occupancies of a CIF in its other files."""
    given = atoms.info.get("occupancy")
    sites = [site for site in given.values() if isinstance(site, dict)] if isinstance(given, dict) else []
    shares = [share for site in sites for share in site.values() if isinstance(share, int | float)]
    column = atoms.arrays.get("occupancy", np.empty(0))  # of a PDB file, where 0 stands for nothing
    shares += [share for share in column.ravel().tolist() if isinstance(share, int | float) and share > 0]
    if any(abs(share - 1) > FULL for share in shares):
        raise BadInput(
            f"{place}: sites are occupied in part (`occupancy`): the structure is disordered. {MAKE_ORDERED}"
        )


def _column(block: CIFBlock, tag: str) -> list[Any]:
    """The values of a loop, of one row too."""
    return list(np.atleast_1d(np.array(block.get(tag, []), dtype=object)))
