"""The first pool of known crystals, slabs and molecules."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine
from containers.structures.cells import heights, is_solid
from containers.structures.distances import shortest_distance, shortest_per_pair
from containers.structures.table import STATE, STRUCTURES, read_atoms, structure_id, structures_table, write_table
from containers.tensorpot.exploration import seed_pool
from containers.tensorpot.exploration.changes import VACUUM_A, VOLUME, pair_distances, rattled, strained
from containers.tensorpot.exploration.copies import CLOSEST, COPIES, OF_CRYSTALS
from containers.tensorpot.exploration.seed_pool import Params, in_turns

Made = tuple[list[Atoms], list[Atoms], dict[str, Any]]


def make(folder: Path, *seeds: Atoms, run: Any = seed_pool.run, **params: Any) -> Made:
    """Structures, starts and metrics of a run; seed number N is row N and family `family N`."""
    for row, atoms in enumerate(seeds):
        key = structure_id(atoms, atoms.info.get(STATE, ""))
        atoms.info |= {"id": key, "source": "seeds.xyz", "row": row, "group": "", "family": f"family {row}"}
    write_table(folder / "seeds.parquet", structures_table(seeds))
    (folder / "outputs").mkdir()
    metrics = run(Inputs({"seeds": (folder / "seeds.parquet",)}), folder / "outputs", Params(**params), Machine())
    seed_pool.Metrics.model_validate(metrics)
    tables = [folder / "outputs" / name for name in seed_pool.OUTPUTS.values()]
    assert all(pq.read_schema(table) == STRUCTURES for table in tables)
    pool, starts = map(read_atoms, tables)
    assert metrics["structures"] == len(pool) == len({atoms.info["id"] for atoms in pool})
    assert metrics["starts"] == len(starts) == len({atoms.info["id"] for atoms in starts})
    return pool, starts, metrics


def of_kind(structures: list[Atoms], kind: str) -> list[Atoms]:
    return [atoms for atoms in structures if atoms.info["group"] == kind]


def nickel() -> Atoms:
    return bulk("Ni", a=3.52)


def nickel_aluminium() -> Atoms:
    return bulk("NiAl", "cesiumchloride", a=2.88)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All kinds, of fcc nickel and B2 nickel-aluminium."""
    return make(tmp_path_factory.mktemp("all"), nickel(), nickel_aluminium(), structures=120, most_atoms=60)


def test_seeds_and_kinds_share_the_budget(made: Made) -> None:
    pool, _, metrics = made
    assert metrics["by_kind"] == dict.fromkeys(sorted(OF_CRYSTALS), 20)
    by_row = Counter(str(atoms.info["source"]).partition(" of ")[2] for atoms in pool)
    assert by_row == {"seeds.xyz, row 0": 60, "seeds.xyz, row 1": 60}
    assert max(map(len, pool)) <= 60
    assert metrics["families"] > 40
    assert metrics["left_out"] == {}


def test_no_two_atoms_come_nearer_than_their_share_of_the_seeds_distance(made: Made) -> None:
    """The distance in an alloy is that of the seed's lattice with the volume of its composition."""
    of_lattice = {
        "0": lambda volume: (4 * volume) ** (1 / 3) / 2**0.5,  # fcc
        "1": lambda volume: (2 * volume) ** (1 / 3) * 0.75**0.5,  # bcc
    }
    volumes = {"0": 3.52**3 / 4, "1": 2.88**3 / 2}
    for atoms in made[0]:
        row = str(atoms.info["source"])[-1]
        volume = atoms.get_volume() / len(atoms) if atoms.info["group"] == "alloy" else volumes[row]
        assert shortest_distance(atoms, 6.0) >= CLOSEST * of_lattice[row](volume) - 1e-9, atoms.info


def test_each_pair_of_elements_has_its_bound_even_where_atoms_move_far() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    moved = rattled(salt, 1.0, 0.9 * pair_distances(salt), np.random.default_rng(1))
    assert np.sqrt(((moved.positions - salt.positions) ** 2).mean()) > 0.1
    found = shortest_per_pair([moved], 6.0)
    assert min(found["Cl-Cl"], found["Na-Na"]) >= 0.9 * 5.64 / 2**0.5 - 1e-9
    assert found["Cl-Na"] >= 0.9 * 2.82 - 1e-9


