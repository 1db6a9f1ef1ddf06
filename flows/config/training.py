"""Base of the config's sections, and those about the fit: stages, attempts, the gate after it, many fits at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from containers.contract import Closed
from containers.properties.compare import Group, PropertyLimits
from containers.properties.crystals import Prototype
from containers.properties.results import Settings
from containers.tensorpot.pacemaker.input import Kappa, Optimizer, Randomness, Regularisation, Schedule


class ConfigSection(BaseModel):
    """Base of all parts of the config: frozen, closed, no infinities, and no text or truth values for numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Stage(ConfigSection):
    """A part of the fit with a loss of its own. Each stage starts from the best potential of the one before."""

    kappa: Kappa = Field(description="force share of the loss")
    maxiter: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        description="iterations of one attempt; auto: a fifth of the parameters, a twentieth in a later stage"
    )


class Train(Randomness, Regularisation, Schedule, ConfigSection):
    """The fit."""

    stages: list[Stage] = Field(
        [], description="losses one after another, such as kappa 0.3, then 0.02 for the energies; none: one stage"
    )
    optimizer: Literal["auto"] | Optimizer = Field(
        "auto", description="auto: BFGS up to 20,000 parameters, L-BFGS-B beyond"
    )
    max_attempts: int = Field(3, ge=1, le=20, description="fits a stage at most; after the first with a changed plan")
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="threads of a fit; auto: all cores"
    )


class Stability(ConfigSection):
    """The gate that a potential passes before it is called converged: molecular dynamics at constant energy."""

    picoseconds: float = Field(2.0, ge=0, le=1000, description="ps of NVE; 0: no gate")
    temperature_K: float = Field(300.0, gt=0, le=10000, description="K, at its beginning")
    timestep_fs: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        "auto", description="fs; auto: 1, less with light elements"
    )
    atoms: int = Field(64, ge=64, description="at least so many: a training structure is repeated")
    max_drift_meV_per_atom_per_ps: float = Field(1.0, gt=0, description="of the total energy")


class Trajectory(ConfigSection):
    """Errors on structures of the student's own molecular dynamics, which the teacher labels after the last round."""

    picoseconds: float = Field(1.0, ge=0, le=1000, description="ps of each run at constant temperature; 0: no frames")
    temperatures_K: Literal["auto"] | list[Annotated[float, Field(gt=0, le=10000)]] = Field(
        "auto", description="K; auto: 300 and 0.8 of the highest in the training structures, at most 2000"
    )
    frames: int = Field(10, ge=1, le=1000, description="structures to label of each run, and of the run of `stability`")
    atoms: int = Field(64, ge=2, description="at least so many: a training structure is repeated")


class PropertiesConfig(Settings, ConfigSection):
    """Crystals and molecules on which student and teacher are compared: elastic constants, phonons, bonds and more."""

    from_pool: int = Field(
        3,
        ge=0,
        description="at most so many crystals, and molecules, from the pool: the lowest of each composition; 0: none",
    )
    prototypes: list[Prototype] = Field([], description="crystals by the name of their structure; they come first")
    files: list[str] = Field([], description="crystals in files of the formats of pool.files; they come next")
    in_training: list[Group] = Field(
        ["elastic", "vacancy", "surface", "molecule"],
        description="groups of properties whose structures, labelled by the teacher, the first fit has already",
    )
    weights: dict[Group, Annotated[float, Field(gt=0)]] = Field(
        {}, description="weight of all structures of a group over the others' in the fit; {}: docs/use/properties.md"
    )
    reference: dict[str, dict[str, float]] = Field(
        {},
        description="DFT or experiment for the report, in its units, such as {Si Fd-3m: {C44: 79.6, vacancy Si: 3.6}}",
    )

    @property
    def wanted(self) -> bool:
        """True where the config asks for crystals or molecules."""
        return bool(self.from_pool or self.prototypes or self.files)

    @property
    def settings(self) -> Settings:
        """Properties to measure, and the sizes of their cells."""
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


