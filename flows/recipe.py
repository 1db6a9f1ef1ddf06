"""What the config means for this teacher and this pool: every `auto` resolved, every disagreement refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from containers.contract import BadInput, Closed
from containers.mace.teacher_info import Teacher, choose_head
from containers.split import Split, empty_sides, empty_sides_message
from containers.tensorpot.pacemaker_input import Potential
from flows.config import DistillConfig
from tasks.errors import UserError


class Recipe(Closed):
    """The resolved choices of a distillation."""

    config: DistillConfig
    head: str
    e0s_eV: dict[str, float]
    potential: Potential


def resolve(config: DistillConfig, teacher: Teacher, found: set[str]) -> Recipe:
    """The recipe for a teacher and the elements `found` in pool and DFT data.

    Raises:
        UserError: an element that the teacher does not know or the config leaves out; no or a wrong head.
    """
    try:
        head = choose_head(teacher, config.teacher.head)
    except BadInput as error:
        raise UserError(f"teacher.head: {error}") from None
    elements = _elements(config, teacher, found)
    pacemaker = config.pacemaker
    potential = Potential(
        elements=elements,
        cutoff=teacher.r_max_A if pacemaker.cutoff == "auto" else pacemaker.cutoff,
        order=pacemaker.order,
        functions_per_element=pacemaker.functions_per_element,
        b_basis=pacemaker.b_basis,
    )
    _check_section(potential)
    e0s = {element: teacher.e0s_eV[head][element] for element in elements}
    return Recipe(config=config, head=head, e0s_eV=e0s, potential=potential)


def check_sides(tables: Iterable[Path], split: Split) -> None:
    """Refuse data that leave a side empty, before anything is labelled; `tables` are ingested Parquet files."""
    families = {family for path in tables for family in pq.read_table(path, columns=["family"])["family"].to_pylist()}
    if empty := empty_sides(families, split):
        raise UserError(empty_sides_message(empty, families, split))


def _elements(config: DistillConfig, teacher: Teacher, found: set[str]) -> tuple[str, ...]:
    wanted = found if config.pacemaker.elements == "auto" else set(config.pacemaker.elements)
    if unknown := sorted((wanted | found) - set(teacher.elements)):
        place = "the data" if set(unknown) <= found else "pacemaker.elements"
        raise UserError(
            f"the teacher does not know {', '.join(unknown)} (in {place}); it knows {', '.join(teacher.elements)}."
            " Take those structures out, or bring a teacher trained on them."
        )
    if left_out := sorted(found - wanted):
        raise UserError(
            f"pacemaker.elements leaves out {', '.join(left_out)}, which the data contain."
            " Add them, or take those structures out of the pool."
        )
    return tuple(sorted(wanted))


def _check_section(potential: Potential) -> None:
    try:
        potential.section()
    except BadInput as error:
        raise UserError(f"pacemaker.b_basis: {error}") from None
