"""The card: a verdict on each section of a run, with the reason and what to do. Pure.

The rules are in docs/use/card.md, one table. A section fails exactly where it keeps the run from `converged`; what is
worth a look without that is to check. `RULES` names the sections in their order.
"""

from __future__ import annotations

from collections.abc import Callable

from containers.properties.compare import deviations
from tasks.report.invariants import INVARIANTS
from tasks.report.markup import ERRORS, Judgement, Verdict, number, percent
from tasks.report.summary import RunSummary

EXTRAPOLATING = 0.02
"""Share of test atoms with γ above 1 from which structures are lacking, as in flows.fit.next_round."""
OFTEN = 0.02
"""Share of the steps of molecular dynamics with an atom of γ above 5, from which the section is to check."""
GIVE_CRYSTALS = "Give crystals in properties.prototypes or properties.files."
FASTER = 10.0
"""Times: a student that is not so much faster than its teacher is hardly worth its errors."""


def judge(summary: RunSummary) -> list[Judgement]:
    """Return the verdict on each section; of a run that is not converged, one fails at least."""
    rules = (*RULES, exploration) if summary.exploration else RULES
    found = [rule(summary) for rule in rules]
    if summary.stub:
        found = [Judgement(one.section, "not measured", "a stub run: no figure is real") for one in found]
    if not summary.converged and not any(one.grade == "fails" for one in found):
        because = summary.not_converged_because or "no reason was given"
        found.append(Judgement("other checks", "fails", because, "See the sections below."))
    return found


def whole(summary: RunSummary) -> Verdict:
    """Return the verdict on the run, which is `converged`."""
    if not summary.converged:
        return Verdict(False, "Finished, not converged", summary.not_converged_because or "No reason was given.")
    doubtful = [one.section for one in judge(summary) if one.grade == "check"]
    text = "Errors are within their limits, and all checks passed."
    return Verdict(True, "Converged", text + (f" To check: {', '.join(doubtful)}." if doubtful else ""))


def errors(summary: RunSummary) -> Judgement:
    """Test errors against the limits of `convergence`, those of groups and elements too, and how the fit ended."""
    figures, limits = summary.fidelity["teacher"] or {}, {k: v for k, v in summary.thresholds.items() if k in ERRORS}
    reason = "; ".join(
        f"{ERRORS[key]}: {number(figures.get(key))}, limit {number(limit)}" for key, limit in limits.items()
    )
    if any(figures.get(key) is None or figures[key] > limit for key, limit in limits.items()):
        return Judgement("errors", "fails", reason, "Add structures, or raise pacemaker.functions_per_element.")
    attempt = summary.attempts[summary.chosen]
    if attempt.verdict != "converged":
        return Judgement(
            "errors", "fails", f"{reason}; {attempt.name} ended as {attempt.verdict}", "See the attempts below."
        )
    above = [
        f"{by} {row['name']}: {ERRORS[key]} {number(row[key])}"
        for by in ("element", "group", "composition", "size")
        for row in figures.get(f"by_{by}", [])
        for key, limit in limits.items()
        if row.get(key) is not None and row[key] > limit
    ]
    if above:
        some = "; ".join(above[:3]) + (f"; {len(above) - 3} more" if len(above) > 3 else "")
        todo = "Add structures like these to the pool, or do not use the potential for them."
        return Judgement("errors", "check", f"{reason}. Above the limit by themselves: {some}", todo)
    return Judgement("errors", "good", reason)


