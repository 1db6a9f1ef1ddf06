"""Section `explore`: a first pool from a few structures, and the simulations that the student must survive."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from containers.mace.exploration.formulas import check_compositions
from containers.tensorpot.exploration.seed_pool import Start
from flows.config.training import ConfigSection

ROOM_K = 300.0


class ExploreCondition(ConfigSection):
    """A simulation that the student is meant for."""

    ensemble: Literal["NVE", "NVT", "NPT"] = Field("NPT", description="what is kept constant; a slab is run at NVT")
    temperature_K: float = Field(gt=0, le=10000, description="K; of a ramp: at its beginning")
    end_temperature_K: float | None = Field(None, gt=0, le=10000, description="K at the end of a ramp")
    pressure_GPa: float = Field(0.0, ge=-20, le=1000, description="GPa, of NPT")
    picoseconds: float = Field(5.0, gt=0, le=10000, description="ps of each run")
    starts: list[Start] = Field(["bulk"], min_length=1, description="kinds of start structures, made of the seeds")
    replicas: int = Field(1, ge=1, le=100, description="runs from each start, which differ by chance")

    def milder(self, share: float) -> ExploreCondition:
        """Return this condition at a share of its time, its pressure, and its temperature above 300 K."""

        def eased(temperature_K: float) -> float:
            return round(min(temperature_K, ROOM_K) + share * max(temperature_K - ROOM_K, 0.0), 1)

        return self.model_copy(
            update={
                "temperature_K": eased(self.temperature_K),
                "end_temperature_K": eased(self.end_temperature_K) if self.end_temperature_K else None,
                "pressure_GPa": round(share * self.pressure_GPa, 4),
                "picoseconds": round(share * self.picoseconds, 4),
            }
        )


class Explore(ConfigSection):
    """Rounds in which the student runs simulations, and the teacher labels structures on which it extrapolates."""

    seeds: list[str] = Field(
        [], description="structures in files of the formats of pool.files: a first pool is made of them"
    )
    compositions: list[str] = Field(
        [], description="formulas such as Si or Ni3Al: random crystals of them, relaxed by the teacher, are seeds too"
    )
    drawn_crystals: int = Field(40, ge=1, description="random crystals of each composition")
    drawn_atoms: int = Field(12, ge=1, le=100, description="of a random crystal, at most")
    crystals_per_composition: int = Field(
        3, ge=1, description="lowest distinct crystals of each composition that become seeds"
    )
    energy_above_eV_per_atom: float = Field(
        1.0,
        gt=0,
        description="eV/atom; found structures higher above the lowest of their composition are left out",
    )
    structures: int = Field(200, ge=20, description="of the first pool made of the seeds")
    vacancies: bool = Field(True, description="the first pool has cells with a vacancy")
    slabs: bool = Field(True, description="the first pool has slabs")
    faces: list[tuple[int, int, int]] = Field(
        [], description="Miller indices of the slabs from which runs start, of the conventional cell; []: the lowest"
    )
    substitutions: dict[str, list[str]] = Field(
        {},
        description="element -> elements that may take its place; {}: metals mix, and elements of one column",
    )
    conditions: list[ExploreCondition] = Field([], description="simulations; none: no exploration")
    teacher: str | None = Field(
        None,
        description="another model (file or name), faster or softer, that labels rounds before `teacher` does",
    )
    levels: int = Field(3, ge=1, le=20, description="steps from mild conditions to those of `conditions`")
    rounds: int = Field(10, ge=1, le=100, description="rounds of runs at most; a finished student has one more")
    structures_per_round: int = Field(50, ge=1, description="that the teacher labels, at most")
    max_labels: int = Field(600, ge=1, description="labels of rounds and of the first pool made of seeds, at most")
    ask_above: int | None = Field(
        None, ge=0, description="structures that a round may label without approval; null: any number"
    )
    hours: float | None = Field(None, gt=0, description="of a command, after which it labels no more; null: no limit")
    maxiter: int = Field(100, ge=1, description="iterations of the fit of a round; the last fit has those of `train`")
    gamma_select: float = Field(2.0, gt=1, description="extrapolation grade above which a structure may be labelled")
    gamma_stop: float = Field(25.0, gt=1, description="extrapolation grade that ends a run")
    share: float = Field(0.01, ge=0, lt=1, description="share of steps above gamma_select that a condition may have")
    error_ratio: float = Field(
        1.5,
        gt=0,
        description="errors on frames of its own runs may be so many times those on the test split, or as large as the"
        " limits of `convergence`",
    )
    checked: int = Field(3, ge=1, description="frames of each run whose errors are measured, whatever their grade")

    @model_validator(mode="after")
    def _grades_rise(self) -> Explore:
        if self.gamma_stop <= self.gamma_select:
            raise ValueError("gamma_stop must be above gamma_select")
        check_compositions(self.compositions, self.drawn_atoms)
        if (self.seeds or self.compositions) and not self.conditions:
            name = "seeds" if self.seeds else "compositions"
            raise ValueError(f"{name} need conditions: simulations that the potential is meant for")
        if self.conditions and not (self.seeds or self.compositions):
            raise ValueError("conditions need seeds or compositions: structures that the simulations start from")
        return self
