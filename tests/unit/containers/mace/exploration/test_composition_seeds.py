"""Crystals of a composition, found with EMT in the place of the teacher."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.data import covalent_radii

from containers.contract import BadInput, no_progress
from containers.mace.exploration.composition_seeds import OUTPUTS, Found, Params, explore_composition, odd, write
from containers.mace.exploration.formulas import check_compositions, counts
from containers.mace.exploration.random_crystals import (
    CLOSEST,
    ROOM,
    STRETCHED,
    closeness,
    draw_crystals,
    pushed_apart,
    stages_of,
)
from containers.structures.table import read_atoms

FEW = Params(head="Default", compositions=("NiAl",), crystals=3, kept=2, most_atoms=4, seed=1)


def explored(known: tuple[Atoms, ...] = (), params: Params = FEW) -> Found:
    found = Found()
    for composition in params.compositions:
        explore_composition(composition, known, EMT(), params, found, no_progress)
    return found


@pytest.fixture(scope="module")
def nickel_aluminium() -> Found:
    return explored()


def test_every_structure_has_the_composition_and_keeps_distances(nickel_aluminium: Found) -> None:
    made = [*nickel_aluminium.structures, *(atoms for atoms, _ in nickel_aluminium.seeds.values())]
    assert {atoms.get_chemical_formula(empirical=True) for atoms in made} == {"AlNi"}
    assert min(map(closeness, made)) >= CLOSEST
    assert max(map(len, made)) <= FEW.most_atoms


def test_the_energies_stay_in_the_window_and_seeds_come_lowest_first(nickel_aluminium: Found) -> None:
    energies = [energy for _, energy in nickel_aluminium.seeds.values()]
    assert energies == sorted(energies)
    assert 1 <= len(energies) <= FEW.kept
    narrow = explored(params=FEW.model_copy(update={"energy_above_eV_per_atom": 1e-3}))
    assert len(narrow.structures) < len(nickel_aluminium.structures)
    assert any("energy too far" in reason for reason in narrow.left_out["NiAl"])


def test_the_stages_of_a_crystal_share_a_family_and_nothing_is_a_copy_of_a_seed(nickel_aluminium: Found) -> None:
    for atoms in nickel_aluminium.structures:
        assert atoms.info["family"] == f"AlNi crystal {atoms.info['row']}"
    left_out = nickel_aluminium.left_out["NiAl"].items()
    counted = sum(count for reason, count in left_out if not reason.startswith(("draw:", "seed:")))
    failed = sum("crystal" in stage for stage in nickel_aluminium.failed)
    assert len(nickel_aluminium.structures) + counted == 3 * (FEW.crystals - failed)


def test_the_bytes_are_reproducible(nickel_aluminium: Found, tmp_path: Path) -> None:
    for name, found in {"one": nickel_aluminium, "other": explored()}.items():
        (tmp_path / name).mkdir()
        figures = write(tmp_path / name, found)
    for file in OUTPUTS.values():
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    seeds = read_atoms(tmp_path / "one" / OUTPUTS["seeds"])
    assert [atoms.info["family"] for atoms in seeds] == list(figures["seeds_eV_per_atom"])


def test_a_crystal_of_the_user_is_no_seed_again() -> None:
    params = FEW.model_copy(update={"compositions": ("Cu",), "crystals": 6, "most_atoms": 2})
    assert "Cu Im-3m" in explored(params=params).seeds
    assert "Cu Im-3m" not in explored((bulk("Cu", "bcc", a=2.87),), params).seeds


def test_other_compositions_and_more_crystals_change_none() -> None:
    first, more = (draw_crystals("Cu", wanted, 4, 1, Counter()) for wanted in (2, 4))
    assert first == more[:2]


def test_atoms_move_apart_and_no_hole_opens() -> None:
    for atoms in draw_crystals("Si", 6, 12, 1, Counter()):
        spread = pushed_apart(atoms, np.random.default_rng(1))
        sphere = 4 / 3 * np.pi * covalent_radii[14] ** 3
        assert closeness(spread) >= STRETCHED - 1e-9
        assert ROOM[0] - 1e-9 <= spread.get_volume() / len(spread) / sphere < 1.1 * ROOM[1]


def test_a_crystal_that_does_not_hold_is_left_out_with_the_reason() -> None:
    failed: dict[str, str] = {}
    hole = LennardJones(sigma=1.4, rc=8.0)  # atoms rest at 1.5 Å
    assert stages_of("Cu", 0, bulk("Cu", cubic=True), hole, 1, failed) == []
    assert list(failed) == ["Cu crystal 0, volume relaxed"]


def test_a_composition_without_a_crystal_is_refused_with_the_figures() -> None:
    params = FEW.model_copy(update={"compositions": ("Fe",), "crystals": 2})
    with pytest.raises(BadInput, match=r"none of 2 random crystals of Fe is left .*NotImpl.* explore\.seeds"):
        explored(params=params)


def test_slabs_and_near_atoms_are_odd() -> None:
    slab, squeezed = bulk("Cu", cubic=True), bulk("Cu")
    slab.center(vacuum=10.0, axis=2)
    squeezed.set_cell(squeezed.cell * 0.7, scale_atoms=True)
    assert [odd(atoms) for atoms in (slab, squeezed, bulk("Cu"))] == ["6 Å without an atom", "atoms too close", ""]


@pytest.mark.parametrize(
    ("formulas", "message"),
    [
        (["Xx"], "cannot read 'Xx'"),
        (["Si0.5"], "cannot read 'Si0.5'"),
        ([""], "no elements"),
        (["NiAl", "Al2Ni2"], "Al2Ni2 is the same as NiAl"),
        (["C60H61"], "121 atoms, a random crystal at most 12"),
    ],
)
def test_formulas_are_refused(formulas: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_compositions(formulas, 12)


def test_a_formula_is_reduced() -> None:
    assert counts("Ni6Al2") == {"Al": 1, "Ni": 3}