def properties(summary: RunSummary) -> Judgement:
    """Properties of crystals and molecules against their limits."""
    if summary.properties is None:
        because = "`properties` has no crystals"
        return Judgement("properties", "not measured", because, GIVE_CRYSTALS)
    teacher, student = summary.properties
    rows, limits = deviations(teacher, student), summary.property_limits
    if not rows:
        failed = "; ".join(f"{name}: {reason}" for name, reason in teacher.left_out.items())
        because = failed or "the pool has no small crystal and no molecule"
        return Judgement("properties", "not measured", because, GIVE_CRYSTALS)
    judged = [row for row in rows if limits.of(row.kind) is not None and row.teacher is not None]
    missed = [row.words() for row in judged if limits.over(row) > 1]
    held = len(judged) - len(missed)
    if missed:
        some = ", ".join(missed[:5]) + (f" and {len(missed) - 5} more" if len(missed) > 5 else "")
        todo = "Raise extend.property_rounds or pacemaker.functions_per_element."
        return Judgement("properties", "fails", f"{held} within their limits, {len(missed)} not: {some}", todo)
    soft = {one.name: one.imaginary_share or 0.0 for one in teacher.crystals}
    softer = [one.name for one in student.crystals if (one.imaginary_share or 0.0) > soft.get(one.name, 0.0)]
    lost = [row.words() for row in rows if row.deviation is None and row.teacher is not None]
    if softer or lost or not judged:
        doubts = [f"more imaginary modes than the teacher: {', '.join(softer)}"] if softer else []
        doubts += [f"the student has no value: {', '.join(lost)}"] if lost else []
        doubts += ["no limit applies"] if not judged else []
        return Judgement("properties", "check", "; ".join(doubts), "Look at the table of properties.")
    lacking = [f"{what} of {one.name}" for one in teacher.crystals for what in one.failed] + list(teacher.left_out)
    but = f"; not measured with the teacher: {', '.join(lacking)}" if lacking else ""
    return Judgement("properties", "good", f"all {held} are within their limits{but}")


def own_trajectory(summary: RunSummary) -> Judgement:
    """Errors on structures that the student's own molecular dynamics visits, against the limits of `convergence`."""
    runs, section = summary.metrics("trajectory_errors").get("runs", []), "own trajectory"
    if not runs:
        because = "trajectory.picoseconds is 0, or no frame of it was labelled"
        return Judgement(section, "not measured", because, "Set trajectory.picoseconds, 2 for example.")
    limits = {key: limit for key, limit in summary.thresholds.items() if key in ERRORS}
    reasons, above = [], False
    for run in runs:
        reasons.append(f"{run['run']}: {', '.join(f'{ERRORS[key]} {number(run.get(key))}' for key in limits)}")
        if unstable := run.get("unstable_because"):
            reasons[-1] += f", unstable ({unstable})"
        above |= bool(unstable) or any(run.get(key) is None or run[key] > limit for key, limit in limits.items())
    todo = "Add frames of this trajectory to the pool, or lower the temperature at which you use the potential."
    return Judgement(section, "check" if above else "good", "; ".join(reasons), todo if above else "")


def stability(summary: RunSummary) -> Judgement:
    """Molecular dynamics at constant energy."""
    figures = summary.metrics("stability")
    if not figures:
        return Judgement(
            "stability", "not measured", "stability.picoseconds is 0", "Set stability.picoseconds, 2 for example."
        )
    if not figures["stable"]:
        todo = "Add structures like those that it visits to the pool: hotter, compressed."
        return Judgement("stability", "fails", str(figures["unstable_because"]), todo)
    high, highest = figures["gamma_share_above_5"] or 0.0, figures["gamma_share_above_25"] or 0.0
    reason = (
        f"{number(figures['atoms'])} atoms over {number(figures['steps'])} steps, drift"
        f" {number(figures['drift_meV_per_atom_per_ps'])} meV/atom/ps"
    )
    if high > OFTEN or highest > 0:
        reason += f"; γ above 5 in {percent(high)} of the steps, above 25 in {percent(highest)}"
        return Judgement("stability", "check", reason, "Add structures like those that it visits to the pool.")
    return Judgement("stability", "good", reason)


def extrapolation(summary: RunSummary) -> Judgement:
    """Share of test atoms outside the range of the training set."""
    figures = summary.fidelity["teacher"] or {}
    share = figures.get("gamma_share_above_1")
    if share is None:
        return Judgement("extrapolation", "not measured", "no test structure has a grade")
    reason = f"{percent(share)} of the test atoms have γ above 1, the largest γ is {number(figures['gamma_max'])}"
    if share > EXTRAPOLATING:
        todo = "Raise selection.max_structures, or extend.structures; check γ in your own runs."
        return Judgement("extrapolation", "check", f"{reason}; wanted at most {percent(EXTRAPOLATING)}", todo)
    return Judgement("extrapolation", "good", reason)


