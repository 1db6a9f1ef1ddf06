"""The config resolved for this teacher and this pool: every `auto` has its value, every disagreement is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from statistics import fmean
from typing import Literal

import pyarrow.parquet as pq
from pydantic import Field

from containers.contract import BadInput, Closed
from containers.labels.bounds import Sanity
from containers.mace.exploration.formulas import counts
from containers.mace.teacher.description import Teacher, choose_head
from containers.structures.split import Split, empty_sides, empty_sides_message
from containers.tensorpot.baseline.baseline import LennardJones
from containers.tensorpot.core.inner_radius import check_r_in
from containers.tensorpot.pacemaker.input import Fit, Loss, Optimizer, Potential, Randomness, Schedule
from containers.tensorpot.pacemaker.own_keys import check_blocks, own_fit
from containers.tensorpot.selection.coverage import Tables, never_trained
from flows.config.exploration import Explore
from flows.config.schema import Dataset, DistillConfig, Selection
from flows.config.training import PropertiesConfig, Stability, Stage, Trajectory
from tasks.errors import UserError

MOST_OF_BFGS = 20_000
"""Parameters. BFGS keeps the square of them: 3.2 GB, and half a second of one core an iteration."""
WIDE = 1.1
"""Times the teacher's r_max: measured on silicon, where 1.2 times gave nothing more (docs/use/training.md)."""


FIRST_STAGE, LATER_STAGE = 5, 20
"""Parameters for each automatic iteration: 300 and 75 iterations for 1,500 of silicon (docs/use/training.md)."""


class Recipe(Closed):
    """A config resolved for its teachers and data, from which the step calls are made.

    A section, and a key of `teacher`, `train` or `pacemaker`, keeps its name here where it is taken as it is.
    Another config is resolved anew (`Resolved.with_config`). `auto` is left only where a step decides by its own data:
    kappa, batch_size, r_in_A, lj, stability.timestep_fs, trajectory.temperatures_K.
    """

    head: str
    dtype: Literal["float32", "float64"] = Field(description="of the labels' computation")
    max_force_std: float | None = Field(description="eV/Å, of a committee of teachers")
    teacher_e0s_eV: dict[str, float] = Field(description="mean of the teachers' reference energies, by element")
    labels: Sanity
    dft_energies: Literal["refuse", "align"]
    dataset: Dataset
    split: Split
    selection: Selection
    potential: Potential
    reference_potential: Literal["none", "zbl", "lj"]
    learns_difference: bool = Field(description="the labels are taken relative to the reference potential")
    r_in_A: Literal["auto"] | dict[str, float]
    lj: Literal["auto"] | dict[str, LennardJones]
    weight_dft: float
    energy_weights: bool
    energy_scale_eV_per_atom: float
    force_scale_eV_per_A: float
    loss_energy: float = Field(description="beside loss_stress: decides the weight of a strained structure")
    loss_stress: float = Field(description="above 0: strained structures are labelled and fitted to")
    stages: tuple[Fit, ...] = Field(min_length=1, description="the fits one after another, each at its first attempt")
    staged: bool = Field(description="the config names stages, and the task runs say which")
    seed: int
    max_attempts: int
    threads: int | None = Field(description="of a fit; None: the cores of the machine that it runs on")
    stability: Stability
    trajectory: Trajectory
    properties: PropertiesConfig
    explore: Explore


def resolve(config: DistillConfig, teachers: Sequence[Teacher], in_pool: set[str], in_dft: set[str]) -> Recipe:
    """Return the recipe for the teachers (the first and its committee) and the elements found in pool and DFT data.

    Structures of the pool with an element that a teacher does not know are set aside later, so they refuse nothing
    here as long as another element is known.

    Raises:
        UserError: an element that a teacher does not know or the config lacks; no or a wrong head.
    """
    head = common_head(config, teachers)
    elements = _elements(config, teachers, in_pool, in_dft)
    pacemaker = config.pacemaker
    basis = {name: getattr(pacemaker, name) for name in Potential.model_fields}
    if isinstance(pacemaker.cutoff, str):
        reach = max(teacher.r_max_A for teacher in teachers)
        basis["cutoff"] = reach if pacemaker.cutoff == "auto" else round(WIDE * reach, 3)
    potential = Potential(**basis | {"elements": elements})
    try:
        potential.check_functions()
        check_blocks(own_fit(pacemaker.fit), elements)
    except BadInput as error:
        raise UserError(f"pacemaker.{error}") from None
    _check_names(config, elements, potential.cutoff)
    sections = (config, config.teacher, config.train, pacemaker)
    given = {name: getattr(section, name) for section in sections for name in type(section).model_fields}
    found = {
        "head": head,
        "teacher_e0s_eV": {element: fmean(one.e0s_eV[head][element] for one in teachers) for element in elements},
        "dft_energies": config.dft.energies,
        "potential": potential,
        "learns_difference": pacemaker.learns_difference,
        "stages": stages_of(config, potential),
        "staged": bool(config.train.stages),
        "threads": None if config.train.threads == "auto" else config.train.threads,
    }
    return Recipe(**{name: value for name, value in (given | found).items() if name in Recipe.model_fields})


