"""The config of a run, closed and with units. It never reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from containers.contract import BadInput
from containers.ingest.families import LIKENESS_A
from containers.labels.bounds import Sanity
from containers.structures.split import Split
from containers.tensorpot.baseline.baseline import LennardJones
from containers.tensorpot.pacemaker.blocks import Overrides
from containers.tensorpot.pacemaker.input import Kappa
from containers.tensorpot.pacemaker.own_keys import own_backend, own_fit
from flows.config.exploration import Explore
from flows.config.training import (
    ConfigSection,
    Convergence,
    Extend,
    PropertiesConfig,
    Stability,
    Sweep,
    Train,
    Trajectory,
)

PresetName = Literal["standard", "accurate"]
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "standard": {},  # the sections' own defaults
    "accurate": {
        "pacemaker": {"cutoff": "wide", "order": 4, "functions_per_element": 300, "densities": 4},
        "selection": {"max_structures": 200},
        "properties": {"weights": {"elastic": 12.0}},
        "extend": {"error_growth": 0.05},
        "train": {"stages": [{"kappa": 0.3, "maxiter": "auto"}, {"kappa": 0.03, "maxiter": "auto"}]},
    },
}
"""Values of the keys that a config does not set itself. Measured in docs/use/training.md."""


def _known_element(symbol: str) -> str:
    if atomic_numbers.get(symbol, 0) == 0:
        raise ValueError(f"{symbol!r} is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


def _pair_of_elements(name: str) -> str:
    symbols = name.split("-")
    if len(symbols) != 2 or symbols != sorted(symbols):
        raise ValueError(f"{name!r} is no pair of elements: write two symbols in alphabetic order, such as Al-Ni")
    for symbol in symbols:
        _known_element(symbol)
    return name


Pair = Annotated[str, AfterValidator(_pair_of_elements)]
Length = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(gt=0)]


class TeacherConfig(ConfigSection):
    """The MACE model, or the committee of models, whose energies, forces and stresses are learned."""

    model: str = Field(description="path of a .model file, or the name of a MACE foundation model")
    head: str | None = Field(None, description="which head of a multi-head model; needed when there are several")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the labels' computation")
    committee: list[str] = Field([], description="further models (file or name): labels are the mean over all of them")
    max_force_std: float | None = Field(
        None, description="eV/Å; structures whose forces the committee does not agree on so far are set aside", gt=0
    )

    @field_validator("committee")
    @classmethod
    def _no_model_twice(cls, value: list[str], info: Any) -> list[str]:
        if len({info.data.get("model"), *value}) <= len(value):
            raise ValueError("names a model twice, or teacher.model again: each must be another model")
        return value

    @field_validator("max_force_std")
    @classmethod
    def _needs_a_committee(cls, value: float | None, info: Any) -> float | None:
        if value is not None and not info.data.get("committee"):
            raise ValueError("one model has no deviation: name further models in teacher.committee, or leave it out")
        return value


class Pool(ConfigSection):
    """The unlabelled structures."""

    files: list[str] = Field([], description="extended XYZ, anything ASE reads, ASE databases, Parquet")


class Dft(ConfigSection):
    """Reference calculations, used beside the teacher's labels."""

    files: list[str] = Field([], description="structures with energies and forces that go into training")
    test_files: list[str] = Field([], description="structures that only the evaluation sees")
    energy_key: str = Field(
        "auto", min_length=1, description="name of the total energy (eV); auto: REF_energy, else the file's own energy"
    )
    forces_key: str = Field(
        "auto", min_length=1, description="name of the forces (eV/Å); auto: REF_forces, else the file's own forces"
    )
    stress_key: str | None = Field(
        None,
        description="name of the stress (eV/Å³), for evaluation; auto: REF_stress, else the file's; null: none",
    )
    energies: Literal["refuse", "align"] = Field(
        "refuse", description="DFT energies that differ from the teacher's by a constant an element: refuse or align"
    )


class Dataset(ConfigSection):
    """The labelled data as a whole."""

    base: str | None = Field(
        None, description="folder of an earlier run (runs/NAME): its data stay in, what it selected stays selected"
    )
    test_leaks: Literal["refuse", "set_aside"] = Field(
        "refuse", description="DFT training structures of a family that the DFT test files have: refuse or set aside"
    )
    weights: dict[str, Weight] = Field({}, description="group -> weight of its structures in the fit; others have 1")
    type_elements: list[Element] = Field(
        [],
        description="elements of the types, in their order, where files do not name them: LAMMPS dumps and data files"
        " (from type 1), MLIP's .cfg (from type 0)",
    )
    mlip_elements: list[Element] = Field([], description="the old name of type_elements")
    likeness_A: float = Field(
        LIKENESS_A, ge=0, description="Å; structures without a family that differ less share one; 0: each has its own"
    )
    reference_energies: Literal["teacher", "isolated_atoms", "least_squares"] | dict[Element, float] = Field(
        "teacher", description="E0 of each element, or eV an atom by element: what the student's energies leave out"
    )

    @model_validator(mode="after")
    def _types_by_one_name(self) -> Dataset:
        if self.type_elements and self.mlip_elements:
            raise ValueError("mlip_elements is the old name of type_elements: give type_elements alone")
        return self

    @property
    def elements_of_types(self) -> list[str]:
        """Elements of the types in the files that do not say, by either name of the key."""
        return self.type_elements or self.mlip_elements


