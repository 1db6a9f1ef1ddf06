"""Which option of the config changes which step's key, with the results of the other steps held fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from containers.contract import load_step
from containers.mace.fetch import FOUNDATION_MODELS
from containers.mace.teacher_info import Teacher
from flows import calls
from flows.config import DistillConfig
from flows.fit import first_plan
from flows.plan import FitPlan
from flows.recipe import resolve
from tasks.artefact import Artefact, External, StepCall
from tasks.label import shard_call
from tasks.label_shards import Shard
from tasks.run import request_of
from tasks.settings import Settings
from tasks.workspace import Workspace

CPU = Settings(cores=2, device="cpu")
FILES = (External(path=Path("/data/b.xyz"), sha256="b"), External(path=Path("/data/a.xyz"), sha256="a"))
SHARD = Shard(file=Path("/store/labels/00001.parquet"), sha256="c", structures=1, atoms=2)
SECTION = {
    "elements": ["Si"],
    "embeddings": {"ALL": {"ndensity": 1}},
    "bonds": {"ALL": {"rcut": 4.5}},
    "functions": {"ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
}

OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("name", "other", set()),
    ("teacher.head", "scan", {"mace_label", "pool_labels", "pace_select", "dataset", "evaluate"}),
    ("teacher.dtype", "float64", {"mace_label", "pool_labels"}),
    ("teacher.max_force_std", 0.1, {"pool_labels"}),
    ("labels.max_force_eV_per_A", 9.0, {"pool_labels"}),
    ("labels.max_energy_eV_per_atom", 9.0, {"pool_labels"}),
    ("labels.min_distance_A", 0.9, {"pool_labels"}),
    ("dft.energy_key", "E", {"ingest"}),
    ("dft.forces_key", "F", {"ingest"}),
    ("pacemaker.elements", ["Si", "O"], {"pool_labels", "pace_select", "dataset", "pace_train", "evaluate"}),
    ("pacemaker.cutoff", 6.0, {"pace_select", "dataset", "pace_train"}),
    ("pacemaker.order", 2, {"pace_select", "pace_train"}),
    ("pacemaker.b_basis", "small", {"pace_select", "pace_train"}),
    ("pacemaker.b_basis", SECTION, {"pace_select", "pace_train"}),
    ("pacemaker.functions_per_element", 99, {"pace_select", "pace_train"}),
    ("pacemaker.loss_energy", 0.5, {"pace_train"}),
    ("pacemaker.loss_forces", 0.5, {"pace_train"}),
    ("pacemaker.weight_dft", 3.0, {"dataset"}),
    ("pacemaker.reference_potential", "none", {"pace_train"}),
    ("selection.method", "random", {"pace_select"}),
    ("selection.max_structures", 99, {"pace_select"}),
    ("split.validation", 0.2, {"pace_select", "dataset"}),
    ("split.test", 0.2, {"pace_select", "dataset"}),
    ("train.maxiter", 99, {"pace_train"}),
    ("train.batch_size", 9, {"pace_train"}),
    ("train.max_attempts", 9, set()),
    ("train.seed", 9, {"pace_select", "pace_train"}),
    ("train.threads", 9, set()),
    ("convergence.force_mae_meV_per_A", 9, set()),
    ("convergence.energy_mae_meV_per_atom", 9, set()),
]
INPUTS = {"teacher.model", "teacher.committee", "pool.files", "dft.files", "dft.test_files"}  # count by their content
ONE_VALUE = {"pacemaker.loss_stress"}  # 0 is all it may be


def changed(config: DistillConfig, key: str, value: Any) -> DistillConfig:
    values = config.model_dump()
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[last] = value
    return DistillConfig.model_validate(values)


def options_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.fixture
def base(config: DistillConfig) -> DistillConfig:
    """The defaults for a committee of two teachers with several heads."""
    return changed(changed(config, "teacher.head", "pbe"), "teacher.committee", ["other.model"])


@pytest.fixture
def all_calls(teacher: Teacher, artefact: Callable[..., Artefact], data: Artefact) -> Callable[..., list[StepCall]]:
    """Every call that a config leads to, DFT data included, in order."""
    e0s = {"pbe": {"O": 1.0, "Si": 2.0}, "scan": {"O": 3.0, "Si": 4.0}}
    two_heads = teacher.model_copy(update={"heads": ("pbe", "scan"), "e0s_eV": e0s})
    pool, labels, selection = artefact("ingest"), artefact("pool_labels"), artefact("pace_select")
    dft, dft_test = artefact("ingest", "dft"), artefact("ingest", "dft test")
    active, potential = artefact("pace_activeset"), artefact("pace_train").file("potential")

    def make(config: DistillConfig, settings: Settings = CPU) -> list[StepCall]:
        recipe = resolve(config, [two_heads, two_heads], {"Si"}, set())
        asked, other = (calls.asked(recipe, file, two_heads) for file in FILES)
        workspace = Workspace(root=Path("/nowhere"), settings=settings)
        return [
            calls.dft_call(config, FILES),
            calls.teacher_call(FILES[0]),
            shard_call(SHARD, asked, settings, None),
            calls.pool_labels_call(recipe, pool, [asked.key(workspace), other.key(workspace)]),
            calls.select_call(recipe, labels),
            calls.dataset_call(recipe, labels, selection, dft, dft_test),
            calls.train_call(recipe, first_plan(recipe, data), data, None, settings),
            calls.active_set_call(potential, data),
            calls.evaluate_call(recipe, potential, active, data, dft_test),
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
    assert {key for key, _, _ in OPTIONS} | INPUTS | ONE_VALUE == set(options_of(DistillConfig))


def test_the_machine_changes_no_key(base, all_calls) -> None:
    here, there = all_calls(base), all_calls(base, Settings(cores=7, device="cuda"))
    assert keys(here) == keys(there)
    assert [call.resources for call in here] != [call.resources for call in there]


def test_cores_and_device_reach_the_two_long_steps(base, all_calls) -> None:
    made = {call.step: call.resources for call in all_calls(base, Settings(cores=7, device="cuda"))}
    assert {step for step, wanted in made.items() if (wanted.threads, wanted.device) == (7, "cuda")} == {
        "mace_label",
        "pace_train",
    }


def test_the_teacher_may_have_a_device_of_its_own(base, all_calls) -> None:
    made = {call.step: call.resources.device for call in all_calls(base, Settings(cores=2, label_device="cuda"))}
    assert (made["mace_label"], made["pace_train"]) == ("cuda", "cpu")


def test_threads_of_the_config_go_before_the_machine_s_cores(base, all_calls) -> None:
    made = {call.step: call.resources.threads for call in all_calls(changed(base, "train.threads", 3))}
    assert (made["mace_label"], made["pace_train"]) == (CPU.cores, 3)


def test_params_and_inputs_are_those_that_the_steps_declare(base, all_calls) -> None:
    for call in all_calls(base):
        module = load_step(call.step)
        assert module.Params.model_validate(call.params).model_dump(mode="json").items() >= call.params.items()
        assert set(call.inputs) <= set(module.INPUTS)


def test_every_step_reads_what_the_steps_before_it_wrote(base, all_calls) -> None:
    read = {
        call.step: {name: [file.sha256 for file in files] for name, files in call.inputs.items()}
        for call in all_calls(base)[2:]
    }
    assert read == {
        "mace_label": {"structures": ["c"], "model": ["b"]},
        "pool_labels": {"structures": ["ingest one structures"]},
        "pace_select": {"labels": ["pool_labels one labels"]},
        "dataset": {
            "labels": ["pool_labels one labels"],
            "selection": ["pace_select one selection"],
            "dft": ["ingest dft structures"],
            "dft_test": ["ingest dft test structures"],
        },
        "pace_train": {"train": ["dataset one train"], "validation": ["dataset one validation"]},
        "pace_activeset": {"potential": ["pace_train one potential"], "train": ["dataset one train"]},
        "evaluate": {
            "potential": ["pace_train one potential"],
            "asi": ["pace_activeset one asi"],
            "test": ["dataset one test"],
            "dft_test": ["ingest dft test structures"],
        },
    }


def test_files_keep_the_user_s_order_and_names() -> None:
    call = calls.ingest_call(FILES)
    assert call.params["file_names"] == ["b.xyz", "a.xyz"]
    assert call.inputs["files"] == FILES
    assert call.params["energy_key"] is None


def test_dft_inputs_are_left_out_when_there_are_none(recipe, artefact, data) -> None:
    made = calls.dataset_call(recipe, artefact("pool_labels"), artefact("pace_select"), None, None)
    assert list(made.inputs) == ["labels", "selection"]
    potential = artefact("pace_train").file("potential")
    assert "dft_test" not in calls.evaluate_call(recipe, potential, artefact("pace_activeset"), data, None).inputs


def test_the_plan_reaches_the_fit(recipe, data, artefact) -> None:
    plan = FitPlan(maxiter=5, batch_size=6, l1=1e-3, l2=1e-4, ladder_step=7, start="continue")
    start = artefact("pace_train").file("interim")
    call = calls.train_call(recipe, plan, data, start, CPU)
    params = call.params
    assert (params["maxiter"], params["batch_size"], params["ladder_step"]) == (5, 6, 7)
    assert (params["loss"]["l1"], params["loss"]["l2"], params["loss"]["kappa"]) == (1e-3, 1e-4, pytest.approx(0.3))
    assert call.inputs["start"] == (start,)


def test_a_foundation_model_is_fetched_by_its_name() -> None:
    call = calls.fetch_call(FOUNDATION_MODELS[0])
    assert (call.step, call.params, call.inputs) == ("teacher_fetch", {"name": FOUNDATION_MODELS[0]}, {})
