"""Steps whose SCF did not converge: each is set aside with its number and its reason, in the words of each program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.ingest import ingest
from tests.unit.containers.formats.vasp import columns, outcar, vasprun

AUTO = {"energy_key": "auto", "forces_key": "auto"}
REACHED = "------------------------ aborting loop because EDIFF is reached ----------------------------------------\n"
NOT_REACHED = (
    "------------------------ aborting loop EDIFF was not reached (unconverged) ----------------------------\n"
)
POSITIONS = [np.array([[0.0, 0.0, 0.0], [1.3, 1.3, 1.3 + step / 20]]) for step in range(4)]
FORCES = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])


def steps(count: int) -> list[Atoms]:
    """Ionic steps of silicon with their labels."""
    made = [Atoms("Si2", positions, cell=[5.4] * 3, pbc=True) for positions in POSITIONS[:count]]
    for step, atoms in enumerate(made):
        atoms.calc = SinglePointCalculator(atoms, energy=-10.5 - step, forces=FORCES, stress=np.zeros(6))
    return made


def espresso(converged: Sequence[bool]) -> str:
    """Output of pw.x (a relaxation of silicon with scf_must_converge = .false.)."""
    text = "     Program PWSCF v.7.2 starts on  1Jan2024 at  0: 0: 0\n\n     number of atoms/cell      =            2\n"
    text += "     celldm(1)=  10.200000  celldm(2)=   0.000000\n\n     crystal axes: (cart. coord. in units of alat)\n"
    for number, axis in enumerate(np.eye(3), 1):
        text += f"               a({number}) = (  {'  '.join(f'{value:.6f}' for value in axis)} )\n"
    text += "     site n.     atom                  positions (alat units)\n"
    for number, place in enumerate(POSITIONS[0] / 5.4, 1):
        text += f"         {number}           Si  tau(   {number}) = (  {'  '.join(f'{x:.7f}' for x in place)}  )\n"
    text += "     number of k points=     1\n                       cart. coord. in units 2pi/alat\n"
    text += "        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000\n\n"
    for step, good in enumerate(converged):
        if step:
            text += f"ATOMIC_POSITIONS (angstrom)\n{''.join('Si ' + line + chr(10) for line in table(step))}\n"
        text += (
            "     End of self-consistent calculation\n\n          k = 0.0000 0.0000 0.0000 (   100 PWs)   bands (ev):\n"
        )
        text += "\n    -5.8  6.1\n\n     the Fermi energy is     6.0000 ev\n\n"
        text += f"!    total energy              = {-20.5 - step:.8f} Ry\n\n"
        words = (
            "convergence has been achieved in   9 iterations"
            if good
            else "convergence NOT achieved after  100 iterations"
        )
        text += f"     {words}\n\n     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        for number, force in enumerate(FORCES / 100, 1):
            text += f"     atom    {number} type  1   force = {'  '.join(f'{value:.8f}' for value in force)}\n"
    text += f"ATOMIC_POSITIONS (angstrom)\n{''.join('Si ' + line + chr(10) for line in table(0))}\n"
    return text + "   JOB DONE.\n"


def table(step: int) -> list[str]:
    return columns(POSITIONS[step]).splitlines()


def run(folder: Path, name: str, text: str, **keys: Any) -> tuple[list[int], list[tuple[int, str]], dict[str, Any]]:
    """Rows that are kept; rows that are set aside, with the reason; metrics."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    outputs = folder / "outputs"
    outputs.mkdir()
    metrics = ingest.run(
        Inputs({"files": (folder / name,)}), outputs, ingest.Params(file_names=(name,), **keys), Machine()
    )
    kept = sorted(pq.read_table(outputs / "structures.parquet")["row"].to_pylist())
    aside = pq.read_table(outputs / "set_aside.parquet").to_pylist()
    assert all(row["source"] == name for row in aside)
    return kept, [(row["row"], row["reason"]) for row in aside], metrics