def test_displacements_have_the_size_wanted_where_nothing_is_near() -> None:
    crystal = bulk("Cu") * 4
    free = rattled(crystal, 0.3, np.zeros((119, 119)), np.random.default_rng(1))
    assert np.std(free.positions - crystal.positions) == pytest.approx(0.3, rel=0.15)
    some = rattled(crystal, 0.3, np.zeros((119, 119)), np.random.default_rng(1), np.arange(5))
    assert (np.abs(some.positions - crystal.positions).max(axis=1) > 0).tolist() == [True] * 5 + [False] * 59


def test_volumes_cover_the_range_and_no_more() -> None:
    crystal, everywhere = bulk("Si"), np.ones(3, bool)
    states = [strained(crystal, everywhere, number, 1) for number in range(40)]
    volumes = np.array([atoms.get_volume() for atoms in states]) / crystal.get_volume()
    assert volumes[0] == 1
    assert VOLUME[0] <= volumes.min() < VOLUME[0] + 0.02
    assert VOLUME[1] - 0.02 < volumes.max() <= VOLUME[1]
    metric = [atoms.cell.array @ atoms.cell.array.T / atoms.cell.lengths()[0] ** 2 for atoms in states]
    assert np.allclose(metric[2], metric[0]), "every second state keeps the shape"
    assert not np.allclose(metric[3], metric[0], atol=0.01)


def test_copies_of_a_parent_share_its_family_and_other_strains_do_not(made: Made) -> None:
    by_family: dict[str, list[Atoms]] = {}
    for atoms in [*of_kind(made[0], "strain"), *of_kind(made[0], "alloy")]:
        by_family.setdefault(atoms.info["family"], []).append(atoms)
    assert max(map(len, by_family.values())) == COPIES + 1
    for copies in by_family.values():
        assert all(np.allclose(atoms.cell, copies[0].cell) for atoms in copies)
    assert len({str(copies[0].cell.array.round(9)) for copies in by_family.values()}) == len(by_family)


def test_the_crystal_without_strain_is_one_family_in_cells_of_any_size(made: Made) -> None:
    family = [atoms for atoms in made[0] if atoms.info["family"] == "strain 0 of family 0"]
    assert {atoms.info["group"] for atoms in family} == {"strain", "supercell"}
    assert np.allclose([atoms.get_volume() / len(atoms) for atoms in family], 3.52**3 / 4)


def test_vacancies_lack_one_atom_of_each_element(made: Made) -> None:
    large = of_kind(made[0], "supercell")
    whole = {dict(Counter(atoms.symbols)).get("Al", 0): Counter(atoms.symbols) for atoms in large}
    lacking = set()
    for atoms in of_kind(made[0], "vacancy"):
        missing = min((counts - Counter(atoms.symbols) for counts in whole.values()), key=Counter.total)
        assert missing.total() == 1
        lacking.add((atoms.info["source"], *missing))
    source = "vacancy of seeds.xyz, row"
    assert lacking == {(f"{source} 0", "Ni"), (f"{source} 1", "Ni"), (f"{source} 1", "Al")}


def test_slabs_have_vacuum(made: Made) -> None:
    slabs = [*of_kind(made[0], "slab"), *of_kind(made[1], "slab")]
    assert not any(is_solid(atoms, VACUUM_A - 3) for atoms in slabs)
    assert len({str(atoms.info["family"]).partition(" cut")[0] for atoms in slabs}) == 3, "(100), (110), (111)"


def test_compositions_are_those_of_the_names_and_volumes_are_linear(tmp_path: Path) -> None:
    pool, starts, _ = make(tmp_path, bulk("Cu", a=3.61), nickel(), structures=60, most_atoms=40, slabs=False)
    volumes = {"Cu": 3.61**3 / 4, "Ni": 3.52**3 / 4}
    alloys = [*of_kind(pool, "alloy"), *of_kind(starts, "alloy")]
    for atoms in alloys:
        assert str(atoms.info["family"]).startswith(f"alloy {atoms.get_chemical_formula()} of family")
        assert len(set(atoms.symbols)) == 2
        assert atoms.get_volume() == pytest.approx(sum(volumes[symbol] for symbol in atoms.symbols))
    assert len({atoms.info["family"] for atoms in alloys}) >= 5
    shares = [np.mean(atoms.symbols == "Cu") for atoms in of_kind(starts, "alloy")]
    assert sorted(shares) == [0.25, 0.5, 0.5, 0.75]


