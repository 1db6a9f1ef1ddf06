from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk

from containers.mace.teacher.description import Teacher
from containers.structures.split import Split
from containers.structures.table import structure_id, structures_table, write_table
from containers.tensorpot.selection.coverage import Tables
from flows.config.schema import DistillConfig
from flows.config.training import Stage
from flows.data.prepare import Prepared
from flows.data.recipe import Recipe, check_committee, check_elements, check_split, resolve
from tasks.errors import UserError

SECTION = {
    "elements": ["Si"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "rcut": 4.5}},
    "functions": {"number_of_functions_per_element": 20, "ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
}


def test_data_that_leave_a_side_empty_are_refused_before_anything_is_labelled(tmp_path) -> None:
    pq.write_table(pa.table({"family": ["one", "one", "one"]}), tmp_path / "few.parquet")
    with pytest.raises(UserError, match=r"no structure is left on the .* side: .* have 1 families"):
        check_split(Tables({"teacher": tmp_path / "few.parquet"}), Split())
    pq.write_table(pa.table({"family": [str(number) for number in range(200)]}), tmp_path / "many.parquet")
    check_split(Tables({"teacher": tmp_path / "few.parquet"}, base=tmp_path / "many.parquet"), Split())


def test_a_family_that_no_structure_has_cannot_be_placed(tmp_path) -> None:
    pq.write_table(pa.table({"family": [str(number) for number in range(200)]}), tmp_path / "many.parquet")
    tables = Tables({"teacher": tmp_path / "many.parquet"})
    check_split(tables, Split(train=("7",)))
    with pytest.raises(UserError, match=r"split\.train: no structure .* has the family 'seven'"):
        check_split(tables, Split(train=("seven",)))


def test_an_element_that_training_never_sees_is_refused_with_what_to_do(config, teacher, tmp_path) -> None:
    silicon, oxide = bulk("Si"), bulk("Si", cubic=True)
    oxide.symbols[0] = "O"
    for atoms, family in ((silicon, "family0"), (oxide, "family2")):  # training and test, see test_split
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": 3, "group": "", "family": family}
    write_table(tmp_path / "pool.parquet", structures_table([silicon, oxide]))
    tables = Tables({"teacher": tmp_path / "pool.parquet"})
    with pytest.raises(UserError, match=r"has O.* a\.xyz: frame 3 .*'family2' on the test side.*train: \['family2'\]"):
        check_elements(resolve(config, [teacher], {"Si", "O"}, set()), tables)
    moved = config.model_copy(update={"split": Split(train=("family2",))})
    check_elements(resolve(moved, [teacher], {"Si", "O"}, set()), tables)
    check_elements(resolve(config, [teacher], {"Si"}, set()), Tables({"teacher": tmp_path / "pool.parquet"}))


def test_the_optimizer_suits_the_number_of_parameters(config, teacher) -> None:
    ten = ("Al", "C", "Cu", "Fe", "H", "N", "Ni", "O", "Si", "Ti")
    wide = teacher.model_copy(update={"elements": ten, "e0s_eV": {"Default": dict.fromkeys(ten, 0.0)}})
    large = config.model_copy(update={"pacemaker": config.pacemaker.model_copy(update={"functions_per_element": 1000})})
    few, many = resolve(config, [wide], {"Al"}, set()), resolve(large, [wide], set(ten), set())
    assert many.potential.functions().parameters > 20_000
    assert (few.stages[0].optimizer, many.stages[0].optimizer) == ("BFGS", "L-BFGS-B")
    given = config.model_copy(update={"train": config.train.model_copy(update={"optimizer": "L-BFGS-B"})})
    assert resolve(given, [teacher], {"Si"}, set()).stages[0].optimizer == "L-BFGS-B"


