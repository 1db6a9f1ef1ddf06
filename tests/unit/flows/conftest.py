"""A config, a teacher of two elements and made-up artefacts, for decisions that need no step to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.contract import OutputFile, load_step
from containers.mace.teacher.description import Teacher
from flows.config.schema import DistillConfig
from flows.data.prepare import Ingested, Prepared
from flows.data.recipe import Recipe, resolve
from tasks.artefact import Artefact

MakeArtefact = Callable[..., Artefact]


@pytest.fixture
def example() -> Path:
    """The bundled example's config."""
    return Path(__file__).parents[3] / "examples" / "silicon" / "distill.yaml"


@pytest.fixture
def config() -> DistillConfig:
    """The defaults."""
    return DistillConfig.model_validate(
        {"name": "test", "teacher": {"model": "teacher.model"}, "pool": {"files": ["pool.extxyz"]}}
    )


@pytest.fixture
def teacher() -> Teacher:
    """One head, Si and O."""
    return Teacher(
        model_class="ScaleShiftMACE",
        dtype="float64",
        elements=("O", "Si"),
        r_max_A=4.5,
        num_interactions=2,
        heads=("Default",),
        e0s_eV={"Default": {"O": -2.0, "Si": -1.0}},
    )


@pytest.fixture
def recipe(config: DistillConfig, teacher: Teacher) -> Recipe:
    """The defaults resolved for silicon data."""
    return resolve(config, [teacher], {"Si"}, set())


@pytest.fixture
def artefact() -> MakeArtefact:
    """Makes an artefact with the declared outputs of a step; files of the same `mark` have the same digests."""

    def make(step: str, mark: str = "one", cached: bool = False, **metrics: Any) -> Artefact:
        declared = load_step(step).OUTPUTS
        outputs = {key: OutputFile(name=name, sha256=f"{step} {mark} {key}", size=1) for key, name in declared.items()}
        return Artefact(
            step=step, key=f"{step} {mark}", outputs=outputs, metrics=metrics, versions={}, seconds=1.0,
            peak_memory_MB=1.0, cached=cached,
        )  # fmt: skip

    return make


@pytest.fixture
def prepared(config: DistillConfig, recipe: Recipe, teacher: Teacher, artefact: MakeArtefact) -> Prepared:
    """Data of silicon that nobody reads."""
    ingested = Ingested(artefact("ingest", elements=["Si"]), None, None)
    dataset = artefact("dataset", train_structures=70, force_mean_meV_per_A=1200.0, energy_spread_meV_per_atom=200.0)
    return Prepared(config, recipe, ingested, (teacher,), {}, artefact("baseline"), dataset)


@pytest.fixture
def data(artefact: MakeArtefact) -> Artefact:
    """Frames of 40 training structures."""
    return artefact("frames", train_structures=40, train_atoms=400)


@pytest.fixture
def fitted(artefact: MakeArtefact) -> MakeArtefact:
    """Makes the result of a fit; each has an interim potential of its own."""
    made: list[Artefact] = []

    def make(
        stop_reason: str = "max_iterations",
        force: float = 500.0,
        cached: bool = False,
        iterations: int = 150,
        batch: int = 24,
        **more: Any,
    ) -> Artefact:
        errors = {"validation_force_mae_meV_per_A": force, "validation_energy_mae_meV_per_atom": 1.0}
        done = {"iterations": iterations + 1, "interim_iteration": iterations}
        counts = {"stop_reason": stop_reason, **done, "batch_size": batch}
        made.append(artefact("pace_train", f"fit {len(made)}", cached, **counts, **errors, **more))
        return made[-1]

    return make
