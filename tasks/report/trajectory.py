"""Errors on the student's own trajectory: a section of the report, and its picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.markup import DASH, ERRORS, Note, Picture, Section, Table, number
from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png
from tasks.report.summary import RunSummary

SHOWN = {
    "energy_mae_meV_per_atom": ERRORS["energy_mae_meV_per_atom"],
    "energy_rmse_meV_per_atom": ERRORS["energy_rmse_meV_per_atom"],
    "force_mae_meV_per_A": ERRORS["force_mae_meV_per_A"],
    "force_rmse_meV_per_A": ERRORS["force_rmse_meV_per_A"],
}
LOOKS = ((BLUE, "o"), (ORANGE, "^"), (GREY, "s"), ("#1f2328", "D"), (BLUE, "x"), (ORANGE, "+"))
"""Colour and marker of each run: they differ in both, for readers who see no colour."""
FAR_GAMMA = 25.0  # beyond it the axis is logarithmic


def trajectory(summary: RunSummary) -> Section:
    """Errors by run and by extrapolation grade on structures that the student's molecular dynamics visited."""
    title, found = "Errors on its own trajectory", summary.metrics("trajectory_errors")
    if not found:
        return Section(title, ["Not looked at: trajectory.picoseconds is 0."])
    made = summary.metrics("trajectory")
    runs = [
        (
            one["run"],
            number(one["mean_temperature_K"]),
            f"{one['labelled']} of {one['frames']}",
            number(one["gamma_max"]),
            *(number(one[key]) for key in SHOWN),
            number(one["teacher_force_size_meV_per_A"]),
        )
        for one in found["runs"]
    ]
    unstable = [
        f"{one['run']} became unstable after {one['steps'] * one['timestep_fs'] / 1000:.3g} ps:"
        f" {one['unstable_because']}. It has the {one['frames']} frames until then."
        for one in found["runs"]
        if one["unstable_because"]
    ]
    aside = [
        f"{one['run']}: {one['set_aside']} of {one['frames']} frames {'has' if one['set_aside'] == 1 else 'have'} no"
        f" label that keeps the bounds of `labels`: {one['set_aside_because'] or 'see the log'}."
        for one in found["runs"]
        if one["set_aside"]
    ]
    grades = [
        (
            _range(one["gamma_above"], one["gamma_up_to"]),
            *(number(one[key]) for key in ("atoms", "frames", *SHOWN)),
        )
        for one in found["by_gamma"]
    ]
    run_head = ("run", "mean temperature (K)", "labelled frames", "largest γ", *SHOWN.values())
    grade_head = ("γ", "atoms in it", "frames whose largest γ is in it", *SHOWN.values())
    return Section(
        title,
        [
            "The student's own molecular dynamics led to these structures, and the teacher labelled them. So these"
            " are errors that a simulation meets.",
            *unstable,
            *aside,
            Table((*run_head, "mean size of the teacher's force components (meV/Å)"), runs),
            Table(grade_head, grades, "By extrapolation grade: forces of the atoms, energies of the frames:"),
            Picture("trajectory", "Energy error over time and force error over the largest extrapolation grade"),
            Note(f"Temperatures: {made.get('temperatures_from', DASH)}."),
        ],
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {high:g}"
    return f"above {low:g}" if high is None else f"{low:g} to {high:g}"


def picture(frames: Sequence[Mapping[str, Any]]) -> bytes:
    """Energy error of each frame over its time, and RMSE of its forces over its largest extrapolation grade.

    Args:
        frames: of the metrics of trajectory_errors; at least one.
    """
    figure = drawing(9.0, 3.2)
    times, grades = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for place, run in enumerate(dict.fromkeys(one["run"] for one in frames)):
        mine = [one for one in frames if one["run"] == run]
        colour, marker = LOOKS[place % len(LOOKS)]
        look = {"color": colour, "marker": marker, "ms": 4, "label": run}
        times.plot([one["time_ps"] for one in mine], [one["energy_error_meV_per_atom"] for one in mine], lw=0.8, **look)
        grades.plot([one["gamma_max"] for one in mine], [one["force_rmse_meV_per_A"] for one in mine], ls="", **look)
    times.axhline(0, color=GREY, lw=0.6)
    times.set(xlabel="time (ps)", ylabel="energy error (meV/atom)")
    grades.axvline(1.0, color=GREY, lw=0.9)
    if max(one["gamma_max"] for one in frames) > FAR_GAMMA:
        grades.set_xscale("symlog", linthresh=FAR_GAMMA)
    grades.set(xlabel="largest extrapolation grade γ of a frame", ylabel="force RMSE (meV/Å)", ylim=(0, None))
    grades.legend(frameon=False, fontsize=8)
    return png(figure)
