"""`seed_pool`: the first pool, made of a few structures of the user.

The student of this pool must survive gentle molecular dynamics; exploration finds the rest. Crystals are strained,
repeated, lose an atom, are cut, alloyed and disordered; slabs, molecules and charged structures keep their atoms. Each
seed takes its turn, and each kind of its copies: a kind that has no more leaves its share to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, StepMetrics
from containers.properties.crystals import LARGEST, conventional
from containers.structures.cells import bare
from containers.structures.table import STATE, read_atoms, structure_id, structures_table, write_table
from containers.tensorpot.exploration.changes import (
    WIDTH_A,
    Miller,
    alloyed,
    atomic_volumes,
    enlarged,
    face_name,
    faces,
    widened,
)
from containers.tensorpot.exploration.copies import OF_CRYSTALS, OF_MOLECULES, OF_SLABS, SYMMETRY_A, Maker, Plan, Seed

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {"seeds": "structures of the user's files (Parquet of STRUCTURES, from ingest)"}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES, by id
    "starts": "starts.parquet",  # the same columns; clean structures, by seed and kind
}
ALLOYED = (0.25, 0.5)  # share of the sites that other elements take in starts
SPARE = 3  # structures drawn for each one wanted, at most: some may be equal
Start = Literal["bulk", "vacancy", "slab", "alloy", "molecule"]
T = TypeVar("T")


class Params(Closed):
    """Size of the pool and kinds of its structures."""

    structures: int = Field(200, ge=1, description="of all seeds and kinds together")
    seed: int = Field(42, ge=0, description="of strains, displacements, vacancies and compositions")
    vacancies: bool = Field(True, description="supercells without one atom of each element")
    slabs: bool = Field(True, description="slabs of the faces of low index")
    faces: tuple[Miller, ...] = Field(
        (),
        description="Miller indices of the slabs from which runs start, of the conventional cell. Empty: the lowest",
    )
    substitutions: dict[str, tuple[str, ...]] = Field(
        {},
        description="element -> elements that may take its sites in alloys. Empty: metals take the sites of metals, and"
        " elements of one column of the periodic table each other's, among the elements of all seeds",
    )
    most_atoms: int = Field(100, ge=8, description="of a structure of the pool; a start may have twice as many")
    start_atoms: int = Field(64, ge=1, description="of a start of a crystal or a slab, at least")

    @model_validator(mode="after")
    def _sizes_and_elements(self) -> Params:
        if self.start_atoms > 2 * self.most_atoms:
            raise ValueError(
                f"start_atoms ({self.start_atoms}) is more than twice most_atoms ({self.most_atoms}): lower start_atoms"
                " or raise most_atoms"
            )
        names = {*self.substitutions, *(symbol for partners in self.substitutions.values() for symbol in partners)}
        if unknown := sorted(names - set(atomic_numbers)):
            raise ValueError(f"substitutions: no element is called {', '.join(unknown)}")
        for element, partners in self.substitutions.items():
            if not partners or element in partners:
                raise ValueError(f"substitutions: give {element} other elements than itself, at least one")
        return self


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    structures: int
    atoms: int
    starts: int
    by_kind: dict[str, int]
    families: int
    left_out: dict[str, str]  # seed, or kind and seed -> the reason


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the pool and the starts; raises `BadInput` when no seed gives anything."""
    left_out: dict[str, str] = {}
    seeds = usable_seeds(read_atoms(inputs.one("seeds")), params, left_out)
    plan = Plan(
        params.seed,
        faces=cut_faces(seeds, params, left_out),
        exchange=exchange(seeds, params),
        volumes_A3=atomic_volumes(seed.atoms for seed in seeds if seed.along.all()),
    )
    streams = [copies(seed, plan, params, first) for first, seed in enumerate(seeds)]
    made: dict[str, Atoms] = {}
    for atoms in islice(in_turns(streams), SPARE * params.structures):
        made.setdefault(atoms.info["id"], atoms)
        machine.progress(len(made), params.structures, "structures")
        if len(made) == params.structures:
            break
    clean = {atoms.info["id"]: atoms for seed in seeds for atoms in starts(seed, plan, params)}
    return write(outputs, list(made.values()), list(clean.values()), left_out)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write displaced copies of the seeds, each a family, and a start of each kind."""
    seeds = [as_seed(atoms, params) for atoms in read_atoms(inputs.one("seeds"))]
    pool = []
    for number in range(params.structures):
        seed = seeds[number % len(seeds)]
        atoms = seed.atoms.copy()
        atoms.rattle(0.1, seed=number)
        pool.append(named(seed, atoms, "strain", f"strain {number}", number))
    kinds = [(seeds[number % len(seeds)], kind) for number, kind in enumerate(get_args(Start))]
    clean = [named(seed, seed.atoms * (1 + number, 1, 1), kind, kind, 0) for number, (seed, kind) in enumerate(kinds)]
    return write(outputs, pool, clean, {})


def as_seed(atoms: Atoms, params: Params) -> Seed:
    """Return the seed of a row of the table."""
    info = atoms.info
    place, state = f"{info['source']}, row {info['row']}", info.get(STATE, "")
    return Seed(atoms, info["id"], place, info["family"] or info["id"], state, params.most_atoms)


def usable_seeds(structures: Iterable[Atoms], params: Params, left_out: dict[str, str]) -> list[Seed]:
    """Return the seeds of which copies can be made; `left_out` takes the others with the reason."""
    seeds = [as_seed(atoms, params) for atoms in structures]
    for seed in seeds:
        if len(seed.atoms) == 1 and not seed.along.any():
            left_out[seed.place] = "a single atom with nothing around it"
        elif len(seed.small) > params.most_atoms:
            left_out[seed.place] = f"{len(seed.small)} atoms, more than most_atoms ({params.most_atoms})"
    if found := [seed for seed in seeds if seed.place not in left_out]:
        for seed in found[params.structures :]:
            left_out[seed.place] = f"there are more seeds than structures ({params.structures})"
        return found[: params.structures]
    reasons = "; ".join(f"{place}: {reason}" for place, reason in left_out.items()) or "there is none"
    raise BadInput(
        f"no seed gives structures for a first pool: {reasons}. Give a crystal (one cell is enough), a slab or a"
        " molecule of at most most_atoms atoms"
    )


def exchange(seeds: Iterable[Seed], params: Params) -> dict[str, tuple[str, ...]]:
    """Return which elements may take the sites of an element; `BadInput` for one that no seed has."""
    from pymatgen.core import Element

    found = sorted({symbol for seed in seeds for symbol in seed.atoms.symbols})
    if missing := sorted(set(params.substitutions) - set(found)):
        raise BadInput(f"substitutions: no seed has {', '.join(missing)}; the seeds have {', '.join(found)}")
    if params.substitutions:
        return params.substitutions
    elements = {symbol: Element(symbol) for symbol in found}

    def fit(one: Element, other: Element) -> bool:
        return one != other and ((one.is_metal and other.is_metal) or one.group == other.group)

    partners = {a: tuple(b for b in found if fit(elements[a], elements[b])) for a in found}
    return {symbol: others for symbol, others in partners.items() if others}


def makers_of(seed: Seed, params: Params) -> dict[str, Maker]:
    """Return the kinds of copies of a seed by name."""
    if seed.along.all() and not seed.state:
        leaves_out = {"vacancy"} if not params.vacancies else set()
        leaves_out |= {"slab"} if not params.slabs else set()
        return {kind: maker for kind, maker in OF_CRYSTALS.items() if kind not in leaves_out}
    if not seed.along.any():
        return OF_MOLECULES
    return OF_SLABS if not seed.state else {"rattle": OF_SLABS["rattle"]}


def cut_faces(seeds: Iterable[Seed], params: Params, left_out: dict[str, str]) -> dict[str, list[tuple[str, Atoms]]]:
    """Return the slabs of each crystal by its id; `left_out` takes a crystal without one and the reason."""
    found: dict[str, list[tuple[str, Atoms]]] = {}
    for seed in seeds:
        if "slab" not in makers_of(seed, params):
            continue
        reason = f"every slab has more than most_atoms ({params.most_atoms})"
        if len(seed.primitive) > LARGEST:
            reason = f"the primitive cell has more than {LARGEST} atoms: it has as many faces"
        else:
            try:
                cut = faces(conventional(seed.atoms, SYMMETRY_A), params.faces)
                found[seed.id] = [(name, slab) for name, slab in cut if len(slab) <= params.most_atoms]
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  pymatgen fails in any way where a crystal is odd
                reason = f"{type(error).__name__}: {error}"
        if not found.get(seed.id):
            left_out[f"slab of {seed.place}"] = reason
    return found


def copies(seed: Seed, plan: Plan, params: Params, first: int) -> Iterator[Atoms]:
    """Yield copies of a seed, of each kind in turn, from the `first` kind: so many seeds have copies of all kinds."""

    def of_kind(kind: str, maker: Maker) -> Iterator[Atoms]:
        random = np.random.default_rng([params.seed, int(seed.id[:16], 16), *kind.encode()])
        for number, (family, atoms) in enumerate(maker(seed, plan, random)):
            yield named(seed, atoms, kind, family, number)

    streams = [of_kind(kind, maker) for kind, maker in makers_of(seed, params).items()]
    first %= len(streams)
    return in_turns(streams[first:] + streams[:first])


def in_turns(streams: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield one of each stream, again and again; one that has ended is left out."""
    waiting = list(streams)
    while waiting:
        for stream in tuple(waiting):
            try:
                yield next(stream)
            except StopIteration:
                waiting.remove(stream)