def stages_of(config: DistillConfig, potential: Potential) -> tuple[Fit, ...]:
    """Return the losses that are fitted one after another, one at least.

    Automatic iterations are in proportion to the parameters: BFGS learns a curvature for each of them.
    """
    train, pacemaker = config.train, config.pacemaker
    parameters = potential.functions().parameters
    automatic: Optimizer = "BFGS" if parameters <= MOST_OF_BFGS else "L-BFGS-B"
    one = Fit(
        **{name: getattr(train, name) for name in (*Schedule.model_fields, *Randomness.model_fields)},
        optimizer=automatic if train.optimizer == "auto" else train.optimizer,
        core=pacemaker.reference_potential == "zbl" and not pacemaker.learns_difference,
        fit=pacemaker.fit,
        backend=pacemaker.backend,
    )
    stages = train.stages or [Stage(kappa=pacemaker.force_share, maxiter=train.maxiter)]
    found = []
    for place, stage in enumerate(stages):
        maxiter = stage.maxiter
        if maxiter == "auto":
            maxiter = max(1, parameters // (LATER_STAGE if place else FIRST_STAGE))
        loss = Loss(kappa=stage.kappa, l1=train.l1, l2=train.l2)
        found.append(one.model_copy(update={"loss": loss, "maxiter": maxiter}))
    return tuple(found)


def check_committee(models: Mapping[str, str]) -> None:
    """Refuse a committee that has the same model twice.

    Args:
        models: name in the config -> sha256.
    """
    seen: dict[str, str] = {}
    for name, digest in models.items():
        if (same := seen.setdefault(digest, name)) != name:
            raise UserError(f"teacher.committee: {name} is the same model as {same}. Give each model once.")


def check_compositions(config: DistillConfig, teachers: Sequence[Teacher]) -> None:
    """Refuse a composition with an element that a teacher does not know, before anything runs."""
    for composition in config.explore.compositions:
        for teacher in teachers:
            if strange := sorted(set(counts(composition)) - set(teacher.elements)):
                raise UserError(
                    f"explore.compositions: {composition} has {strange[0]}, which the teacher does not know; it knows"
                    f" {', '.join(teacher.elements)}. Take {composition} out, or bring a teacher trained on it."
                )


def check_split(tables: Tables, split: Split) -> None:
    """Refuse data that leave training, validation or test empty, before anything is labelled."""
    paths = [*tables.new.values(), *([tables.base] if tables.base else [])]
    families = {family for path in paths for family in pq.read_table(path, columns=["family"])["family"].to_pylist()}
    if strangers := [family for family in split.train if family not in families]:
        raise UserError(f"split.train: no structure of pool or DFT data has the family {strangers[0]!r}. Take it out.")
    if empty := empty_sides(families, split):
        raise UserError(empty_sides_message(empty, families, split))


def check_elements(recipe: Recipe, tables: Tables) -> None:
    """Refuse elements of the potential that training never sees, before anything is labelled."""
    potential, split = recipe.potential, recipe.split
    messages = []
    for element, found in never_trained(potential.elements, potential.cutoff, tables, split).items():
        untrained = f"no structure of the training split has {element}, so the potential would know nothing of it."
        if not found:
            messages.append(f"pacemaker.elements: {untrained} Take {element} out, or give structures that have it.")
            continue
        movable = sorted({one.place.family for one in found if not one.reason and not one.settled})
        more = f", or put a family in the training split (split: {{train: [{movable[0]!r}]}})" if movable else ""
        messages.append(
            f"{untrained} It is in {len(found)} structure{'s' if len(found) > 1 else ''}; the first: {found[0]}."
            f" Give structures with {element} of more families{more}, or take those structures out."
        )
    if messages:
        raise UserError("\n".join(messages))


def common_head(config: DistillConfig, teachers: Sequence[Teacher]) -> str:
    """Return the head that every teacher has; `UserError` where there is none."""
    names = (config.teacher.model, *config.teacher.committee)
    heads: dict[str, str] = {}
    for name, teacher in zip(names, teachers, strict=True):
        try:
            heads.setdefault(choose_head(teacher, config.teacher.head), name)
        except BadInput as error:
            raise UserError(f"teacher.head: {name}: {error}") from None
    if len(heads) > 1:
        each = ", ".join(f"{head} ({name})" for head, name in heads.items())
        raise UserError(f"teacher.head: the heads of a committee must have one name, these have {each}")
    return next(iter(heads))


def _elements(
    config: DistillConfig, teachers: Sequence[Teacher], in_pool: set[str], in_dft: set[str]
) -> tuple[str, ...]:
    known = set[str].intersection(*(set(teacher.elements) for teacher in teachers))
    if not known:
        names = (config.teacher.model, *config.teacher.committee)
        each = [f"{name} knows {', '.join(teacher.elements)}" for name, teacher in zip(names, teachers, strict=True)]
        raise UserError(
            f"teacher.committee: the models have no element in common: {'; '.join(each)}."
            " Take models that know the elements of the pool."
        )
    found = (in_pool & known) | in_dft
    chosen = set() if config.pacemaker.elements == "auto" else set(config.pacemaker.elements)
    _check_known(in_dft - known, "the DFT data", teachers[0].elements, known)
    _check_known(chosen - known, "pacemaker.elements", teachers[0].elements, known)
    if not in_pool & known:
        _check_known(in_pool, "the pool, which has no other", teachers[0].elements, known)
    if chosen and (lacking := sorted(found - chosen)):
        them = "them" if len(lacking) > 1 else "it"
        raise UserError(
            f"pacemaker.elements lacks {', '.join(lacking)}, but the data contain {them}."
            f" Add {them}, or take those structures out of the pool."
        )
    return tuple(sorted(chosen or found))


def _check_known(unknown: set[str], place: str, order: Sequence[str], known: set[str]) -> None:
    if unknown:
        raise UserError(
            f"the teacher does not know {', '.join(sorted(unknown))} (in {place}); it knows"
            f" {', '.join(element for element in order if element in known)}."
            " Take those structures out, or bring a teacher (all models of a committee) trained on them."
        )


def _check_names(config: DistillConfig, elements: Sequence[str], cutoff: float) -> None:
    """Refuse settings that name elements which the potential does not have, or that lack one."""
    pacemaker, e0s = config.pacemaker, config.dataset.reference_energies
    for key, by_pair in {"r_in_A": pacemaker.r_in_A, "lj": pacemaker.lj}.items():
        if isinstance(by_pair, dict) and (
            strange := [pair for pair in by_pair if set(pair.split("-")) - set(elements)]
        ):
            raise UserError(f"pacemaker.{key} names {strange[0]}, but the potential has {', '.join(elements)}.")
    pairs = {"-".join(pair) for pair in combinations_with_replacement(elements, 2)}
    if isinstance(pacemaker.r_in_A, dict):
        try:
            check_r_in(pacemaker.r_in_A, sorted(pairs), cutoff)
        except BadInput as error:
            raise UserError(f"pacemaker.{error}.") from None
    wanted = pacemaker.reference_potential == "lj" and isinstance(pacemaker.lj, dict)
    if wanted and (left := sorted(pairs - set(pacemaker.lj))):
        raise UserError(f"pacemaker.lj has no {', '.join(left)}: give every pair of elements, or set it to auto.")
    if isinstance(e0s, dict) and (missing := sorted(set(elements) - set(e0s))):
        raise UserError(f"dataset.reference_energies has no {', '.join(missing)}: add it (eV an atom).")
    for prototype in config.properties.prototypes:
        try:
            strange = sorted(set(prototype.atoms().symbols) - set(elements))
        except BadInput as error:
            raise UserError(f"properties.prototypes: {error}.") from None
        if strange:
            raise UserError(
                f"properties.prototypes has {prototype.formula}, but the potential has {', '.join(elements)}."
            )
