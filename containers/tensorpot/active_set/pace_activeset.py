"""`pace_activeset`: the active set (`.asi`) of the trained potential, from every atom of its training frame.

With it, `potential.yaml` gives the extrapolation grade γ of any atom: up to 1 inside what training saw. The linear set
is the same as that of the program `pace_activeset --all-atoms`; core repulsion does not change it. (For the full set
that program in python-ace 0.4.0rc1 sees zeros only, and writes 1e16 times the unit matrix; ours is made of what pyace
itself computes once such a set is loaded.)
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile, ZipInfo

import numpy as np
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine
from containers.tensorpot.active_set.piece_sizes import sizes_for
from containers.tensorpot.frames.frame_file import read_frame
from containers.tensorpot.student.potential import load_basis

IMAGE: Image = "tensorpot"
VERSION = 3
INPUTS = {"potential": "trained B-basis potential (.yaml)", "train": "the frame it was trained on (.pckl.gzip)"}
OUTPUTS = {"asi": "potential.asi"}


class Params(Closed):
    """How the active set is found."""

    projections: Literal["linear", "full"] = Field(
        "linear",
        description="linear: on the basis functions; full: derivatives of the energy by all coefficients, more"
        " sensitive and twice as large for two densities",
    )
    gamma_tolerance: float = Field(
        1.01, ge=1, description="MaxVol stops when no training atom has a larger extrapolation grade; pacemaker's value"
    )


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `potential.asi`: the inverse active set of each element.

    An element whose training atoms span fewer directions than it has functions is completed with tiny volumes, so
    that any atom outside the span has a huge grade; such elements are in the metric `deficient_elements`.
    """
    from containers.tensorpot.active_set.active_rows import inverse
    from containers.tensorpot.active_set.maxvol import active_set
    from containers.tensorpot.active_set.projection_files import projections
    from containers.tensorpot.active_set.projections import Projector

    basis = load_basis(inputs.one("potential"))
    structures = list(read_frame(inputs.one("train"))["ase_atoms"])
    projector = Projector(basis, params.projections)
    sizes = sizes_for(machine.resources, max(projector.functions.values()))
    with projections(structures, len(structures), projector, outputs, machine, sizes) as found:
        sets = {
            name: active_set(rows, params.gamma_tolerance, sizes.one_shot_bytes)
            for name, rows in found.elements.items()
        }
    inverses = {name: inverse(active.rows, active.functions) for name, active in sets.items()}
    (outputs / OUTPUTS["asi"]).write_bytes(asi_bytes(inverses))
    return {
        "functions": {name: active.functions for name, active in sets.items()},
        "environments": {name: active.environments for name, active in sets.items()},
        "spanned": {name: len(active.rows) for name, active in sets.items()},
        "deficient_elements": [name for name, active in sets.items() if len(active.rows) < active.functions],
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a readable `.asi` with one function an element."""
    symbols = sorted({symbol for atoms in read_frame(inputs.one("train"))["ase_atoms"] for symbol in atoms.symbols})
    (outputs / OUTPUTS["asi"]).write_bytes(asi_bytes(dict.fromkeys(symbols, np.eye(1))))
    ones = dict.fromkeys(symbols, 1)
    return {"functions": ones, "environments": ones, "spanned": ones, "deficient_elements": []}


def asi_bytes(inverses: Mapping[str, np.ndarray]) -> bytes:
    """Return the inverse active sets as pacemaker's `.asi`: an uncompressed npz with one (F, F) array an element.

    Not by `np.savez`: it writes members of unknown size, whose headers differ between releases of Python 3.11.
    """
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, matrix in inverses.items():
            array = io.BytesIO()
            np.save(array, np.ascontiguousarray(matrix))
            archive.writestr(ZipInfo(f"{name}.npy"), array.getvalue())
    return packed.getvalue()
