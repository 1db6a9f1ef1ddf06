from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk

from containers.mace.teacher.description import Teacher
from containers.properties.crystals import Prototype
from containers.structures.split import Split
from containers.structures.table import structure_id, structures_table, write_table
from containers.tensorpot.selection.coverage import Tables
from flows.config.schema import DistillConfig
from flows.config.training import Stage
from flows.data.prepare import Ingested, Prepared
from flows.data.recipe import check_committee, check_elements, check_split, resolve
from tasks.errors import UserError

LBFGS = "L-BFGS-B"
SECTION = {
    "elements": ["Si"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "rcut": 4.5}},
    "functions": {"number_of_functions_per_element": 20, "ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
}


def test_data_that_leave_a_split_empty_or_lack_a_family_are_refused_before_the_labelling(tmp_path) -> None:
    few, many = tmp_path / "few.parquet", tmp_path / "many.parquet"
    pq.write_table(pa.table({"family": ["one", "one", "one"]}), few)
    pq.write_table(pa.table({"family": [str(number) for number in range(200)]}), many)
    check_split(Tables({"teacher": few}, base=many), Split())
    check_split(Tables({"teacher": few, "dft": many}), Split(train=("7",)))
    with pytest.raises(UserError, match=r"no structure is left on the .* side: .* have 1 families"):
        check_split(Tables({"teacher": few}), Split())
    with pytest.raises(UserError, match=r"split\.train: no structure .* has the family 'seven'"):
        check_split(Tables({"teacher": many}), Split(train=("seven",)))


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
    many = resolve(changed(config, "pacemaker", functions_per_element=1000), [wide], set(ten), set())
    assert many.potential.functions().parameters > 20_000
    few, given = (resolve(one, [teacher], {"Si"}, set()) for one in (config, changed(config, "train", optimizer=LBFGS)))
    assert [one.stages[0].optimizer for one in (few, many, given)] == ["BFGS", LBFGS, LBFGS]


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
    of_steps = {"stability.timestep_fs", "trajectory.temperatures_K"}
    assert found == {"stages.loss.kappa", "stages.batch_size", "r_in_A", "lj", *of_steps}


