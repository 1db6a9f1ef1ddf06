"""Warnings about the frames of the user's files, from the counts of `ingest`: SCF, cells, charges and spins. Pure."""

from __future__ import annotations

from containers.ingest import ingest


def frame_warnings(found: ingest.Metrics, of: str) -> list[str]:
    """Return the warnings about the frames `of` some files, such as the pool."""
    texts = []
    if count := found.unconverged:
        texts.append(
            f"{count} frames of DFT files are not used, because their SCF did not converge; the first:"
            f" {found.unconverged_first} (all of them: set_aside.parquet of step ingest)"
        )
    texts += [
        f"{name} ({of}): {frames} of its frames have no cell, the first is frame {first} (from 0), although others have"
        " one; they are taken as molecules or clusters without periodicity. Crystals need their cell in each frame"
        for name, (frames, first) in found.some_without_cell.items()
    ]
    texts += [  # crystals would be labelled as clusters
        f"{name} ({of}): none of its {frames} frames has a cell; they are taken as molecules or clusters without"
        ' periodicity. Crystals need their cell: in extended XYZ, Lattice="ax ay az bx by bz cx cy cz" (Å) in the'
        " comment line of each frame"
        for name, frames in found.files_without_cell.items()
    ]
    states = found.states
    if count := states["noted"].get("not_read"):
        texts.append(
            f"{count} frames of the {of} have a charge or a spin that the teacher does not read: it labels them like"
            f" any other frame. The first: {states['first']['not_read']}."
        )
    texts += [
        f"{count} frames of the {of} do not say {name}, which the teacher reads: MACE's default is taken."
        for name, count in states["unsaid"].items()
        if name != "external_field"
    ]
    if count := states["noted"].get("odd_spin"):
        texts.append(
            f"{count} frames of the {of} have a total spin that their number of electrons does not allow. MACE's total"
            " spin is the multiplicity 2S + 1: 1 for a closed shell, 2 for one unpaired electron. The first:"
            f" {states['first']['odd_spin']}."
        )
    if states["distinct"] > 1:
        listed, both = ", ".join(f"{state}: {count}" for state, count in states["frames"].items()), ""
        if count := states["formulas_in_several"]:
            both = f" {count} compositions are in more than one state (the first: {states['first']['formula']})."
        texts.append(
            f"the {of} and the data it is read beside are in {states['distinct']} states ({of}: {listed}).{both} A"
            " student has no charge and no spin as input: it fits one energy surface to all of them. Distil one student"
            " for each state, unless the structure decides the state."
        )
    return texts
