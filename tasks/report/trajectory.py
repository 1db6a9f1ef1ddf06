"""Errors on the student's own trajectory: a section of the report, and its picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.markup import DASH, ERRORS, Note, Part, Picture, Section, Table, duration, number
from tasks.report.plots import BLACK, BLUE, GREY, ORANGE, drawing, png
from tasks.report.summary import RunSummary

SHOWN = {key: label for key, label in ERRORS.items() if key.startswith(("energy_", "force_")) and "max" not in key}
LOOKS = ((BLUE, "o"), (ORANGE, "^"), (GREY, "s"), (BLACK, "D"), (BLUE, "x"), (ORANGE, "+"))
"""Colour and marker of each run: they differ in both, for readers who see no colour."""
MOST_OF_LABELLING = 0.1
"""Share of the pool's labelling that a run of the teacher beside the student's may cost."""
FAR_GAMMA = 25.0  # beyond it the axis is logarithmic


def trajectory(summary: RunSummary) -> Section:
    """Errors by run and by extrapolation grade on structures that the student's molecular dynamics visited."""
    title, found = "Errors on its own trajectory", summary.metrics("trajectory_errors")
    if not found:
        return Section(title, ["Not measured: trajectory.picoseconds is 0."])
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
        f" label within the bounds of `labels`: {one['set_aside_because'] or 'see the log'}."
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
            "The student's own molecular dynamics led to these structures, and the teacher labelled them. So a"
            " simulation can expect such errors.",
            *unstable,
            *aside,
            Table((*run_head, "mean size of the teacher's force components (meV/Å)"), runs),
            Table(grade_head, grades, "By extrapolation grade: forces of the atoms, energies of the frames:"),
            Picture("trajectory", "Energy error over time and force error over the largest extrapolation grade"),
            *motion(summary),
            Note(f"Temperatures: {made.get('temperatures_from', DASH)}."),
        ],
    )


def motion(summary: RunSummary) -> list[Part]:
    """g(r) and mean square displacement of both, or why they are not there."""
    found, cost = summary.metrics("teacher_motion"), summary.metrics("trajectory").get("motion_atom_steps")
    if found.get("failed"):
        return [
            Note(
                "g(r) and mean square displacement were not compared with the teacher's: its run at"
                f" {number(found['temperature_K'])} K ended early, because {found['failed']}."
            )
        ]
    if found:
        after = f"mean square displacement after {number(found['msd_after_ps'])} ps (Å²)"
        rows = [
            (after, f"student {number(found['student_msd_A2'])}, teacher {number(found['teacher_msd_A2'])}"),
            ("area between the two g(r), of the teacher's (%)", number(found["g_difference_percent"])),
        ]
        caption = (
            f"Student and teacher at {number(found['temperature_K'])} K, from the same positions and velocities,"
            f" {number(found['steps'])} steps each. The runs are short: two runs of one potential differ too."
        )
        return [Table((), rows, caption), Picture("motion", "g(r) and mean square displacement of both")]
    if not cost:
        return []
    labelled, speed = summary.metrics("pool_labels").get("atoms"), summary.labelling.atoms_per_s
    share = (
        f"{number(cost / labelled)} times the labelling of the pool" if labelled else f"{number(cost)} labelled atoms"
    )
    time = f", about {duration(cost / speed)} at the speed of this run's labelling" if speed else ""
    return [
        Note(
            f"g(r) and mean square displacement were not compared with the teacher's: a run of it would cost {share}"
            f"{time}. The flow compares them where that is less than {MOST_OF_LABELLING:g} times."
        )
    ]


def motion_picture(found: Mapping[str, Any]) -> bytes:
    """g(r) and mean square displacement of student and teacher.

    Args:
        found: metrics of teacher_motion.
    """
    figure = drawing(9.0, 3.2)
    pairs, moves = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for name, colour, style in (("teacher", GREY, "-"), ("student", BLUE, "--")):
        one = found[name]
        pairs.plot(one["r_A"], one["g"], style, color=colour, lw=1.6, label=name)
        moves.plot(one["time_ps"], one["msd_A2"], style, color=colour, lw=1.6, label=name)
    pairs.set(xlabel="distance (Å)", ylabel="g(r)")
    moves.set(xlabel="time (ps)", ylabel="mean square displacement (Å²)")
    pairs.legend(frameon=False, fontsize=8)
    return png(figure)


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
