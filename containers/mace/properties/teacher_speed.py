"""Speed of the teacher: ASE's calculator of MACE, and our labeller. Imports torch and mace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from mace.tools import torch_tools

from containers.contract import Device
from containers.mace.labelling.batches import DEFAULT_BOUND
from containers.mace.labelling.labeller import Labeller, LabelSettings
from containers.mace.labelling.mace_label import Dtype
from containers.mace.teacher.calculator import teacher_calculator
from containers.properties.results import Crystal
from containers.properties.speed import Speed, atoms_per_s, timed_cell


def teacher_speed(model: Path, head: str, crystals: Sequence[Crystal], device: Device) -> Speed:
    """Time one model on the first crystal, in both arithmetics, with one thread; an empty `Speed` without crystals."""
    found = timed_cell(crystals)
    if found is None:
        return Speed(device=device)
    name, atoms = found
    threads, speeds = torch.get_num_threads(), dict[str, float]()
    torch.set_num_threads(1)
    try:
        for dtype in get_args(Dtype):
            with torch_tools.default_dtype(dtype):
                ours = Labeller(LabelSettings(model, head, dtype, DEFAULT_BOUND, device))
                speeds[f"labeller_{dtype}"] = atoms_per_s(partial(ours.label, [atoms]), len(atoms), device)
                theirs = teacher_calculator([model], head, device, dtype)
                speeds[f"mace_{dtype}"] = atoms_per_s(partial(theirs.calculate, atoms), len(atoms), device)
    finally:
        torch.set_num_threads(threads)
    return Speed(cell=name, atoms=len(atoms), device=device, atoms_per_s=speeds)
