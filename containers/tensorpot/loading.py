"""x"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from containers.contract import BadInput
from containers.tensorpot.baseline_model import Baseline
from containers.tensorpot.student import Student

if TYPE_CHECKING:
    from pyace import ACEBBasisSet


def load_student(potential: Path, asi: Path, baseline: Path) -> Student:
    """The student as an ASE calculator that also gives `gamma`: total energies on the teacher's scale."""
    from pyace import PyACECalculator

    ace = PyACECalculator(load_basis(potential))
    ace.set_active_set(str(asi))
    return Student(ace, Baseline.read(baseline).model_dump())


def load_basis(path: Path) -> ACEBBasisSet:
    """The B-basis in a potential file; `BadInput` when it is none."""
    from pyace import ACEBBasisSet, BBasisConfiguration

    try:
        return ACEBBasisSet(BBasisConfiguration(str(path)))
    except RuntimeError as error:
        raise BadInput(f"{path} is not a B-basis potential of pacemaker (.yaml): {error}") from None