def short_distances(summary: RunSummary) -> Judgement:
    """Repulsion of every pair of elements at distances below those of the data."""
    section, figures = "short distances", summary.metrics("pace_corerep")
    if bonded := figures.get("bonded_dimer_falls_eV"):
        reason = ", ".join(f"{pair} by {number(depth)} eV" for pair, depth in bonded.items())
        todo = "Add structures with these pairs compressed to the pool, or set pacemaker.r_in_A."
        return Judgement(section, "fails", f"the energy of a dimer falls on the way in: {reason}", todo)
    if not summary.repulsion:
        todo = "Set pacemaker.reference_potential: zbl."
        return Judgement(section, "check", "no core repulsion: atoms may fuse in hot or dense runs", todo)
    if falling := [pair for pair, rises in figures.get("dimer_rises", {}).items() if not rises]:
        reason = f"pairs without bonds in the data fall on the way in: {', '.join(falling)}"
        return Judgement(
            section, "check", reason, "Add structures with these pairs to the pool, or set pacemaker.r_in_A."
        )
    return Judgement(section, "good", f"core repulsion for every pair: {', '.join(summary.repulsion)}")


def speed(summary: RunSummary) -> Judgement:
    """Atoms in a second: student and teacher on one core and the same cell where both were timed so."""
    section, cores = "speed", "one core each, the same cell"
    student, teacher = (
        max(summary.metrics(step).get("speed", {}).get("atoms_per_s", {}).values(), default=None)
        for step in ("student_properties", "teacher_properties")
    )
    if student is None or teacher is None:
        microseconds = summary.metrics("evaluate").get("student_us_per_atom")
        student = microseconds and 1e6 / microseconds
        teacher, cores = summary.labelling.atoms_per_s, "the student on one core, the teacher as it labelled"
    if not student:
        return Judgement(section, "not measured", "the student was not timed")
    if not teacher:
        because = f"student {number(student)} atoms/s on one core; the teacher labelled nothing in this run"
        return Judgement(section, "not measured", because)
    reason = (
        f"student {number(student)} atoms/s, teacher {number(teacher)}: {number(student / teacher)} times ({cores})"
    )
    if student < FASTER * teacher:
        return Judgement(section, "check", reason, "Lower pacemaker.functions_per_element, order or cutoff.")
    return Judgement(section, "good", reason)


def invariants(summary: RunSummary) -> Judgement:
    """Symmetries of the energy, and agreement of its evaluators. A miss ends the run, so that there is no card."""
    figures = summary.metrics("pace_corerep").get("invariants", {}).get("figures", {})
    if not figures:
        return Judgement("invariants", "not measured", "no step of this run checked them")
    nearest = max(figures, key=lambda name: figures[name]["value"] / figures[name]["limit"])
    share = number(100 * figures[nearest]["value"] / figures[nearest]["limit"])
    words = INVARIANTS[nearest.partition("_")[0]]
    reason = f"{len(figures)} checks hold; the nearest to its limit ({words}) is at {share} % of it"
    return Judgement("invariants", "good", reason)


def exploration(summary: RunSummary) -> Judgement:
    """Runs of the finished student under the conditions of the config; only of a config that has some."""
    found = summary.exploration
    assert found
    last, survived = found.rounds[-1], sum(one.survived for one in found.rounds[-1].runs)
    most = number(100 * max((one.extrapolating for one in last.runs), default=0.0))
    reason = (
        f"{len(found.rounds)} rounds, {last.labels} labels; {survived} of {len(last.runs)} runs survived, {most}"
        " % of the steps extrapolate at most"
    )
    if found.unsettled_because:
        todo = "Raise explore.rounds or explore.max_labels, or make the conditions milder."
        return Judgement("exploration", "fails", f"{reason}; {found.unsettled_because}", todo)
    return Judgement("exploration", "good", reason)


RULES: tuple[Callable[[RunSummary], Judgement], ...] = (
    errors,
    properties,
    own_trajectory,
    stability,
    extrapolation,
    short_distances,
    speed,
    invariants,
)
