"""The steps whose keys an option of the config changes, with the results of the other steps held fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from containers.contract import StepError, load_step
from containers.mace.teacher.description import Teacher
from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from containers.properties.compare import PropertyLimits
from containers.tensorpot.evaluation import stability
from containers.tensorpot.exploration.dynamics import Condition
from containers.tensorpot.fit import pace_train
from containers.tensorpot.pacemaker.input import EarlyStop, Loss
from flows.config.schema import DistillConfig
from flows.data import steps as calls
from flows.data.recipe import Recipe, resolve
from flows.fit import steps as calls_fit
from flows.fit.repairs import FitPlan, first_plan
from tasks.artefact import Artefact, External, StepCall, call
from tasks.label_store.store import TeacherKey
from tasks.labelling.shard_task import shard_call
from tasks.labelling.shards import ShardFile
from tasks.run_step import request_of
from tasks.settings import Settings
from tasks.workspace import Workspace

CPU = Settings(cores=2, device="cpu")
FILES = (External(path=Path("/data/b.xyz"), sha256="b"), External(path=Path("/data/a.xyz"), sha256="a"))
SHARD = ShardFile(file=Path("/store/labels/00001.parquet"), sha256="c", structures=1, atoms=2)
KEY = TeacherKey(model="m", head="Default", dtype="float64", version=1, stub=False)
SECTION: dict[str, Any] = {
    "elements": ["Si"],
    "embeddings": {"ALL": {"ndensity": 1}},
    "bonds": {"ALL": {"rcut": 4.5}},
    "functions": {"ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
}

LJ = {"Si-Si": {"epsilon_eV": 1.0, "sigma_A": 2.0}}
CUTOFF = {"baseline", "pace_select", "frames", "pace_train", "choose_frames"}
NO_STEP: list[tuple[str, Any]] = [  # a preset fills keys that are not given; here all are
    ("name", "other"), ("preset", "accurate"), ("train.max_attempts", 9), ("train.threads", 9), ("extend.rounds", 9),
    ("extend.structures", 9), ("extend.max_structures", 999), ("extend.max_functions_per_element", 999),
    ("extend.min_gain", 0.5), ("sweep.vary", {"pacemaker.cutoff": [4.0]}), ("sweep.committee", 9),
    ("sweep.differ_by", "coefficients"), ("sweep.at_once", 9), ("sweep.take", "cheapest"), ("sweep.within", 0.5),
    ("convergence.force_mae_meV_per_A", 9), ("convergence.energy_mae_meV_per_atom", 9),
    ("extend.property_rounds", 9), ("extend.error_growth", 0.9), ("properties.in_training", ["phonon"]),
    *((f"explore.{name}", 7) for name in ("levels", "rounds", "max_labels", "structures_per_round", "maxiter")),
    ("explore.ask_above", 7),
    *((f"explore.{name}", 0.5) for name in ("hours", "share", "error_ratio")),
    *((f"convergence.properties.{name}", 9.0) for name in PropertyLimits.model_fields),
]  # fmt: skip
FIT: list[tuple[str, Any]] = [
    ("pacemaker.loss_forces", 0.5), ("pacemaker.kappa", 0.5), ("pacemaker.kappa", "auto"),
    ("pacemaker.fit", {"ladder_type": "body_order"}), ("pacemaker.backend", {"imagetype": "pdf"}),
    ("train.stages", [{"kappa": 0.2, "maxiter": 150}]), ("train.maxiter", 99), ("train.optimizer", "L-BFGS-B"),
    ("train.l1", 0.0), ("train.l2", 0.0), ("train.ladder_step", 9), ("train.early_stop", {}),
    ("train.coefficients", "random"), ("train.bootstrap", 9), ("train.batch_size", 9),
]  # fmt: skip
PROPERTIES = {"teacher_properties", "student_properties"}
OF_HEAD = {"composition_seeds", "mace_label", "teacher_properties", "teacher_motion"}
OPTIONS: list[tuple[str, Any, set[str]]] = [
    *((*option, set()) for option in NO_STEP),
    *((*option, {"pace_train"}) for option in FIT),
    ("teacher.head", "scan", {*OF_HEAD, "pool_labels", "dataset", "baseline"}),
    ("teacher.dtype", "float64", {"mace_label", "teacher_motion", "pool_labels", "dataset"}),
    ("teacher.max_force_std", 0.1, {"pool_labels"}),
    ("labels.max_force_eV_per_A", 9.0, {"pool_labels"}),
    ("labels.max_energy_eV_per_atom", 9.0, {"pool_labels"}),
    ("labels.min_distance_A", 0.9, {"pool_labels"}),
    ("dft.energy_key", "E", {"ingest"}),
    ("dft.forces_key", "F", {"ingest"}),
    ("dft.stress_key", "S", {"ingest"}),
    ("dft.energies", "align", {"baseline"}),
    ("dataset.likeness_A", 0.9, {"ingest"}),
    ("dataset.type_elements", ["Si"], {"ingest"}),
    ("dataset.mlip_elements", ["Si"], {"ingest"}),
    ("dataset.test_leaks", "set_aside", {"dataset"}),
    ("dataset.weights", {"bulk": 2.0}, {"frames"}),
    ("dataset.reference_energies", "least_squares", {"baseline"}),
    ("pacemaker.elements", ["Si", "O"], {"pool_labels", "dataset", "evaluate", *CUTOFF}),
    ("pacemaker.cutoff", 6.0, CUTOFF),
    ("pacemaker.order", 2, {"pace_select", "pace_train"}),
    ("pacemaker.b_basis", "small", {"pace_select", "pace_train"}),
    ("pacemaker.b_basis", SECTION, {"pace_select", "pace_train"}),
    ("pacemaker.functions_per_element", 99, {"pace_select", "pace_train"}),
    ("pacemaker.densities", 3, {"pace_select", "pace_train"}),
    ("pacemaker.loss_energy", 0.5, {"frames", "pace_train"}),
    ("pacemaker.loss_stress", 0.5, {"pace_select", "frames", "pace_train"}),
    ("pacemaker.weight_dft", 3.0, {"frames"}),
    ("pacemaker.energy_weights", False, {"frames"}),
    ("pacemaker.energy_scale_eV_per_atom", 0.1, {"frames"}),
    ("pacemaker.force_scale_eV_per_A", 0.3, {"frames"}),
    ("pacemaker.reference_potential", "none", {"baseline", "pace_train", "pace_corerep"}),
    ("pacemaker.reference_potential", "lj", {"baseline", "pace_train", "pace_corerep"}),
    ("pacemaker.zbl", "difference", {"baseline", "pace_train", "pace_corerep"}),
    ("pacemaker.r_in_A", {"Si-Si": 1.5}, {"pace_corerep"}),
    ("pacemaker.lj", LJ, {"baseline", "pace_train", "pace_corerep"}),  # with reference_potential: lj
    ("selection.method", "random", {"pace_select"}),
    ("selection.max_structures", 99, {"pace_select"}),
    ("selection.fraction", 0.5, {"pace_select"}),
    ("selection.projections", "full", {"pace_select", "pace_activeset", "choose_frames"}),
    ("split.validation", 0.2, {"baseline", "dataset"}),
    ("split.test", 0.2, {"baseline", "dataset"}),
    ("split.train", ["family1"], {"baseline", "dataset"}),
    ("pacemaker.overrides.embeddings", {"Si": {"ndensity": 1}}, {"pace_select", "pace_train"}),
    ("pacemaker.overrides.bonds", {"Si-Si": {"radbase": "ChebExpCos"}}, {"pace_select", "pace_train"}),
    ("pacemaker.overrides.functions", {"Si": SECTION["functions"]["ALL"]}, {"pace_select", "pace_train"}),
    (
        "train.seed",
        9,
        {
            "pace_select",
            "strain",
            "pace_train",
            "stability",
            "trajectory",
            "seed_pool",
            "explore",
            "choose_frames",
            "composition_seeds",
        },
    ),
    ("explore.structures", 99, {"seed_pool"}),
    ("explore.faces", [(1, 1, 0)], {"seed_pool"}),
    ("explore.checked", 9, {"explore"}),
    ("explore.compositions", ["O"], {"composition_seeds"}),
    ("explore.drawn_crystals", 99, {"composition_seeds"}),
    ("explore.drawn_atoms", 9, {"composition_seeds"}),
    ("explore.crystals_per_composition", 9, {"composition_seeds"}),
    ("explore.energy_above_eV_per_atom", 0.5, {"composition_seeds"}),
    ("explore.vacancies", False, {"seed_pool"}),
    ("explore.slabs", False, {"seed_pool"}),
    ("explore.substitutions", {"Si": ["O"]}, {"seed_pool"}),
    ("explore.gamma_select", 3.0, {"explore", "choose_frames"}),
    ("explore.gamma_stop", 50.0, {"explore"}),
    ("properties.from_pool", 9, {"teacher_properties"}),
    ("properties.weights", {"elastic": 9.0}, {"frames"}),
    ("properties.reference", {"Si Fd-3m": {"C44": 79.6}}, set()),
    ("properties.prototypes", [{"structure": "fcc", "formula": "Si", "a_A": 3.8}], {"teacher_properties"}),
    *((f"properties.{name}", False, PROPERTIES) for name in ("elastic", "phonons", "vacancies", "surfaces")),
    *((f"properties.{name}", 12.5, PROPERTIES) for name in ("supercell_A", "slab_A", "vacuum_A")),
    ("stability.picoseconds", 9.0, {"stability"}),
    ("stability.temperature_K", 9.0, {"stability"}),
    ("stability.timestep_fs", 0.5, {"stability"}),
    ("stability.atoms", 99, {"stability"}),
    ("stability.max_drift_meV_per_atom_per_ps", 9.0, {"stability"}),
    ("trajectory.picoseconds", 9.0, {"trajectory"}),
    ("trajectory.temperatures_K", [9.0], {"trajectory"}),
    ("trajectory.frames", 9, {"stability", "trajectory"}),
    ("trajectory.atoms", 99, {"trajectory"}),
]
INPUTS = {
    "preset", "teacher.model", "teacher.committee", "pool.files", "dft.files", "dft.test_files", "dataset.base",
    "selection.potential", "properties.files", "explore.seeds", "explore.teacher", "explore.conditions",
}  # fmt: skip
"""Count by their content; a preset gives the others."""


def changed(config: DistillConfig, key: str, value: Any) -> DistillConfig:
    values = config.model_dump()
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[last] = value
    if value is LJ:
        place["reference_potential"] = "lj"
    if value == "full":
        place["potential"] = "old/potential.yaml"
    return DistillConfig.model_validate(values)


def options_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


CONDITION = Condition(ensemble="NVT", temperature_K=300.0, picoseconds=1.0)


@pytest.fixture
def base(config: DistillConfig) -> DistillConfig:
    """The defaults for a committee of two teachers with several heads."""
    values = config.model_dump()
    values["teacher"] |= {"head": "pbe", "committee": ["other.model"]}
    values["explore"] |= {"compositions": ["Si"], "conditions": [{"temperature_K": 300.0}]}
    return DistillConfig.model_validate(values)


@pytest.fixture
def all_calls(teacher: Teacher, artefact: Callable[..., Artefact], data: Artefact) -> Callable[..., list[StepCall]]:
    """Every call that a config leads to, DFT data included, in order."""
    e0s = {"pbe": {"O": 1.0, "Si": 2.0}, "scan": {"O": 3.0, "Si": 4.0}}
    two_heads = teacher.model_copy(update={"heads": ("pbe", "scan"), "e0s_eV": e0s})
    pool, labels, selection = artefact("ingest"), artefact("pool_labels"), artefact("pace_select")
    dft, dft_test = artefact("ingest", "dft"), artefact("ingest", "dft test")
    of_dft, strains = artefact("pool_labels", "dft"), artefact("pool_labels", "strains")
    baseline, dataset, frames = artefact("baseline"), artefact("dataset"), data
    fitted, active, core = artefact("pace_train").file("best"), artefact("pace_activeset"), artefact("pace_corerep")
    old = ("old data", "old selection", "old baseline")
    earlier = [External(path=Path("/runs/old/x"), sha256=name) for name in old]

    def make(config: DistillConfig, settings: Settings = CPU) -> list[StepCall]:
        recipe = resolve(config, [two_heads, two_heads], {"Si"}, set())
        first, other = (calls.label_call(recipe, file, two_heads) for file in FILES)
        workspace = Workspace(root=Path("/nowhere"), settings=settings)
        keys = [first.key(workspace), other.key(workspace)]
        return [
            calls.dft_call(config, FILES, [pool.file("structures")]),
            calls.teacher_info_call(FILES[0]),
            shard_call(SHARD, first, settings, None),
            calls.pool_labels_call(recipe, pool, keys),
            calls.baseline_call(recipe, labels, dft, dft_test, [of_dft], earlier[2], earlier[0]),
            calls.dataset_call(recipe, labels, dft, dft_test, earlier[0], keys),
            calls.select_call(recipe, dataset, baseline, settings, earlier[1], FILES[0]),
            calls.strain_call(recipe, dataset, selection),
            calls.frames_call(recipe, dataset, selection, baseline, strains),
            calls_fit.train_call(recipe, first_plan(recipe.stages[0]), frames, None, settings),
            calls_fit.active_set_call(recipe, fitted, frames),
            calls_fit.core_call(recipe, fitted, active, frames, baseline),
            calls.teacher_properties_call(recipe, FILES, labels, artefact("ingest", "crystals"), settings),
            calls_fit.student_properties_call(recipe, core, active, baseline, artefact("teacher_properties")),
            calls_fit.stability_call(recipe, core, active, frames, baseline),
            calls_fit.evaluate_call(recipe, core, active, frames, baseline, dft_test),
            calls_fit.trajectory_call(recipe, core, active, frames, baseline, artefact("stability")),
            calls_fit.teacher_motion_call(recipe, FILES, artefact("trajectory"), settings),
            calls.composition_seeds_call(config, FILES, recipe.head, artefact("ingest", "seeds"), settings),
            calls.seed_pool_call(config, artefact("ingest", "seeds")),
            calls_fit.explore_call(recipe, CONDITION, "start", 1, 1, artefact("seed_pool"), core, active, baseline),
            calls_fit.choose_frames_call(recipe, [artefact("explore")], 50, fitted, active, settings),
            calls_fit.trajectory_errors_call(
                core, active, baseline, artefact("trajectory"), artefact("pool_labels", "trajectory")
            ),
        ]

    return make


def keys(made: list[StepCall]) -> dict[str, str]:
    workspace = Workspace(root=Path("/nowhere"), settings=CPU)
    return {call.step: request_of(call, workspace).key for call in made}


@pytest.mark.parametrize(("key", "value", "steps"), OPTIONS)
def test_an_option_changes_these_steps_and_no_other(base, all_calls, key, value, steps) -> None:
    before, after = keys(all_calls(base)), keys(all_calls(changed(base, key, value)))
    assert {step for step in before if before[step] != after[step]} == steps


def test_no_option_is_forgotten_here() -> None:
    assert {key for key, _, _ in OPTIONS} | INPUTS == set(options_of(DistillConfig))


@pytest.mark.parametrize(
    ("settings", "reached"),
    [
        (
            {"cores": 7, "device": "cuda"},
            {step: {"threads": 7, "device": "cuda"} for step in ("mace_label", "pace_train", "teacher_motion")},
        ),
        ({"cores": 2, "label_device": "cuda"}, {"mace_label": {"device": "cuda"}, "pace_train": {"device": "cpu"}}),
        (
            {"cores": 2, "select_memory_GB": 1.5},
            {step: {"memory_bytes": 1_500_000_000} for step in ("pace_select", "choose_frames")},
        ),
        (
            {"cores": 3, "inter_op_threads": 2, "fit_memory_GB": 1.5, "step_timeout_s": 60},
            {
                "pace_train": {
                    "threads": 3,
                    "inter_op_threads": 2,
                    "memory_bytes": 1_500_000_000,
                    "time_limit_s": 60,
                    "device": "cpu",
                }
            },
        ),
    ],
)
def test_settings_of_the_machine_reach_their_steps_and_change_no_key(base, all_calls, settings, reached) -> None:
    here, there = all_calls(base), all_calls(base, Settings(**settings))
    assert keys(here) == keys(there)
    made = {call.step: call.resources for call in there}
    for step, wanted in reached.items():
        assert {name: getattr(made[step], name) for name in wanted} == wanted
    others = [resources for step, resources in made.items() if step not in reached]
    assert all(one.device == "cpu" and one.memory_bytes is None for one in others)


def test_threads_of_the_config_go_before_the_machine_s_cores(base, all_calls) -> None:
    made = {call.step: call.resources.threads for call in all_calls(changed(base, "train.threads", 3))}
    assert (made["mace_label"], made["pace_train"]) == (CPU.cores, 3)


def test_params_and_inputs_are_those_that_the_steps_declare(base, all_calls) -> None:
    for one in all_calls(base):
        module = load_step(one.step)
        assert module.Params.model_validate(one.params).model_dump(mode="json").items() >= one.params.items()


def test_every_step_reads_what_the_steps_before_it_wrote(base, all_calls) -> None:
    read = {
        call.step: {name: " + ".join(file.sha256 for file in files) for name, files in call.inputs.items()}
        for call in all_calls(base)[2:]
    }
    dft = {"dft": "ingest dft structures", "dft_test": "ingest dft test structures"}
    student = {"potential": "pace_corerep one potential", "asi": "pace_activeset one asi"}
    baseline, dataset = {"baseline": "baseline one baseline"}, {"dataset": "dataset one dataset"}
    labels, train = {"labels": "pool_labels one labels"}, {"train": "frames one train"}
    assert read == {
        "mace_label": {"structures": "c", "model": "b"},
        "pool_labels": {"structures": "ingest one structures"},
        "baseline": {
            "base": "old baseline", "base_set": "old data", "dft_teacher": "pool_labels dft labels",
            "dft_rejected": "pool_labels dft rejected", **dft, **labels,
        },
        "dataset": {"base": "old data", **dft, **labels},
        "teacher_properties": {
            "model": "b + a", "structures": "pool_labels one labels", "crystals": "ingest crystals structures",
        },
        "student_properties": {
            "properties": "teacher_properties one properties", "yace": "pace_corerep one yace",
            "reference_table": "pace_corerep one reference_table", **student, **baseline,
        },
        "pace_select": {"given": "old selection", "potential": "b", **dataset, **baseline},
        "strain": {"selection": "pace_select one selection", **dataset},
        "frames": {
            "selection": "pace_select one selection", "strains": "pool_labels strains labels",
            "dataset_set_aside": "dataset one set_aside", **dataset, **baseline,
        },
        "pace_train": {"validation": "frames one validation", **train},
        "pace_activeset": {"potential": "pace_train one best", **train},
        "pace_corerep": {"interim": "pace_train one best", "asi": "pace_activeset one asi", **train, **baseline},
        "stability": {**student, **baseline, **train},
        "evaluate": {
            "yace": "pace_corerep one yace", "test": "frames one test", "pure": "frames one pure",
            "dft_test": "ingest dft test structures", **student, **baseline,
        },
        "trajectory": {
            "stability": "stability one stability", "nve_frames": "stability one nve_frames",
            **student, **baseline, **train,
        },
        "composition_seeds": {"model": "b + a", "known": "ingest seeds structures"},
        "teacher_motion": {"model": "b + a", "trajectory": "trajectory one trajectory"},
        "seed_pool": {"seeds": "ingest seeds structures"},
        "explore": {"starts": "seed_pool one starts", **student, **baseline},
        "choose_frames": {
            "frames": "explore one structures", "potential": "pace_train one best", "asi": "pace_activeset one asi",
        },
        "trajectory_errors": {
            "trajectory": "trajectory one trajectory", "structures": "trajectory one structures",
            "labels": "pool_labels trajectory labels", "rejected": "pool_labels trajectory rejected",
            **student, **baseline,
        },
    }  # fmt: skip


def test_the_gate_of_the_config_has_the_defaults_of_the_step(base, all_calls) -> None:
    (gate,) = [one for one in all_calls(base) if one.step == "stability"]
    assert gate.params == stability.Params(seed=base.train.seed).model_dump(mode="json")


def test_files_of_one_name_are_distinct_names_by_their_folders() -> None:
    paths = [Path(name) for name in ("/a/run1/OUTCAR", "/a/run2/OUTCAR", "/a/run1/x.xyz")]
    assert calls.distinct_names(paths) == ("run1/OUTCAR", "run2/OUTCAR", "run1/x.xyz")
    assert calls.distinct_names(paths[1:]) == ("OUTCAR", "x.xyz")
    assert calls.distinct_names([paths[0], paths[0]]) == ("OUTCAR", "OUTCAR")
    assert calls.distinct_names([]) == ()


def test_files_keep_the_user_s_order_and_names_and_test_files_join_families(config: DistillConfig) -> None:
    call = calls.ingest_call(config, FILES)
    assert call.params["file_names"] == ["b.xyz", "a.xyz"]
    assert call.inputs["files"] == FILES
    assert call.params["energy_key"] is None
    assert calls.dft_call(config, FILES, test=True).params["joins"]
    assert not calls.dft_call(config, FILES).params["joins"]


def test_what_is_not_there_is_no_input(config: DistillConfig, recipe: Recipe, artefact: Any, data: Artefact) -> None:
    labels, dataset, baseline = artefact("pool_labels"), artefact("dataset"), artefact("baseline")
    assert set(calls.ingest_call(config, FILES).inputs) == {"files"}
    assert set(calls.baseline_call(recipe, labels, None, None, []).inputs) == {"labels"}
    assert set(calls.dataset_call(recipe, labels, None, None, None, [KEY]).inputs) == {"labels"}
    assert set(calls.select_call(recipe, dataset, baseline, CPU).inputs) == {"dataset", "baseline"}
    assert "strains" not in calls.frames_call(recipe, dataset, artefact("pace_select"), baseline, None).inputs
    made = calls_fit.evaluate_call(recipe, artefact("pace_corerep"), artefact("pace_activeset"), data, baseline, None)
    assert "dft_test" not in made.inputs
    core, active = artefact("pace_corerep"), artefact("pace_activeset")
    made = calls_fit.trajectory_call(recipe, core, active, data, baseline, None)
    assert set(made.inputs) == {"potential", "asi", "baseline", "train"}
    made = calls_fit.trajectory_errors_call(core, active, baseline, artefact("trajectory"), None)
    assert not {"labels", "rejected"} & set(made.inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({"train": FILES[0], "valid": FILES[0]}, "no input called valid"), ({"train": FILES[0]}, "called validation")],
)
def test_a_call_gives_the_inputs_that_the_step_declares(inputs: dict[str, External], message: str) -> None:
    with pytest.raises(StepError, match=message):
        call("pace_train", **inputs)


def test_the_plan_reaches_the_fit(recipe, data, artefact) -> None:
    plan = FitPlan(
        stage_maxiter=9, maxiter=5, kappa=0.02, batch_size=6, l1=1e-3, l2=1e-4, optimizer="L-BFGS-B",
        early_stop=EarlyStop(), cycles=2, noise=0.1, start="continue",
    )  # fmt: skip
    start = artefact("pace_train").file("interim")
    call = calls_fit.train_call(recipe, plan, data, start, CPU)
    params = pace_train.Params.model_validate(call.params)
    assert params.loss == Loss(kappa=0.02, l1=1e-3, l2=1e-4)
    for name in ("maxiter", "batch_size", "optimizer", "early_stop", "cycles", "noise", "ladder_step"):
        assert getattr(params, name) == getattr(plan, name), name
    assert call.inputs["start"] == (start,)


@pytest.mark.parametrize(
    ("changes", "core"),
    [({}, True), ({"zbl": "difference"}, False), *(({"reference_potential": name}, False) for name in ("lj", "none"))],
)
def test_pacemaker_makes_a_core_where_the_labels_keep_it(config, teacher, changes, core: bool) -> None:
    values = config.model_dump()
    values["pacemaker"] |= changes
    recipe = resolve(DistillConfig.model_validate(values), [teacher], {"Si"}, set())
    assert calls_fit.train_params(recipe, first_plan(recipe.stages[0])).core is core


def test_random_coefficients_are_for_a_fit_that_begins_with_none(config, teacher) -> None:
    recipe = resolve(changed(config, "train.coefficients", "random"), [teacher], {"Si"}, set())
    first = first_plan(recipe.stages[0])
    assert calls_fit.train_params(recipe, first).coefficients == "random"
    for later in ({"start": "continue"}, {"onward": True}):
        assert calls_fit.train_params(recipe, first.model_copy(update=later)).coefficients == "zero"


def test_the_user_s_own_keys_reach_the_fit(base, all_calls) -> None:
    own = {"ladder_type": "body_order"}
    call = next(call for call in all_calls(changed(base, "pacemaker.fit", own)) if call.step == "pace_train")
    assert call.params["fit"] == own


def test_a_foundation_model_is_fetched_by_its_name() -> None:
    call = calls.fetch_call(FOUNDATION_MODELS[0])
    assert (call.step, call.params, call.inputs) == ("teacher_fetch", {"name": FOUNDATION_MODELS[0]}, {})


def test_strained_structures_take_their_share_of_the_budget(
    config: DistillConfig, teacher: Teacher, artefact: Any
) -> None:
    def budget(**selection: object) -> tuple[int | None, float | None]:
        values = config.model_dump() | {"selection": selection}
        values["pacemaker"]["loss_stress"] = 0.7
        recipe = resolve(DistillConfig.model_validate(values), [teacher], {"Si"}, set())
        params = calls.select_call(recipe, artefact("dataset"), artefact("baseline"), CPU).params
        return params["max_structures"], params["fraction"]

    assert budget(max_structures=300) == (210, None)
    assert budget(fraction=0.5) == (None, pytest.approx(0.35))


def test_a_kappa_goes_before_the_weights_and_stress_counts_among_the_energies(config: DistillConfig) -> None:
    for kappa in (0.02, "auto"):
        assert changed(config, "pacemaker.kappa", kappa).pacemaker.force_share == kappa
    pacemaker = config.pacemaker
    assert pacemaker.force_share == pytest.approx(0.3)
    assert pacemaker.model_copy(update={"loss_stress": 0.5}).force_share == pytest.approx(0.2)
