"""A committee: its students with the files of each, and the calculator that averages over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from containers.contract import Closed
from containers.tensorpot.student import committee_calculator
from tasks.report.markup import Part, Table, number
from tasks.report.run_folder import MANIFEST, publish_files
from tasks.report.summary import CALCULATOR
from tasks.studies.study import Study
from tasks.studies.sweep import SweepFailure

FIGURES = {
    "force_mae_meV_per_A": "force MAE of their mean (meV/Å)",
    "force_std_mean_meV_per_A": "deviation of forces, mean over atoms (meV/Å)",
    "force_std_max_meV_per_A": "deviation of forces, largest (meV/Å)",
    "force_std_error_pearson": "correlation of force deviation and force error",
    "force_std_error_spearman": "correlation of their ranks",
    "force_rmse_over_std": "force error over deviation",
    "energy_mae_meV_per_atom": "energy MAE of their mean (meV/atom)",
    "energy_std_mean_meV_per_atom": "deviation of energies, mean (meV/atom)",
    "energy_std_max_meV_per_atom": "deviation of energies, largest (meV/atom)",
    "energy_std_error_spearman": "correlation of ranks of energy deviation and energy error",
}
EXPLAINED = {
    "bootstrap": "The students were fitted to training structures drawn with replacement, each with its own draw.",
    "coefficients": "The students were fitted to the same structures, each from its own random coefficients.",
}


class CommitteeStudent(Closed):
    """A member: its errors on the test structures, and the files that make it."""

    name: str = Field(description="of its folder")
    force_mae_meV_per_A: float | None
    energy_mae_meV_per_atom: float | None
    verdict: str = Field(description="how its fit ended")
    stable: bool | None = Field(description="in molecular dynamics; None: not tried")
    files: dict[str, Path] = Field(description="name in the folder -> file of the store", exclude=True)


class CommitteeSummary(Study):
    """A committee of students."""

    KIND: ClassVar[str] = "committee"
    TITLE: ClassVar[str] = "committee of students"
    TASK: ClassVar[str] = "committee folder"

    differ_by: Literal["coefficients", "bootstrap"]
    students: tuple[CommitteeStudent, ...] = Field(min_length=2)
    figures: dict[str, Any] = Field(description="metrics of the step `committee`, on the test structures")
    failures: tuple[SweepFailure, ...] = ()
    spread: Path = Field(description="committee.parquet of the store", exclude=True)

    def parts(self) -> list[Part]:
        """The errors and deviations of the committee, and a row for each student."""
        students = []
        for one in self.students:
            errors = (number(one.force_mae_meV_per_A), number(one.energy_mae_meV_per_atom))
            students.append((one.name, *errors, one.verdict, number(one.stable)))
        return [
            f"{EXPLAINED[self.differ_by]} Figures are those of test structures, against the teacher.",
            Table(("together", ""), [(text, number(self.figures.get(key))) for key, text in FIGURES.items()]),
            Table(("student", "force MAE (meV/Å)", "energy MAE (meV/atom)", "fit ended as", "stable"), students),
            *(f"Not made: {one.name}, {one.step}: {one.message}" for one in self.failures),
        ]

    def json_text(self) -> str:
        """Values in which `students` are the names of their folders: what committee.py reads."""
        values = self.model_dump(mode="json") | {
            "students": [one.name for one in self.students],
            "errors": {one.name: one.model_dump(exclude={"name"}) for one in self.students},
        }
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    def copies(self) -> dict[str, Path]:
        """The calculators of committee and student, and the spread of each structure."""
        code = {"committee.py": Path(committee_calculator.__file__), "calculator.py": CALCULATOR}
        return {**code, "committee.parquet": self.spread}

    def publish(self, folder: Path) -> str:
        """Write a folder for each student, then the files of the committee; return the text of the artifact.

        Students of an earlier, larger committee are removed; files that the user put or changed there stay.

        Raises:
            UserError, StoreError: see `publish_folder`.
        """
        for one in self.students:
            publish_files(folder / one.name, one.files, {}, {})
        text = super().publish(folder)
        names = {one.name for one in self.students}
        for path in list(folder.iterdir()):
            if path.name.isdecimal() and path.name not in names and (path / MANIFEST).is_file():
                publish_files(path, {}, {}, {})
                (path / MANIFEST).unlink()
                if not any(path.iterdir()):
                    path.rmdir()
        return text
