"""`pace_corerep`: a core that keeps atoms apart, and the export to LAMMPS.

Its core does not change a potential outside r_in, nor anywhere the extrapolation grade.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, StepMetrics
from containers.structures.distances import touching
from containers.tensorpot.core import inner_radius as core
from containers.tensorpot.evaluation.invariants import Invariants, check
from containers.tensorpot.frames.frame_file import read_frame
from containers.tensorpot.student.baseline import Baseline, pair_names
from containers.tensorpot.student.calculator import load
from containers.tensorpot.student.lammps import Files
from containers.tensorpot.student.lammps_table import table_text

IMAGE: Image = "tensorpot"
VERSION = 5
INPUTS = {
    "interim": "fitted B-basis without a core (`best` of pace_train)",
    "asi": "its active set (.asi)",
    "train": "the frame it was trained on (.pckl.gzip)",
    "baseline": "what the fit left out (baseline.json)",
}
OUTPUTS = {
    "potential": "potential.yaml",  # B-basis, with its core
    "yace": "potential.yace",  # the same for LAMMPS; energies without E0s and pair terms
    "core_repulsion": "core_repulsion.json",  # {"pairs": {"Al-Ni": PairCore}}
    "reference_table": "reference.table",  # the pair terms for LAMMPS; a comment when there are none
}
STUB_R_IN = 1.5  # Å


class Params(Closed):
    """Repulsion of atoms that come closer than the training data."""

    core: Literal["none", "zbl", "reference"] = Field(
        "zbl", description="zbl: ZBL takes over; reference: the potential fades and leaves the pair terms alone"
    )
    r_in_A: Literal["auto"] | dict[str, float] = Field(
        "auto",
        description="Å by pair: where the core takes over; auto, and for a pair that is not named: the largest of the"
        " shortest training distance and that where the extrapolation grade passes 10, raised until the dimer's energy"
        " rises all the way in; the sum of the covalent radii for a pair that training never sees",
    )
    gamma_quantile: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of the distances at which compressed training structures pass the grade 10. The innermost, below"
        " which every one of them extrapolates, leaves the training data as they were fitted; pacemaker's own program"
        " takes 0.99, with which silicon's force error grew from 19 to 890 meV/Å (docs/use/delta_learning.md)",
    )


class Metrics(StepMetrics):
    """Figures of the exported potential."""

    functions: dict[str, int]  # of each element
    bonded_dimer_falls_eV: dict[str, float]  # pairs of training's bonds whose dimer falls on the way in
    invariants: Invariants = Invariants()  # checked on training structures


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the potential with its core, its .yace, the core's curves and the table of the pair terms.

    Raises `BadInput`, `ExportDiffers` when the .yace differs by more than 1e-5 eV/atom or 1e-4 eV/Å on a training
    structure, and `InvariantBroken` when an invariant of physics does not hold.
    """
    from containers.tensorpot.student import potential as fitted
    from containers.tensorpot.student.yace import write_yace

    if (bare := fitted.load(inputs.one("interim"))) is None or fitted.has_core(bare):
        raise BadInput(f"interim: {inputs.one('interim')} is no B-basis of pacemaker without a core repulsion")
    frame = read_frame(inputs.one("train"))
    baseline = Baseline.read(inputs.one("baseline"))
    structures, made = list(frame["ase_atoms"]), bare
    cores: dict[str, core.PairCore] = {}
    if params.core != "none":
        if params.core == "reference" and not baseline.pairs:
            raise BadInput("core: reference needs pair terms, the baseline has none: set core: zbl or none")
        if params.core == "zbl" and baseline.pairs:
            raise BadInput("core: zbl would count repulsion twice, the baseline has pair terms: set core: reference")
        terms = {pair: term.model_dump() for pair, term in baseline.pairs.items()}
        given = None if params.r_in_A == "auto" else params.r_in_A
        potential = core.Core(bare, structures, terms)
        made, cores = core.add_core(potential, inputs.one("asi"), given, params.gamma_quantile)
    fitted.write_stripped(made, outputs / OUTPUTS["potential"])
    exported = write_yace(outputs / OUTPUTS["potential"], outputs / OUTPUTS["yace"], structures)
    errors = fitted.errors_on(outputs / OUTPUTS["potential"], frame)
    written = _write(outputs, cores, baseline)
    student = load(outputs / OUTPUTS["potential"], inputs.one("baseline"), None)
    files = Files(
        outputs / OUTPUTS["yace"], outputs / OUTPUTS["reference_table"], sorted(baseline.e0s_eV), bool(baseline.pairs)
    )
    return {
        **written,
        "bonded_dimer_falls_eV": bonded_falls(cores, params, baseline),
        "invariants": check(student, frame, files).model_dump(),
        **exported,
        **{f"train_{name}": value for name, value in errors.items()},
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the interim potential as it is, with curves of ZBL alone."""
    baseline = Baseline.read(inputs.one("baseline"))
    elements = sorted(baseline.e0s_eV)
    shutil.copyfile(inputs.one("interim"), outputs / OUTPUTS["potential"])
    (outputs / OUTPUTS["yace"]).write_text(json.dumps({"elements": elements, "functions": {}}))
    cores = {pair: _stub_core(pair) for pair in pair_names(elements)} if params.core != "none" else {}
    return {
        **_write(outputs, cores, baseline),
        "bonded_dimer_falls_eV": {},
        "invariants": Invariants().model_dump(),
        "functions": dict.fromkeys(elements, 1),
        "parameters": len(elements),
        "yaml_bytes": (outputs / OUTPUTS["potential"]).stat().st_size,
        "yace_bytes": (outputs / OUTPUTS["yace"]).stat().st_size,
        "yace_compared_structures": 0,
        "yace_difference_eV_per_atom": 0.0,
        "yace_force_difference_eV_per_A": 0.0,
        **{f"train_energy_{statistic}_meV_per_atom": 0.0 for statistic in ("mae", "rmse", "max")},
        **{f"train_force_{statistic}_meV_per_A": 0.0 for statistic in ("mae", "rmse", "max")},
    }


def _write(outputs: Path, cores: dict[str, core.PairCore], baseline: Baseline) -> dict[str, Any]:
    pairs, over_zbl = {}, {}
    for name, pair in cores.items():
        pairs[name] = pair.model_dump(mode="json")
        inside = np.array(pair.distance_A) <= pair.r_in_A
        forces, zbl_forces = np.array(pair.force_eV_per_A)[inside], np.array(pair.zbl_force_eV_per_A)[inside]
        over_zbl[name] = float((forces / zbl_forces).max())
    (outputs / OUTPUTS["core_repulsion"]).write_text(json.dumps({"pairs": pairs}, indent=1) + "\n")
    (outputs / OUTPUTS["reference_table"]).write_text(table_text(baseline.pairs))
    return {
        "r_in_A": {name: pair.r_in_A for name, pair in cores.items()},
        "gamma_10_distance_A": {name: pair.gamma_10_distance_A for name, pair in cores.items()},
        "share_of_pairs_inside": {name: pair.share_of_pairs_inside for name, pair in cores.items()},
        "dimer_rises": {name: pair.falls_eV < core.LEVEL_eV for name, pair in cores.items()},
        "dimer_falls_eV": {name: pair.falls_eV for name, pair in cores.items()},
        "largest_force_over_zbl": over_zbl,  # inside r_in: how stiff the blend is
    }


def bonded_falls(cores: dict[str, core.PairCore], params: Params, baseline: Baseline) -> dict[str, float]:
    """Return how far (eV) the dimer falls on the way in, by pair: a hole in a potential that has the pair's bonds.

    A pair with a given r_in is the user's choice. A Lennard-Jones well may lie inside the data: inside it is a wall.
    """
    given = () if params.r_in_A == "auto" else {"-".join(sorted(pair.split("-"))) for pair in params.r_in_A}
    return {
        pair: one.falls_eV
        for pair, one in cores.items()
        if one.falls_eV >= core.LEVEL_eV
        and (one.shortest_distance_A or np.inf) <= touching(pair)
        and pair not in given
        and (pair not in baseline.pairs or baseline.pairs[pair].form != "lj")
    }


def _stub_core(pair: str) -> core.PairCore:
    distances = core.distances_inward(STUB_R_IN + core.MARGIN)
    return core.pair_core(pair, STUB_R_IN, distances, None, shortest=STUB_R_IN, gamma_10=STUB_R_IN)
