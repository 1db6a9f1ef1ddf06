"""Calls of the steps that only many students need. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from flows.fit import Student
from tasks.artefact import Artefact, StepCall


def committee_call(students: Sequence[Student], frames: Artefact, baseline: Artefact) -> StepCall:
    """What the students say together of the test structures, and how far they are from each other."""
    return StepCall(
        step="committee",
        params={},
        inputs={
            "potentials": tuple(student.core.file("potential") for student in students),
            "baseline": (baseline.file("baseline"),),
            "test": (frames.file("test"),),
        },
    )
