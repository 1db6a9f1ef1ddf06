"""ASE's calculator of MACE for a teacher. Imports torch and mace: only steps import this, inside `run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mace.calculators import MACECalculator

from containers.contract import Device
from containers.mace.teacher.model import load_model


def teacher_calculator(
    models: Sequence[Path], head: str, device: Device, dtype: Literal["float32", "float64"] = "float64"
) -> MACECalculator:
    """Return the calculator of a model, or the mean of several (a committee).

    Raises `BadInput` for a file that is not a MACE model.
    """
    loaded = [load_model(path, device) for path in models]
    return MACECalculator(models=loaded, device=device, default_dtype=dtype, head=head)