class Extend(ConfigSection):
    """Rounds of more structures, more functions or structures for properties, where a sound potential misses
    `convergence`."""

    rounds: int = Field(2, ge=0, le=20, description="times at most; 0: never")
    structures: int = Field(50, ge=1, description="training structures that a round adds")
    max_structures: int | None = Field(None, ge=1, description="training structures at most; null: those of the pool")
    max_functions_per_element: int | None = Field(
        None, ge=1, description="basis functions at most; null: twice functions_per_element"
    )
    min_gain: float = Field(
        0.05, gt=0, lt=1, description="share by which a round must lower the validation error, or what properties miss"
    )
    property_rounds: int = Field(
        4, ge=0, le=20, description="rounds at most that add structures for properties that miss; 0: none"
    )
    error_growth: float = Field(
        0.5, ge=0, description="share by which a round for properties may raise the validation error, within its limit"
    )


NOT_VARIED = ("name", "preset", "sweep", "extend", "explore", "trajectory")
"""Keys that a sweep cannot vary: each student keeps its training set and basis, every value is filled in, and there is
no trajectory."""


class Sweep(ConfigSection):
    """Many fits (python -m flows.sweep): every combination of values, a committee of equals, or one after the other."""

    vary: dict[str, list[Any]] = Field(
        {}, description="key of the config -> its values, such as pacemaker.cutoff: [4.5, 5.0, 6.0]"
    )
    committee: int = Field(
        0, ge=0, le=64, description="students that differ by chance alone, of the config or of the one taken; 0: none"
    )
    differ_by: Literal["coefficients", "bootstrap"] = Field(
        "bootstrap", description="what chance decides: the first coefficients, or which structures are drawn"
    )
    at_once: int = Field(1, ge=1, description="fits at a time on a machine; they share its cores")
    take: Literal["best", "cheapest"] = Field(
        "best", description="which student chosen.yaml makes: the smallest force error, or the fastest of those within"
    )
    within: float = Field(0.1, ge=0, description="cheapest: of those whose force error exceeds the best by this share")

    @model_validator(mode="after")
    def _something_can_vary(self) -> Sweep:
        for key, values in self.vary.items():
            if not values:
                raise ValueError(f"vary.{key} has no values")
            if key.partition(".")[0] in NOT_VARIED:
                raise ValueError(f"vary.{key}: {', '.join(NOT_VARIED)} are the same for every student of a sweep")
            if key == "train.threads":
                raise ValueError("vary.train.threads: threads are no part of a result, its students would be one fit")
        if self.committee == 1:
            raise ValueError("a committee of one has no spread: give 2 or more, or 0 for none")
        return self


class Limits(Closed):
    """Largest errors and deviations of a student that is good enough."""

    force_mae_meV_per_A: float = Field(gt=0)
    energy_mae_meV_per_atom: float = Field(gt=0)
    properties: PropertyLimits = PropertyLimits()


class Convergence(ConfigSection):
    """When a student is good enough: errors on validation and test structures, and properties of crystals."""

    force_mae_meV_per_A: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="meV/Å, mean absolute error of force components; auto: a tenth of their mean size, from 10 to 120",
    )
    energy_mae_meV_per_atom: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="meV/atom, mean absolute error of energies; auto: a tenth of their spread at equal"
        " composition, from 1 to 20",
    )
    properties: PropertyLimits = PropertyLimits()

    def limits(self, force_mean_meV_per_A: float, energy_spread_meV_per_atom: float) -> Limits:
        """Return the limits for data with this mean size of force components and this spread of energies."""
        force, energy = self.force_mae_meV_per_A, self.energy_mae_meV_per_atom
        return Limits(
            force_mae_meV_per_A=_tenth(force_mean_meV_per_A, *FORCE_MAE) if force == "auto" else force,
            energy_mae_meV_per_atom=_tenth(energy_spread_meV_per_atom, *ENERGY_MAE) if energy == "auto" else energy,
            properties=self.properties,
        )


FORCE_MAE, ENERGY_MAE = (10.0, 120.0), (1.0, 20.0)
"""Range of the automatic limits (meV/Å, meV/atom)."""


def _tenth(size: float, least: float, most: float) -> float:
    return float(f"{min(max(size / 10, least), most):.2g}")