FILES = {
    "VASP 5": (
        "OUTCAR",
        outcar(steps(3), [(12, REACHED), (60, ""), (9, REACHED)], 60),
        "60 electronic steps, as many as NELM (60)",
    ),
    "VASP 6": (
        "OUTCAR",
        outcar(steps(3), [(12, REACHED), (60, NOT_REACHED), (9, REACHED)], 60),
        "EDIFF was not reached",
    ),
    "vasprun.xml": ("vasprun.xml", vasprun(steps(3), [12, 60, 59], 60), "60 electronic steps, as many as NELM (60)"),
    "Quantum ESPRESSO": ("pw.out", espresso([True, False, True]), "convergence NOT achieved"),
}


@pytest.mark.parametrize("program", FILES)
def test_an_unconverged_step_is_set_aside_with_its_number(tmp_path: Path, program: str) -> None:
    name, text, words = FILES[program]
    kept, aside, metrics = run(tmp_path, name, text, **AUTO)
    assert kept == [0, 2]
    ((row, reason),) = aside
    assert row == 1
    assert words in reason
    assert metrics["unconverged"] == 1
    assert metrics["unconverged_first"] == f"{name}: frame 1 (from 0): the SCF did not converge ({reason})"


@pytest.mark.parametrize("program", FILES)
def test_a_pool_needs_no_converged_label(tmp_path: Path, program: str) -> None:
    name, text, _ = FILES[program]
    kept, aside, metrics = run(tmp_path, name, text)
    assert (kept, aside, metrics["unconverged"]) == ([0, 1, 2], [], 0)


def test_the_last_step_that_nelm_allows_may_converge(tmp_path: Path) -> None:
    """An OUTCAR says so; and steps of a second run in the file are judged by its own NELM."""
    first = outcar(steps(2), [(60, REACHED), (20, REACHED)], 60)
    second = outcar(steps(4), [(0, ""), (0, ""), (30, ""), (20, "")], 30)
    second = (
        second[second.index("   NELM") : second.index(" k-points")] + second[second.index("-" * 39 + " Iteration") :]
    )
    kept, aside, _ = run(tmp_path, "OUTCAR", first + second, **AUTO)
    assert kept == [0, 1, 3]
    assert [row for row, _ in aside] == [2]


def test_a_file_without_a_converged_step_or_of_a_program_that_names_no_step_is_refused(tmp_path: Path) -> None:
    text = "#P\n Entering Gaussian System, Link 0=g16\n" + GAUSSIAN
    assert run(tmp_path / "good", "si.log", text, **AUTO)[0] == [0]
    text = text.replace(" SCF Done", " >>>>>>>>>> Convergence criterion not met.\n SCF Done")
    with pytest.raises(
        BadInput, match=r"^si\.log: frame 0 .*\(line \d+ says: Convergence criterion not met; the format"
    ):
        run(tmp_path, "si.log", text, **AUTO)
    with pytest.raises(BadInput, match=r"^OUTCAR: frame 0 \(from 0\): the SCF did not converge .*VASP: a larger NELM"):
        run(tmp_path / "none", "OUTCAR", outcar(steps(2), [(60, NOT_REACHED), (60, NOT_REACHED)], 60), **AUTO)
    assert list((tmp_path / "none" / "outputs").iterdir()) == []


GAUSSIAN = """ #p pbe force
                         Standard orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1         14           0        0.000000    0.000000    1.100000
      2         14           0        0.000000    0.000000   -1.100000
 ---------------------------------------------------------------------
 SCF Done:  E(RPBE-PBE) =  -578.712345678     A.U. after    9 cycles
 -------------------------------------------------------------------
 Center     Atomic                   Forces (Hartrees/Bohr)
 Number     Number              X              Y              Z
 -------------------------------------------------------------------
      1       14          0.000000000    0.000000000    0.010000000
      2       14          0.000000000    0.000000000   -0.010000000
 -------------------------------------------------------------------
 Normal termination of Gaussian 16 at Mon Jan  1 00:00:00 2024.
"""