def test_automatic_iterations_are_in_proportion_to_the_parameters(prepared: Prepared) -> None:
    stages = [Stage(kappa=0.3, maxiter="auto"), Stage(kappa=0.03, maxiter="auto")]
    train, seen = prepared.config.train.model_copy(update={"stages": stages}), []
    for functions in (100, 10_000):
        pacemaker = prepared.config.pacemaker.model_copy(update={"functions_per_element": functions})
        grown = prepared.with_config(prepared.config.model_copy(update={"train": train, "pacemaker": pacemaker}))
        parameters = grown.recipe.potential.functions().parameters
        assert [fit.maxiter for fit in grown.recipe.stages] == [parameters // 5, parameters // 20]
        seen.append(parameters)
    assert seen[0] < seen[1]


def changed(config: DistillConfig, section: str, **changes: Any) -> DistillConfig:
    values = config.model_dump()
    values[section] |= changes
    return DistillConfig.model_validate(values)


@pytest.fixture
def two_heads(teacher: Teacher) -> Teacher:
    return teacher.model_copy(
        update={"heads": ("pbe", "scan"), "e0s_eV": {"pbe": {"O": 1.0, "Si": 2.0}, "scan": {"O": 3.0, "Si": 4.0}}}
    )


@pytest.mark.parametrize(
    ("given", "in_pool", "in_dft", "elements"),
    [
        ("auto", {"Si"}, set(), ("Si",)),
        ("auto", {"Si"}, {"O"}, ("O", "Si")),
        (["Si", "O"], {"Si"}, set(), ("O", "Si")),  # sorted, and more than the data have
        # the labelling sets aside structures of the pool with elements that the teacher does not know
        ("auto", {"Si", "Fe", "C"}, set(), ("Si",)),
        (["Si"], {"Si", "Fe", "C"}, set(), ("Si",)),
    ],
)
def test_elements_are_those_of_config_and_data_that_the_teacher_knows(
    config, teacher, given, in_pool, in_dft, elements
) -> None:
    recipe = resolve(changed(config, "pacemaker", elements=given), [teacher], in_pool, in_dft)
    assert (recipe.head, recipe.potential.elements) == ("Default", elements)
    assert recipe.teacher_e0s_eV == {name: {"O": -2.0, "Si": -1.0}[name] for name in elements}


@pytest.mark.parametrize(
    ("changes", "in_pool", "in_dft", "message"),
    [
        ({}, {"Fe", "C"}, {"Si"}, r"does not know C, Fe \(in the pool, which has no other\); it knows O, Si"),
        ({"elements": ["Si"]}, {"Fe", "C"}, {"Si"}, r"does not know C, Fe \(in the pool, which has no other\)"),
        ({}, {"Si"}, {"Si", "C"}, r"does not know C \(in the DFT data\); it knows O, Si"),
        ({"elements": ["Si", "C"]}, {"Si"}, set(), r"does not know C \(in pacemaker.elements\)"),
        ({"elements": ["Si"]}, {"Si", "O", "Fe"}, set(), r"pacemaker.elements lacks O, but the data contain it"),
        (
            {"overrides": {"bonds": {"O-Si": {"rcut": 3.0}}}},
            {"Si"},
            set(),
            r"pacemaker.overrides.bonds.O-Si: .* not 'O'",
        ),
        ({"fit": {"trainable_parameters": ["SiO"]}}, {"Si"}, set(), r"pacemaker.fit.trainable_parameters names 'SiO'"),
        ({"b_basis": {**SECTION, "elements": ["O"]}}, {"Si"}, set(), "pacemaker.b_basis: .*elements"),
        (
            {"b_basis": {**SECTION, "bonds": {"ALL": {"rcut": 5.0}}}},
            {"Si"},
            set(),
            r"pacemaker.b_basis: .*rcut must be the cutoff of the config \(4.5 Å\)",
        ),
        (
            {"b_basis": {**SECTION, "bonds": {"ALL": {"rcut": 4.5, "r_in": 1.0}}}},
            {"Si"},
            set(),
            "pacemaker.b_basis: .*reference_potential decides the core repulsion",
        ),
        (
            {"b_basis": {**SECTION, "functions": {"ALL": {"lmax": 3}}}},
            {"Si"},
            set(),
            "pacemaker.b_basis: .*keys pacemaker would ignore: lmax",
        ),
        (
            {"b_basis": {**SECTION, "fuctions": {}}},
            {"Si"},
            set(),
            "pacemaker.b_basis: .*keys pacemaker would ignore: fuctions",
        ),
    ],
)
def test_what_disagrees_is_refused_with_its_key(config, teacher, changes, in_pool, in_dft, message) -> None:
    with pytest.raises(UserError, match=message):
        resolve(changed(config, "pacemaker", **changes), [teacher], in_pool, in_dft)


@pytest.mark.parametrize(
    ("formula", "message"),
    [("Al", "prototypes has Al, but the potential has Si"), ("SiC", "prototypes: no fcc crystal of SiC: .* 1 atom")],
)
def test_a_prototype_that_does_not_fit_is_refused_before_the_labelling(config, teacher, formula, message) -> None:
    prototype = Prototype(structure="fcc", formula=formula, a_A=4.0)
    with pytest.raises(UserError, match=message):
        resolve(changed(config, "properties", prototypes=[prototype]), [teacher], {"Si"}, set())


def test_a_crystal_of_a_file_that_does_not_fit_is_refused_before_the_labelling(config, teacher, artefact) -> None:
    pool, crystals = artefact("ingest", elements=["Si"]), artefact("ingest", "crystals", elements=["Al", "Si"])
    assert Ingested(pool, crystals=pool).resolve(config, [teacher]).potential.elements == ("Si",)
    with pytest.raises(UserError, match=r"properties\.files: a crystal has Al, but the potential has Si"):
        Ingested(pool, crystals=crystals).resolve(config, [teacher])


def test_the_head_decides_the_reference_energies_and_must_be_one_of_the_teacher_s(config, two_heads) -> None:
    recipe = resolve(changed(config, "teacher", head="pbe"), [two_heads], {"Si"}, set())
    assert (recipe.head, recipe.teacher_e0s_eV) == ("pbe", {"Si": 2.0})
    for head in (None, "r2scan"):
        with pytest.raises(UserError, match=r"teacher.head.*pbe, scan"):
            resolve(changed(config, "teacher", head=head), [two_heads], {"Si"}, set())


def test_given_values_overrides_and_a_section_of_the_user_s_own_reach_the_potential(config, teacher) -> None:
    given = {"cutoff": 6.0, "order": 2, "functions_per_element": 33, "b_basis": "small"}
    potential = resolve(changed(config, "pacemaker", **given), [teacher], {"Si"}, set()).potential
    assert {name: getattr(potential, name) for name in given} == given
    recipe = resolve(changed(config, "pacemaker", b_basis=SECTION), [teacher], {"Si"}, set())
    assert recipe.potential.section()["bonds"] == SECTION["bonds"]
    overrides = {"bonds": {"O-Si": {"rcut": 3.0}}}
    recipe = resolve(changed(config, "pacemaker", elements=["Si", "O"], overrides=overrides), [teacher], {"Si"}, set())
    assert recipe.potential.section()["bonds"]["OSi"] == {"rcut": 3.0}


@pytest.fixture
def second(teacher: Teacher) -> Teacher:
    """Another model of a committee: farther sight, other reference energies, no oxygen."""
    return teacher.model_copy(update={"elements": ("Si",), "r_max_A": 6.0, "e0s_eV": {"Default": {"Si": -2.0}}})


def test_a_committee_has_the_mean_reference_the_largest_cutoff_and_the_elements_that_all_know(
    config, teacher, second
) -> None:
    recipe = resolve(changed(config, "teacher", committee=["second.model"]), [teacher, second], {"Si", "O"}, set())
    assert recipe.teacher_e0s_eV == {"Si": -1.5}
    assert recipe.potential.cutoff == 6.0
    with pytest.raises(UserError, match=r"does not know O \(in the DFT data\); it knows Si\."):
        resolve(changed(config, "teacher", committee=["second.model"]), [teacher, second], {"Si"}, {"O"})


def test_a_committee_without_a_common_element_or_head_says_what_each_model_has(
    config, teacher, second, two_heads
) -> None:
    gold = second.model_copy(update={"elements": ("Au",), "e0s_eV": {"Default": {"Au": -2.0}}})
    with pytest.raises(UserError, match=r"no element in common: teacher.model knows O, Si; gold.model knows Au\."):
        resolve(changed(config, "teacher", committee=["gold.model"]), [teacher, gold], {"Si"}, set())
    with pytest.raises(UserError, match=r"teacher.head: second.model: .*no head 'Default'.*pbe, scan"):
        resolve(
            changed(config, "teacher", committee=["second.model"], head="Default"), [teacher, two_heads], {"Si"}, set()
        )
    other = teacher.model_copy(update={"heads": ("pbe",), "e0s_eV": {"pbe": {"O": 1.0, "Si": 2.0}}})
    with pytest.raises(UserError, match=r"one name, these have Default \(teacher.model\), pbe \(second.model\)"):
        resolve(changed(config, "teacher", committee=["second.model"]), [teacher, other], {"Si"}, set())


def test_the_same_model_twice_is_no_committee() -> None:
    check_committee({"a.model": "1", "b.model": "2"})
    with pytest.raises(UserError, match=r"c.model is the same model as a.model"):
        check_committee({"a.model": "1", "b.model": "2", "c.model": "1"})


@pytest.mark.parametrize(("given", "cutoff"), [("auto", 4.5), ("wide", 4.95), (4.2, 4.2)])
def test_the_cutoff_follows_the_teacher_unless_it_is_given(config, teacher, given: Any, cutoff: float) -> None:
    assert resolve(changed(config, "pacemaker", cutoff=given), [teacher], {"Si"}, set()).potential.cutoff == cutoff