def autos(values: Any, place: str = "") -> Iterator[str]:
    """Dotted keys, without places in lists, whose value is `auto`."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else ((None, value) for value in values):
            yield from autos(value, f"{place}.{key}" if key else place)
    elif values == "auto":
        yield place.removeprefix(".")


def test_a_recipe_leaves_to_the_steps_only_what_their_data_decide(config: DistillConfig, teacher: Teacher) -> None:
    stages = [Stage(kappa="auto", maxiter="auto")]
    changed = config.model_copy(update={"train": config.train.model_copy(update={"stages": stages})})
    found = set(autos(resolve(changed, [teacher], {"Si"}, set()).model_dump(mode="json")))
    assert found == {"stages.loss.kappa", "stages.batch_size", "r_in_A", "lj", "stability.timestep_fs"}


def test_a_larger_basis_has_more_automatic_iterations(prepared: Prepared) -> None:
    train = prepared.config.train.model_copy(update={"stages": [Stage(kappa=0.3, maxiter="auto")]})
    seen = []
    for functions in (100, 10_000):
        pacemaker = prepared.config.pacemaker.model_copy(update={"functions_per_element": functions})
        grown = prepared.with_config(prepared.config.model_copy(update={"train": train, "pacemaker": pacemaker}))
        (fit,) = grown.recipe.stages
        assert fit.maxiter == grown.recipe.potential.functions().parameters // 5
        seen.append(fit.maxiter)
    assert seen[0] < seen[1]


def with_pacemaker(config: DistillConfig, **changes: Any) -> DistillConfig:
    pacemaker = {**config.pacemaker.model_dump(), **changes}
    return DistillConfig.model_validate({**config.model_dump(), "pacemaker": pacemaker})


def with_head(config: DistillConfig, head: str | None) -> DistillConfig:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"head": head})})


@pytest.fixture
def two_heads(teacher: Teacher) -> Teacher:
    return teacher.model_copy(
        update={"heads": ("pbe", "scan"), "e0s_eV": {"pbe": {"O": 1.0, "Si": 2.0}, "scan": {"O": 3.0, "Si": 4.0}}}
    )


def test_auto_means_the_data_s_elements_and_the_teacher_s_cutoff(config, teacher) -> None:
    recipe = resolve(config, [teacher], {"Si"}, set())
    assert recipe.potential.elements == ("Si",)
    assert recipe.potential.cutoff == 4.5
    assert (recipe.head, recipe.teacher_e0s_eV) == ("Default", {"Si": -1.0})


def test_elements_are_sorted_and_may_be_more_than_the_data_hold(config, teacher) -> None:
    recipe = resolve(with_pacemaker(config, elements=["Si", "O"]), [teacher], {"Si"}, set())
    assert recipe.potential.elements == ("O", "Si")
    assert recipe.teacher_e0s_eV == {"O": -2.0, "Si": -1.0}


def test_given_values_reach_the_potential(config, teacher) -> None:
    changed = with_pacemaker(config, cutoff=6.0, order=2, functions_per_element=33, b_basis="small")
    potential = resolve(changed, [teacher], {"Si"}, set()).potential
    assert (potential.cutoff, potential.order, potential.functions_per_element) == (6.0, 2, 33)
    assert potential.b_basis == "small"


@pytest.mark.parametrize("elements", ["auto", ["Si"]])
def test_a_pool_element_that_the_teacher_does_not_know_is_left_to_the_labelling(config, teacher, elements) -> None:
    recipe = resolve(with_pacemaker(config, elements=elements), [teacher], {"Si", "Fe", "C"}, set())
    assert recipe.potential.elements == ("Si",)


@pytest.mark.parametrize("elements", ["auto", ["Si"]])
def test_a_pool_of_which_the_teacher_knows_no_element(config, teacher, elements) -> None:
    with pytest.raises(UserError, match=r"does not know C, Fe \(in the pool, which has no other\); it knows O, Si"):
        resolve(with_pacemaker(config, elements=elements), [teacher], {"Fe", "C"}, {"Si"})


def test_an_element_of_the_dft_data_that_the_teacher_does_not_know(config, teacher) -> None:
    with pytest.raises(UserError, match=r"does not know C \(in the DFT data\); it knows O, Si"):
        resolve(config, [teacher], {"Si"}, {"Si", "C"})


def test_elements_of_the_dft_data_are_in_the_potential(config, teacher) -> None:
    assert resolve(config, [teacher], {"Si"}, {"O"}).potential.elements == ("O", "Si")


def test_an_element_of_the_config_that_the_teacher_does_not_know(config, teacher) -> None:
    with pytest.raises(UserError, match=r"does not know C \(in pacemaker.elements\)"):
        resolve(with_pacemaker(config, elements=["Si", "C"]), [teacher], {"Si"}, set())


def test_a_left_out_element(config, teacher) -> None:
    with pytest.raises(UserError, match=r"pacemaker.elements lacks O, but the data contain it"):
        resolve(with_pacemaker(config, elements=["Si"]), [teacher], {"Si", "O", "Fe"}, set())


def test_the_chosen_head_decides_the_reference_energies(config, two_heads) -> None:
    recipe = resolve(with_head(config, "pbe"), [two_heads], {"Si"}, set())
    assert (recipe.head, recipe.teacher_e0s_eV) == ("pbe", {"Si": 2.0})


@pytest.mark.parametrize("head", [None, "r2scan"])
def test_no_or_a_wrong_head_is_refused_with_the_names(config, two_heads, head) -> None:
    with pytest.raises(UserError, match=r"teacher.head.*pbe, scan"):
        resolve(with_head(config, head), [two_heads], {"Si"}, set())


def test_a_section_of_the_user_s_own_is_taken(config, teacher) -> None:
    recipe: Recipe = resolve(with_pacemaker(config, b_basis=SECTION), [teacher], {"Si"}, set())
    assert recipe.potential.section()["bonds"] == SECTION["bonds"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ["O"]}, "elements"),
        ({"bonds": {"ALL": {"rcut": 5.0}}}, r"rcut must be the cutoff of the config \(4.5 Å\)"),
        ({"bonds": {"ALL": {"rcut": 4.5, "r_in": 1.0}}}, "reference_potential decides the core repulsion"),
        ({"functions": {"ALL": {"lmax": 3}}}, "keys pacemaker would ignore: lmax"),
        ({"fuctions": {}}, "keys pacemaker would ignore: fuctions"),
    ],
)
def test_a_bad_section_names_its_key(config, teacher, change, message) -> None:
    with pytest.raises(UserError, match=rf"pacemaker.b_basis: .*{message}"):
        resolve(with_pacemaker(config, b_basis={**SECTION, **change}), [teacher], {"Si"}, set())


@pytest.fixture
def second(teacher: Teacher) -> Teacher:
    """Another model of a committee: farther sight, other reference energies, no oxygen."""
    return teacher.model_copy(update={"elements": ("Si",), "r_max_A": 6.0, "e0s_eV": {"Default": {"Si": -2.0}}})


def with_committee(config: DistillConfig, *names: str, **changes: Any) -> DistillConfig:
    values = config.model_dump()
    teacher = {**values["teacher"], "committee": list(names), **changes}
    return DistillConfig.model_validate({**values, "teacher": teacher})


def test_a_committee_has_the_mean_reference_the_largest_cutoff_and_the_elements_that_all_know(
    config, teacher, second
) -> None:
    recipe = resolve(with_committee(config, "second.model"), [teacher, second], {"Si", "O"}, set())
    assert recipe.teacher_e0s_eV == {"Si": -1.5}
    assert recipe.potential.cutoff == 6.0
    with pytest.raises(UserError, match=r"does not know O \(in the DFT data\); it knows Si\."):
        resolve(with_committee(config, "second.model"), [teacher, second], {"Si"}, {"O"})


def test_a_committee_without_a_common_element_says_what_each_model_knows(config, teacher, second) -> None:
    gold = second.model_copy(update={"elements": ("Au",), "e0s_eV": {"Default": {"Au": -2.0}}})
    with pytest.raises(UserError, match=r"no element in common: teacher.model knows O, Si; gold.model knows Au\."):
        resolve(with_committee(config, "gold.model"), [teacher, gold], {"Si"}, set())


def test_a_head_that_one_model_of_a_committee_lacks(config, teacher, two_heads) -> None:
    committee = with_committee(config, "second.model", head="Default")
    with pytest.raises(UserError, match=r"teacher.head: second.model: .*no head 'Default'.*pbe, scan"):
        resolve(committee, [teacher, two_heads], {"Si"}, set())


def test_the_only_heads_of_a_committee_must_have_one_name(config, teacher) -> None:
    other = teacher.model_copy(update={"heads": ("pbe",), "e0s_eV": {"pbe": {"O": 1.0, "Si": 2.0}}})
    with pytest.raises(UserError, match=r"one name, these have Default \(teacher.model\), pbe \(second.model\)"):
        resolve(with_committee(config, "second.model"), [teacher, other], {"Si"}, set())


def test_the_same_model_twice_is_no_committee() -> None:
    check_committee({"a.model": "1", "b.model": "2"})
    with pytest.raises(UserError, match=r"c.model is the same model as a.model"):
        check_committee({"a.model": "1", "b.model": "2", "c.model": "1"})


def test_overrides_reach_the_potential(config, teacher) -> None:
    overrides = {"bonds": {"O-Si": {"rcut": 3.0}}}
    recipe = resolve(with_pacemaker(config, elements=["Si", "O"], overrides=overrides), [teacher], {"Si"}, set())
    assert recipe.potential.section()["bonds"]["OSi"] == {"rcut": 3.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"bonds": {"O-Si": {"rcut": 3.0}}}}, r"pacemaker.overrides.bonds.O-Si: .* not 'O'"),
        ({"fit": {"trainable_parameters": ["SiO"]}}, r"pacemaker.fit.trainable_parameters names 'SiO'"),
    ],
)
def test_settings_of_elements_that_the_potential_lacks_are_refused(config, teacher, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        resolve(with_pacemaker(config, **changes), [teacher], {"Si"}, set())


@pytest.mark.parametrize(("given", "cutoff"), [("auto", 4.5), ("wide", 4.95), (4.2, 4.2)])
def test_the_cutoff_follows_the_teacher_unless_it_is_given(config, teacher, given: Any, cutoff: float) -> None:
    assert resolve(with_pacemaker(config, cutoff=given), [teacher], {"Si"}, set()).potential.cutoff == cutoff
