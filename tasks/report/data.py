"""Sections of the report about the data: labels and their selection, pairs of elements, coverage. Pure."""

from __future__ import annotations

from containers.labels.pool_labels import REJECTIONS
from containers.structures.distances import touching
from tasks.report.markup import Picture, Section, Table, duration, number, percent
from tasks.report.summary import RunSummary


def labels(summary: RunSummary) -> Section:
    """Labels, the speed of labelling, rejections and selection."""
    counts, selection, work = summary.labels, summary.selection, summary.labelling
    how = f" ({number(selection.how)})" if selection.how else ""
    rows = [
        ("labels computed in this run", number(counts.computed)),
        ("labels reused", number(counts.reused)),
        ("structures rejected (see rejected.parquet)", number(counts.rejected)),
        ("labelled structures", number(selection.pool)),
        ("candidates for training among them", number(selection.candidates)),
        ("structures set aside before the fit (see set_aside.parquet)", number(selection.set_aside)),
        ("structures selected", number(selection.selected) + how),
    ]
    if selection.scarce_elements:
        name = "elements with too few environments to choose from: the selection took all that the budget allows"
        rows.append((name, ", ".join(selection.scarce_elements)))
    if work.computed:
        rows += [
            ("structures labelled per second", number(work.structures_per_s)),
            ("atoms labelled per second", number(work.atoms_per_s)),
            ("time of the labelling: start and calibration", duration(work.seconds_start)),
            ("time of the labelling: neighbour lists", duration(work.seconds_neighbours)),
            ("time of the labelling: model", duration(work.seconds_model)),
            ("time of the labelling: reading and writing", duration(work.seconds_io)),
            ("time of the labelling: the flow itself", duration(work.seconds_flow)),
        ]
    reasons = sorted(counts.rejected_by.items(), key=lambda item: (-item[1], item[0]))
    rejections = [(f"structures {REJECTIONS[kind]}", number(count)) for kind, count in reasons]
    return Section(
        "Labels and selection",
        [
            Table((), rows),
            Picture("forces", "Atoms by the force on them"),
            Table((), rejections, "Why structures were rejected (one may have several reasons):"),
        ],
    )


def pairs(summary: RunSummary) -> Section:
    """Pairs of elements that the training set has."""
    rows = []
    for pair, splits in summary.metrics("frames").get("pairs", {}).items():
        shortest_A = splits["train"]["shortest_A"]
        if shortest_A is None:
            known = "nothing, except a core repulsion if the config has one"
        else:
            known = "larger distances only, no bonds" if shortest_A > touching(pair) else "bonds"
        train, *others = (number(splits[split]["structures"]) for split in ("train", "validation", "test"))
        rows.append((pair, train, number(shortest_A), *others, known))
    head = ("pair", "structures", "shortest (Å)", "in validation", "in test", "training covers")
    caption = (
        f"The training set has structures with every element: {', '.join(summary.elements)}. The table shows what it"
        " has of each pair within the cutoff. Do not trust the potential for a pair that is not there."
    )
    return Section("Elements and pairs in the training set", [Table(head, rows, caption)])


def grades(summary: RunSummary) -> Section:
    """Extrapolation grades of pool and test structures before and after the selection."""
    when = {"before": "before: with DFT data and structures that were given", "after": "after the selection"}
    rows = []
    for split, grades in summary.selection.grades.items():
        for key, words in when.items():
            if found := grades.get(key):
                shares = (percent(found[share]) for share in ("share_above_1", "share_above_5"))
                rows.append((f"{split} structures", words, number(found["atoms"]), number(found["max"]), *shares))
    head = ("structures", "when", "atoms", "largest γ", "share above 1", "share above 5")
    caption = (
        "Extrapolation grade γ of every atom for the basis before the fit. Up to 1, the atom lies within the range of"
        " the training set."
    )
    picture = Picture("grades", "Atoms by extrapolation grade, before and after the selection")
    return Section("Coverage of the selection", [Table(head, rows, caption), picture])