class Pacemaker(ConfigSection):
    """The student potential and its loss."""

    elements: Literal["auto"] | list[Element] = Field("auto", description="auto: those in pool and DFT data")
    cutoff: Literal["auto", "wide"] | Length = Field(
        "auto",
        description="Å; auto: the teacher's r_max; wide: 1.1 times that, as a teacher of two layers sees farther",
    )
    order: int = Field(3, ge=1, le=6, description="highest correlation order")
    b_basis: Literal["mace", "small", "medium", "large"] | dict[str, Any] = Field(
        "mace", description="shape of the basis, or a pacemaker potential section"
    )
    functions_per_element: int = Field(250, ge=1, description="at most so many basis functions an element")
    densities: int = Field(
        2, ge=1, le=4, description="sums of functions whose powers make an atom's energy; 4 fit better at the same cost"
    )
    overrides: Overrides = Field(
        Overrides(), description="what differs from the preset for elements (Al) and pairs (Al-Ni)"
    )
    fit: dict[str, Any] = Field(
        {}, description="further keys of pacemaker's fit section, see docs/use/pacemaker_input.md"
    )
    backend: dict[str, Any] = Field({}, description="further keys of pacemaker's backend section")
    kappa: Kappa | None = Field(
        None,
        description="force share of the loss instead of loss_*, where there are no train.stages; auto: by the variances"
        " of energies and forces",
    )
    loss_energy: float = Field(
        0.7, ge=0, description="weight of energies; kappa, where none is given: forces / (energy + forces + stress)"
    )
    loss_forces: float = Field(0.3, ge=0, description="weight of forces")
    loss_stress: float = Field(
        0.0,
        ge=0,
        description="weight of stress, learned from strained structures in the training set; try 0.7",
    )
    weight_dft: float = Field(10.0, gt=0, description="weight of a DFT structure over a pseudo-labelled one")
    energy_weights: bool = Field(
        True, description="structures high above the ground state and large forces count less in the fit"
    )
    energy_scale_eV_per_atom: float = Field(
        1.0, gt=0, description="eV/atom above the convex hull at which a structure counts a quarter"
    )
    force_scale_eV_per_A: float = Field(
        1.0, gt=0, description="eV/Å, root mean square force at which the forces of a structure count half"
    )
    reference_potential: Literal["none", "zbl", "lj"] = Field(
        "zbl", description="zbl: repulsion at short distances; lj: the student learns the labels minus Lennard-Jones"
    )
    zbl: Literal["core", "difference"] = Field(
        "core", description="core: ZBL takes over at short distances; difference: the student learns labels minus ZBL"
    )
    r_in_A: Literal["auto"] | dict[Pair, Length] = Field("auto", description="Å by pair: where the core takes over")
    lj: Literal["auto"] | dict[Pair, LennardJones] = Field(
        "auto", description="epsilon_eV and sigma_A by pair; auto: fitted to the short distances of the data"
    )

    @field_validator("fit", "backend")
    @classmethod
    def _keys_of_pacemaker(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            (own_fit if info.field_name == "fit" else own_backend)(value)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("loss_stress")
    @classmethod
    def _stress_is_learned_from_energies(cls, value: float, info: Any) -> float:
        if value > 0 and info.data.get("loss_energy") == 0:
            raise ValueError("stress is learned from energies of strained structures: loss_energy must be above 0")
        return value

    @field_validator("loss_forces")
    @classmethod
    def _some_loss(cls, value: float, info: Any) -> float:
        if value + info.data.get("loss_energy", 1.0) <= 0:
            raise ValueError("loss_energy + loss_forces must be above 0")
        return value

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Pacemaker:
        if self.zbl == "difference" and self.reference_potential != "zbl":
            raise ValueError("zbl: difference needs reference_potential: zbl")
        if self.lj != "auto" and self.reference_potential != "lj":
            raise ValueError("lj has parameters, but reference_potential is not lj")
        if self.r_in_A != "auto" and self.reference_potential == "none":
            raise ValueError("r_in_A has distances, but reference_potential is none")
        if not self.energy_weights and (self.energy_scale_eV_per_atom, self.force_scale_eV_per_A) != (1.0, 1.0):
            raise ValueError("energy_scale_eV_per_atom and force_scale_eV_per_A need energy_weights: true")
        return self

    @property
    def force_share(self) -> float | Literal["auto"]:
        """pacemaker's kappa, in [0, 1]. Stress is learned from energies and counts among them."""
        if self.kappa is not None:
            return self.kappa
        return self.loss_forces / (self.loss_energy + self.loss_forces + self.loss_stress)

    @property
    def learns_difference(self) -> bool:
        """True where the labels are taken relative to a pair potential."""
        return self.reference_potential == "lj" or (self.reference_potential == "zbl" and self.zbl == "difference")


class Selection(ConfigSection):
    """The choice of training structures from the training split of the pool."""

    method: Literal["combined", "d_optimal", "random", "all"] = Field(
        "combined", description="combined: D-optimal structures guard the tails, the rest stand for the bulk"
    )
    max_structures: int = Field(300, ge=1, description="size of the training set without DFT structures")
    fraction: float | None = Field(
        None, gt=0, le=1, description="size as a share of the candidates, instead of max_structures"
    )
    projections: Literal["linear", "full"] = Field(
        "linear", description="what MaxVol looks at: the basis functions, or the energy's derivatives by coefficients"
    )
    potential: str | None = Field(
        None, description="a fitted potential.yaml of the same basis: full projections need its coefficients"
    )

    @model_validator(mode="after")
    def _full_needs_a_potential(self) -> Selection:
        if self.projections == "full" and self.potential is None:
            raise ValueError("full projections need coefficients: give potential, the potential.yaml of an earlier run")
        return self


class DistillConfig(ConfigSection):
    """Everything that decides the result."""

    name: str = Field(description="names the folder runs/NAME", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    preset: PresetName = Field(
        "standard", description="accurate: a longer reach, a larger basis and set, stages; about ten times the fit"
    )
    teacher: TeacherConfig
    pool: Pool = Pool()
    explore: Explore = Explore()
    dft: Dft = Dft()
    dataset: Dataset = Dataset()
    labels: Sanity = Sanity()
    pacemaker: Pacemaker = Pacemaker()
    selection: Selection = Selection()
    split: Split = Split()
    train: Train = Train()
    convergence: Convergence = Convergence()
    stability: Stability = Stability()
    trajectory: Trajectory = Trajectory()
    properties: PropertiesConfig = PropertiesConfig()
    extend: Extend = Extend()
    sweep: Sweep = Sweep()

    @model_validator(mode="after")
    def _patience_is_given(self) -> DistillConfig:
        if "min_relative_test_loss_per_iter" in self.pacemaker.fit and self.train.early_stop is None:
            raise ValueError(
                "pacemaker.fit.min_relative_test_loss_per_iter needs train.early_stop, whose patience counts for both"
            )
        return self

    @model_validator(mode="after")
    def _has_structures(self) -> DistillConfig:
        if not (self.pool.files or self.explore.seeds or self.explore.compositions):
            raise ValueError("give structures: pool.files, or explore.seeds or explore.compositions for a first pool")
        return self

    @model_validator(mode="after")
    def _explores_with_another(self) -> DistillConfig:
        if self.explore.teacher == self.teacher.model:
            raise ValueError("explore.teacher is teacher.model: leave it out, or name another model")
        return self

    @property
    def of_exploration(self) -> DistillConfig:
        """This config with `explore.teacher` in the place of the teacher, and nothing that only the last fit needs."""
        assert self.explore.teacher
        changes: dict[str, dict[str, Any]] = {
            "teacher": {"model": self.explore.teacher, "committee": [], "head": None, "max_force_std": None},
            "explore": {"teacher": None},
            "dft": {"files": [], "test_files": []},
            "dataset": {"base": None},
            "selection": {"potential": None},
            "properties": {"from_pool": 0, "prototypes": [], "files": []},
        }
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=values) for name, values in changes.items()}
        )

    @property
    def notices(self) -> list[str]:
        """Remarks on the config for the user, before anything runs."""
        renamed = ["dataset.mlip_elements is now called dataset.type_elements"] if self.dataset.mlip_elements else []
        return renamed + self.without_effect

    @property
    def without_effect(self) -> list[str]:
        """Sentences on keys that are set and change nothing: a preset, or one `--set`, may be the reason."""
        given = {
            "train.maxiter": self.train.maxiter != Train().maxiter,
            "pacemaker.kappa": self.pacemaker.kappa is not None,
            "pacemaker.loss_forces": self.pacemaker.loss_forces != Pacemaker().loss_forces,
            "pacemaker.loss_energy": self.pacemaker.loss_energy != Pacemaker().loss_energy
            and self.pacemaker.loss_stress == 0,  # what stress weighs is a share of it
        }
        if self.train.stages:
            why = "has no effect beside train.stages: each stage has its own; train.stages=[] fits in one stage"
            return [f"{key} {why}" for key in given if given[key]]
        why = "has no effect beside pacemaker.kappa; pacemaker.kappa=null takes the weights"
        weights = ("pacemaker.loss_energy", "pacemaker.loss_forces") if given["pacemaker.kappa"] else ()
        return [f"{key} {why}" for key in weights if given[key]]

    @model_validator(mode="before")
    @classmethod
    def _preset_below(cls, values: Any) -> Any:
        """Keep what is given, and fill the rest from the preset. The fields refuse what is no preset or no section."""
        name = values.get("preset") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in PRESETS:
            return values
        filled = dict(values)
        for section, defaults in PRESETS[name].items():
            given = {} if filled.get(section) is None else filled[section]
            filled[section] = {**defaults, **given} if isinstance(given, Mapping) else given
        return filled
