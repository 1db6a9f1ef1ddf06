"""Pictures of properties, teacher and student in one: energy over volume, phonons, dimer curves. Pure.

The teacher is a solid black line, the student a dashed blue one, so that print without colours shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from containers.properties.molecules import Dimer
from containers.properties.results import Crystal, Properties
from tasks.report.plots import BLACK, BLUE, GREY, MOST_PAIRS, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEACHER: dict[str, Any] = {"color": BLACK, "ls": "-", "lw": 1.2}
STUDENT: dict[str, Any] = {"color": BLUE, "ls": "--", "lw": 1.6}
STEEP_eV = 20.0  # a curve that rises higher has a scale that is linear within 1 eV
WIDTH_THz = 0.2  # of a mode in the density of states


def crystals(teacher: Properties, student: Properties) -> list[bytes]:
    """For each crystal of the teacher: energy over volume, phonon bands, phonon density of states."""
    found = {one.name: one for one in student.crystals}
    drawn = []
    for one in teacher.crystals:
        figure = drawing(9.2, 3.2)
        volumes, bands, states = (figure.add_subplot(1, 3, place) for place in (1, 2, 3))
        both = ((one, TEACHER, "teacher"), (found.get(one.name), STUDENT, "student"))
        for crystal, style, label in both:
            if crystal is not None:
                draw_curves(volumes, bands, crystal, label, style)
                if crystal.frequencies_THz:
                    states.plot(*density_of_states(crystal), label=label, **style)
        states.set(xlabel="frequency (THz)", ylabel="modes per THz and cell")
        volumes.set_title(one.name, fontsize=9)
        add_legends(volumes, bands, states)
        drawn.append(png(figure))
    return drawn


def draw_curves(volumes: Axes, bands: Axes, crystal: Crystal, label: str, style: dict[str, Any]) -> None:
    """Draw energy over volume, and phonon bands over a path that ends at 1: its length depends on the lattice."""
    volumes.set(xlabel="volume (Å³/atom)", ylabel="energy above the lowest (meV/atom)")
    bands.set(xlabel="path through the zone", ylabel="frequency (THz)")
    if crystal.equation_of_state:
        volume, energy = np.array(crystal.equation_of_state).T
        volumes.plot(volume, 1000 * (energy - energy.min()), label=label, **style)
    if crystal.bands_THz and crystal.band_x and crystal.band_path:
        end = crystal.band_x[-1]
        lines = bands.plot(np.array(crystal.band_x) / end, np.array(crystal.bands_THz), **style)
        lines[0].set_label(label)
        bands.set_xticks(*special_points([(name, x / end) for name, x in crystal.band_path]), fontsize=8)
        bands.axhline(0, color=GREY, lw=0.6)


def add_legends(*every: Axes) -> None:
    """Add a legend to each of the axes that has a labelled curve."""
    for axes in every:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)


def special_points(path: Sequence[tuple[str, float]]) -> tuple[list[float], list[str]]:
    """Return places and names on the path; of two that are too near to read, the first has the name."""
    near = 0.06 * max(x for _, x in path)
    names: list[str] = []
    last = -np.inf
    for name, x in path:
        clear = x - last >= near
        names.append({"G": "Γ"}.get(name, name) if clear else "")
        last = x if clear else last
    return [x for _, x in path], names


def density_of_states(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies (THz) and modes per THz of the primitive cell, each mode of the mesh as wide as WIDTH_THz."""
    mesh = np.array(crystal.frequencies_THz)
    along = np.linspace(min(mesh.min(), 0) - 3 * WIDTH_THz, mesh.max() + 3 * WIDTH_THz, 300)
    bells = np.exp(-(((along[:, None] - mesh.ravel()) / WIDTH_THz) ** 2) / 2)
    return along, bells.sum(axis=1) / (WIDTH_THz * np.sqrt(2 * np.pi) * len(mesh))


def dimers(teacher: dict[str, Dimer], student: dict[str, Dimer]) -> bytes:
    """Energy over distance of the first MOST_PAIRS pairs, three in a row.

    Args:
        teacher: one pair at least.
    """
    shown = list(teacher)[:MOST_PAIRS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = drawing(max(3.06 * columns, 5.0), 2.9 * rows)
    for place, pair in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, place)
        curves: Sequence[tuple[Dimer | None, dict[str, Any], str]] = (
            (teacher[pair], TEACHER, "teacher"),
            (student.get(pair), STUDENT, "student"),
        )
        for curve, style, label in curves:
            if curve is not None:
                axes.plot(curve.distance_A, curve.energy_eV, marker=".", ms=4, label=label, **style)
        axes.axhline(0, color=GREY, lw=0.6)
        if max(map(abs, teacher[pair].energy_eV), default=0) > STEEP_eV:
            axes.set_yscale("symlog", linthresh=1)
        axes.set(xlabel="distance (Å)", ylabel="energy (eV)")
        axes.set_title(pair, fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)