def test_a_compound_shows_the_volume_of_an_element_without_a_crystal(made: Made) -> None:
    """Ni 10.90 and NiAl 11.94 Å³ an atom: a quarter of aluminium is half way."""
    quarter = next(atoms for atoms in of_kind(made[1], "alloy") if np.mean(atoms.symbols == "Al") == 0.25)
    assert quarter.get_volume() / len(quarter) == pytest.approx((3.52**3 / 4 + 2.88**3 / 2) / 2)


def test_only_elements_of_one_kind_change_places_by_themselves(tmp_path: Path) -> None:
    for name, symbols, exchanged in (("MgO", "rocksalt", False), ("SiGe", "zincblende", True)):
        (folder := tmp_path / name).mkdir()
        pool, _, _ = make(folder, bulk(name, symbols, a=4.9), structures=12, most_atoms=16, start_atoms=8, slabs=False)
        assert bool(of_kind(pool, "alloy")) == exchanged


def test_substitutions_bring_elements_that_no_seed_has(tmp_path: Path) -> None:
    pool, starts, _ = make(
        tmp_path, nickel(), structures=12, most_atoms=16, start_atoms=8, slabs=False, substitutions={"Ni": ["Al", "Cr"]}
    )
    assert {symbol for atoms in of_kind(pool, "alloy") for symbol in atoms.symbols} == {"Ni", "Al", "Cr"}
    for atoms in of_kind(starts, "alloy"):
        assert atoms.get_volume() / len(atoms) == pytest.approx(3.52**3 / 4), "nothing shows another volume"
    (tmp_path / "other").mkdir()
    with pytest.raises(BadInput, match="no seed has Fe"):
        make(tmp_path / "other", nickel(), substitutions={"Fe": ["Al"]})