def named(seed: Seed, atoms: Atoms, kind: str, family: str, number: int) -> Atoms:
    """Return the structure with id, source, row, group and family, and with the seed's state where it has one."""
    atoms = bare(atoms)
    atoms.info = {"id": structure_id(atoms, seed.state), "source": f"{kind} of {seed.place}", "row": number}
    atoms.info |= {"group": kind, "family": f"{family} of {seed.family}"} | ({STATE: seed.state} if seed.state else {})
    return atoms


def starts(seed: Seed, plan: Plan, params: Params) -> Iterator[Atoms]:
    """Yield clean structures for molecular dynamics; a molecule and what has a state stay as they are."""
    most, crystal = 2 * params.most_atoms, bool(seed.along.all())
    random = np.random.default_rng([params.seed, int(seed.id[:16], 16)])
    if seed.state or not crystal:
        kind = "bulk" if crystal else "slab" if seed.along.any() else "molecule"
        wanted = 1 if seed.state else params.start_atoms
        yield named(seed, enlarged(seed.atoms, seed.along, wanted, WIDTH_A * (not seed.state), most), kind, kind, 0)
        return
    bulk = seed.supercell(params.start_atoms, most)
    yield named(seed, bulk, "bulk", "bulk", 0)
    for number, element in enumerate(sorted(set(bulk.symbols)) if params.vacancies and len(bulk) > 1 else []):
        lacking = bulk.copy()
        del lacking[int(np.flatnonzero(bulk.symbols == element)[0])]
        yield named(seed, lacking, "vacancy", f"vacancy {element}", number)
    cuts = dict(plan.faces.get(seed.id, []))
    names = [next((name for name in cuts if name.startswith(face_name(face))), "") for face in params.faces]
    for number, name in enumerate(filter(None, names) if params.faces else list(cuts)[:1]):
        yield named(seed, widened(cuts[name], params.start_atoms, most), "slab", name, number)
    if not set(plan.exchange).isdisjoint(bulk.symbols):
        for number, share in enumerate(ALLOYED):
            made = alloyed(bulk, plan.exchange, plan.volumes_A3, random, share)
            yield named(seed, made, "alloy", f"alloy {made.get_chemical_formula()}", number)


def write(outputs: Path, pool: list[Atoms], clean: list[Atoms], left_out: dict[str, str]) -> dict[str, Any]:
    """Write both tables; return the metrics."""
    pool = sorted(pool, key=lambda atoms: str(atoms.info["id"]))
    write_table(outputs / OUTPUTS["structures"], structures_table(pool))
    write_table(outputs / OUTPUTS["starts"], structures_table(clean))
    return {
        "structures": len(pool),
        "atoms": sum(map(len, pool)),
        "starts": len(clean),
        "by_kind": dict(sorted(Counter(str(atoms.info["group"]) for atoms in pool).items())),
        "families": len({atoms.info["family"] for atoms in pool}),
        "left_out": left_out,
    }
