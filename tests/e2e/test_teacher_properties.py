"""Crystals of the user's files, and a teacher's run that ends early: the steps with the real teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, diamond111
from ase.calculators.emt import EMT
from ase.io import write

from containers.contract import BadInput, Inputs, Machine
from containers.ingest import ingest
from containers.mace.properties import teacher_motion, teacher_properties
from containers.properties.motion import Start
from containers.properties.results import Properties, Settings

pytestmark = pytest.mark.e2e

TEACHER = Path(__file__).parents[2] / "examples" / "silicon" / "teacher.model"
LATTICE_ALONE = Settings(elastic=False, phonons=False, vacancies=False, surfaces=False)


def crystals_of(folder: Path, structures: list[Atoms]) -> Path:
    """The table that the flow makes of a file of crystals."""
    write(folder / "crystals.extxyz", structures)
    given = Inputs({"files": (folder / "crystals.extxyz",)})
    ingest.run(given, folder, ingest.Params(file_names=("crystals.extxyz",)), Machine())
    return folder / ingest.OUTPUTS["structures"]


def measure(folder: Path, structures: list[Atoms]) -> Properties:
    inputs = Inputs({"model": (TEACHER,), "crystals": (crystals_of(folder, structures),)})
    params = teacher_properties.Params(head="Default", settings=LATTICE_ALONE)
    teacher_properties.run(inputs, folder, params, Machine())
    return Properties.model_validate_json((folder / "properties.json").read_bytes())


def test_crystals_of_files_are_relaxed_and_measured_once_each(tmp_path: Path) -> None:
    cubic, primitive = bulk("Si", cubic=True), bulk("Si", a=5.5)
    found = measure(tmp_path, [cubic, primitive, bulk("Si", "sc", a=2.5)])
    assert sorted(crystal.name for crystal in found.crystals) == ["Si Fd-3m", "Si Pm-3m"]
    assert found.left_out == {}
    diamond = next(crystal for crystal in found.crystals if crystal.name == "Si Fd-3m")
    assert diamond.lattice_A["a"] == pytest.approx(bulk("Si", cubic=True).cell[0, 0], rel=0.01)


def test_a_slab_is_refused_by_file_and_number(tmp_path: Path) -> None:
    slab = diamond111("Si", (1, 1, 4), vacuum=8.0)
    slab.pbc = True
    with pytest.raises(BadInput, match=r"properties.files: crystals.extxyz, structure 1 \(Si4\) is not a crystal"):
        measure(tmp_path, [bulk("Si"), slab])


class Breaks(EMT):
    """A potential whose forces are no numbers from the 12th call on."""

    calls = 0

    def calculate(self, *args: object) -> None:
        super().calculate(*args)
        self.calls += 1
        if self.calls >= 12:
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


def test_a_run_of_the_teacher_that_ends_early_says_when_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from containers.mace.teacher import calculator

    monkeypatch.setattr(calculator, "teacher_calculator", lambda *args: Breaks())
    start = Start.of(bulk("Cu", cubic=True) * 2, 300.0, 2.0, 100, 0)
    motion = {"r_A": (), "g": (), "time_ps": (), "msd_A2": ()}
    (tmp_path / "trajectory.json").write_text(json.dumps({"motion": {"start": start.model_dump(), "student": motion}}))
    inputs = Inputs({"model": (TEACHER,), "trajectory": (tmp_path / "trajectory.json",)})
    params = teacher_motion.Params(head="Default", dtype="float64")
    found = teacher_motion.Metrics.model_validate(teacher_motion.run(inputs, tmp_path, params, Machine()))
    assert found.failed == "its forces are no numbers after 0.022 ps"
    assert found.teacher is None