@pytest.mark.parametrize(
    "wrong",
    [{"substitutions": {"Ni": ["Xx"]}}, {"substitutions": {"Ni": ["Ni"]}}, {"start_atoms": 201}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"no element|other elements|more than twice"):
        Params(**wrong)


def test_starts_are_clean_and_of_the_size_wanted(made: Made) -> None:
    starts = made[1]
    kinds = Counter((atoms.info["group"], atoms.info["source"]) for atoms in starts)
    row0, row1 = "seeds.xyz, row 0", "seeds.xyz, row 1"
    assert kinds == {
        **{(kind, f"{kind} of {row0}"): n for kind, n in {"bulk": 1, "vacancy": 1, "slab": 1, "alloy": 2}.items()},
        **{(kind, f"{kind} of {row1}"): n for kind, n in {"bulk": 1, "vacancy": 2, "slab": 1, "alloy": 2}.items()},
    }
    assert all(63 <= len(atoms) <= 120 for atoms in starts)
    for atoms, seed in zip(of_kind(starts, "bulk"), (nickel(), nickel_aluminium()), strict=True):
        assert heights(atoms).min() > 8
        assert shortest_distance(atoms, 6.0) == pytest.approx(shortest_distance(seed, 6.0))


def test_molecules_are_displaced_and_stretched_only(tmp_path: Path) -> None:
    """The state comes with every copy. A bond of hydrogen is 0.97 Å."""
    water = molecule("H2O")
    water.info[STATE] = "total_charge=1 total_spin=2"
    pool, starts, metrics = make(tmp_path, water, structures=30)
    assert set(metrics["by_kind"]) == {"rattle", "stretch"}
    assert all(len(atoms) == 3 and not atoms.pbc.any() for atoms in pool)
    assert {atoms.info[STATE] for atoms in [*pool, *starts]} == {"total_charge=1 total_spin=2"}
    assert all(atoms.info["id"] == structure_id(atoms, atoms.info[STATE]) for atoms in pool)
    longest = max(max(atoms.get_distances(0, [1, 2])) for atoms in of_kind(pool, "stretch"))
    assert 1.29 * 0.96 < longest < 1.6
    assert [(len(atoms), atoms.info["group"]) for atoms in starts] == [(3, "molecule")]


def test_a_part_moves_where_its_bond_is_stretched_and_an_atom_in_a_ring(tmp_path: Path) -> None:
    ethanol = molecule("CH3CH2OH")
    bond = ethanol.get_distance(0, 1)
    pool, _, _ = make(tmp_path, ethanol, structures=400)
    stretched = [atoms for atoms in pool if str(atoms.info["family"]).startswith("stretch 0-1 1.2")]
    clean = next(atoms for atoms in stretched if abs(atoms.get_distance(0, 1) - 1.2 * bond) < 1e-9)
    inner = ethanol.get_all_distances()
    moved = np.abs(clean.get_all_distances() - inner)[1] > 1e-9
    assert 1 < moved.sum() < len(ethanol) - 1, "the atoms of one side keep their distances to it"


def test_slabs_are_strained_in_their_plane_only(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    pool, starts, metrics = make(tmp_path, slab, structures=20)
    assert set(metrics["by_kind"]) == {"rattle", "strain"}
    clean = [atoms for atoms in of_kind(pool, "strain") if np.ptp(atoms.positions[:, 2]) > 0]
    assert all(np.allclose(atoms.cell[2], slab.cell[2]) and np.allclose(atoms.cell[:2, 2], 0) for atoms in clean)
    assert len({round(atoms.cell.array[0, 0], 6) for atoms in clean}) > 3
    assert len(starts[0]) >= 64
    assert starts[0].cell.array[2, 2] == slab.cell.array[2, 2]


def test_a_charged_crystal_keeps_its_cell_and_its_state(tmp_path: Path) -> None:
    crystal = bulk("Si", cubic=True)
    crystal.info[STATE] = "total_charge=1"
    pool, starts, metrics = make(tmp_path, crystal, structures=12)
    assert metrics["by_kind"] == {"rattle": 12}
    assert metrics["families"] > 4, "copies displaced beyond near duplicates are families"
    assert all(np.allclose(atoms.cell, crystal.cell) and len(atoms) == 8 for atoms in [*pool, *starts])
    assert {atoms.info[STATE] for atoms in [*pool, *starts]} == {"total_charge=1"}


def test_single_atoms_and_large_cells_are_left_out_with_the_reason(tmp_path: Path) -> None:
    lonely, large = Atoms("Cu"), bulk("Cu", cubic=True) * 3
    large.rattle(0.3, seed=1)
    _, _, metrics = make(tmp_path, lonely, bulk("Cu"), large, structures=6, most_atoms=60, slabs=False)
    assert metrics["left_out"] == {
        "seeds.xyz, row 0": "a single atom with nothing around it",
        "seeds.xyz, row 2": "108 atoms, more than most_atoms (60)",
    }
    (tmp_path / "alone").mkdir()
    with pytest.raises(BadInput, match=r"row 0: a single atom .* Give a crystal"):
        make(tmp_path / "alone", lonely)


def test_the_same_seeds_give_the_same_bytes_and_another_number_others(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((42, 42, 43)):
        (folder := tmp_path / str(number)).mkdir()
        make(folder, bulk("Si"), structures=15, most_atoms=16, start_atoms=8, seed=seed)
        found.append((folder / "outputs" / "structures.parquet").read_bytes())
    assert found[0] == found[1] != found[2]


def test_the_stub_reports_as_the_run_does(tmp_path: Path, made: Made) -> None:
    pool, starts, metrics = make(tmp_path, nickel(), nickel_aluminium(), run=seed_pool.stub, structures=7)
    assert set(metrics) == set(made[2])
    assert len(pool) == 7
    assert [atoms.info["group"] for atoms in starts] == ["bulk", "vacancy", "slab", "alloy", "molecule"]


def test_turns_go_on_without_those_that_have_ended() -> None:
    assert "".join(islice(in_turns([iter("ab"), iter("1"), iter("xyz")]), 9)) == "a1xbyz"
