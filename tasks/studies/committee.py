"""The folder of a committee: its students, each with what it needs, and the calculator that asks all. Pure but for
`publish`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from containers.contract import Closed, file_digest
from containers.tensorpot.student import committee_calculator
from tasks.report.markup import markdown_table
from tasks.report.run_folder import MANIFEST, publish_folder
from tasks.report.summary import CALCULATOR
from tasks.report.tables import number
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
HEAD = ("student", "force MAE (meV/Å)", "energy MAE (meV/atom)", "fit ended as", "stable")
EXPLAINED = {
    "bootstrap": "The students were fitted to training structures drawn with replacement, each with other draws.",
    "coefficients": "The students were fitted to the same structures, each from other random coefficients.",
}


class CommitteeStudent(Closed):
    """A member: its errors on the test structures, and the files that make it."""

    name: str = Field(description="of its folder")
    force_mae_meV_per_A: float | None
    energy_mae_meV_per_atom: float | None
    verdict: str = Field(description="how its fit ended")
    stable: bool | None = Field(description="in molecular dynamics; None: not tried")
    files: dict[str, Path] = Field(description="name in the folder -> file of the store", exclude=True)


class CommitteeSummary(Closed):
    """A committee of students."""

    name: str = Field(description="of the run")
    config: dict[str, Any] = Field({}, description="what the students have in common, and sweep")
    differ_by: Literal["coefficients", "bootstrap"]
    stub: bool = False
    students: tuple[CommitteeStudent, ...] = Field(min_length=2)
    figures: dict[str, Any] = Field(description="metrics of the step `committee`, on the test structures")
    failures: tuple[SweepFailure, ...] = ()
    spread: Path = Field(description="committee.parquet of the store", exclude=True)


def markdown(committee: CommitteeSummary) -> str:
    """What the committee is worth, for an artifact or a terminal."""
    members = [_row(one) for one in committee.students]
    figures = [(text, number(committee.figures.get(key))) for key, text in FIGURES.items()]
    parts = ["## A committee of students", "STUB RUN: no figure is real." if committee.stub else ""]
    parts += [EXPLAINED[committee.differ_by] + " Figures are those of test structures, against the teacher."]
    parts += [markdown_table(("together", ""), figures), markdown_table(HEAD, members)]
    parts += [f"Not made: {one.name}, {one.step}: {one.message}" for one in committee.failures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(one: CommitteeStudent) -> tuple[str, ...]:
    errors = number(one.force_mae_meV_per_A), number(one.energy_mae_meV_per_atom)
    return one.name, *errors, one.verdict, number(one.stable)


def publish(committee: CommitteeSummary, folder: Path) -> str:
    """Write a folder for each student, then what speaks for all; returns the text of the artifact.

    Raises:
        UserError, StoreError: as `publish_folder`.
    """
    for one in committee.students:
        publish_folder(folder / one.name, lambda place, one=one: _fill(place, one.files, {}))  # type: ignore[misc]
    files = {
        "committee.py": Path(committee_calculator.__file__),
        "calculator.py": CALCULATOR,
        "committee.parquet": committee.spread,
    }
    texts = {"committee.json": _json(committee), "committee.md": markdown(committee)}
    publish_folder(folder, lambda place: _fill(place, files, texts))
    for stale in {path.name for path in folder.iterdir() if path.name.isdecimal()} - {
        s.name for s in committee.students
    }:
        _withdraw(folder / stale)
    return markdown(committee)


def _withdraw(folder: Path) -> None:
    """Take back a student of an earlier, larger committee; what the user put or changed there stays."""
    if not (folder / MANIFEST).is_file():
        return
    publish_folder(folder, lambda place: _fill(place, {}, {}))
    (folder / MANIFEST).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _json(committee: CommitteeSummary) -> str:
    """`students` are the names of their folders: what committee.py reads."""
    told = committee.model_dump(mode="json") | {
        "students": [one.name for one in committee.students],
        "errors": {one.name: one.model_dump(exclude={"name"}) for one in committee.students},
    }
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def _fill(folder: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    digests = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"files": digests}, indent=1) + "\n")
