"""Steps whose SCF did not converge: each is set aside with its number and its reason, in the words of each program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from containers.contract import BadInput, Inputs, Machine
from containers.ingest import ingest

AUTO = {"energy_key": "auto", "forces_key": "auto"}
REACHED = "------------------------ aborting loop because EDIFF is reached ----------------------------------------\n"
NOT_REACHED = (
    "------------------------ aborting loop EDIFF was not reached (unconverged) ----------------------------\n"
)
POSITIONS = [np.array([[0.0, 0.0, 0.0], [1.3, 1.3, 1.3 + step / 20]]) for step in range(4)]
FORCES = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])


def rows(values: np.ndarray) -> str:
    return "".join("  ".join(f"{value:12.6f}" for value in row) + "\n" for row in values)


def outcar(steps: Sequence[tuple[int, str]], nelm: int = 60) -> str:
    """An OUTCAR of silicon; of each ionic step, how many electronic ones and the line that ends them."""
    text = " POTCAR:    PAW_PBE Si 05Jan2001\n" * 2
    text += "   ions per type =               2\n   ISPIN  =      1    spin polarized calculation?\n"
    text += f"   NELM   = {nelm:6};   NELMIN=  2; NELMDL= -5     # of ELM steps\n"
    text += (
        " k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8\n"
    )
    text += " k-points in reciprocal lattice and weights: one\n   0.0  0.0  0.0   1.0\n"
    for step, (electronic, end) in enumerate(steps):
        for scf in range(1, electronic + 1):
            text += f"{'-' * 39} Iteration {step + 1:6}({scf:4})  {'-' * 39}\n"
            text += "  Free energy of the ion-electron system (eV)\n"
        text += f"{end}\n      direct lattice vectors          reciprocal\n"
        text += rows(np.hstack([np.eye(3) * 5.4, np.eye(3) / 5.4]))
        text += f"\n POSITION          {' ' * 24} TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        text += rows(np.hstack([POSITIONS[step], FORCES])) + f" {'-' * 83}\n"
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---\n  free  energy   TOTEN  = -10.0 eV\n\n"
        text += f"  energy  without entropy=  -10.0  energy(sigma->0) =  {-10.5 - step:.6f}\n"
    return text + " General timing and accounting informations for this job:\n"


def varray(name: str, values: np.ndarray) -> str:
    vectors = "".join(f"<v>{line}</v>\n" for line in rows(values).splitlines())
    return f'<varray name="{name}" >\n{vectors}</varray>\n'


def vasprun(electronic: Sequence[int], nelm: int = 60) -> str:
    """A vasprun.xml of silicon with so many electronic steps in each ionic one."""

    def structure(step: int, name: str = "") -> str:
        crystal = f"<crystal>{varray('basis', np.eye(3) * 5.4)}</crystal>"
        return f"<structure{name}>{crystal}{varray('positions', POSITIONS[step] / 5.4)}</structure>\n"

    text = '<?xml version="1.0"?>\n<modeling>\n<kpoints><varray name="kpointlist" ><v>0 0 0</v></varray>'
    text += '<varray name="weights" ><v>1</v></varray></kpoints>\n<parameters>\n'
    text += f' <i type="int" name="NELM">{nelm:6}</i>\n <i type="int" name="NELMDL">    -5</i>\n</parameters>\n'
    text += '<atominfo><array name="atoms" ><set><rc><c>Si</c><c>1</c></rc><rc><c>Si</c><c>1</c></rc></set></array>'
    text += "</atominfo>\n" + structure(0, ' name="initialpos"')
    for step, count in enumerate(electronic):
        energies = f'<i name="e_fr_energy">-10</i><i name="e_wo_entrp">-10</i><i name="e_0_energy">{-10.5 - step}</i>'
        text += "<calculation>\n" + f"<scstep>\n<energy>{energies}</energy></scstep>\n" * count + structure(step)
        text += varray("forces", FORCES) + f"<energy>{energies}</energy>\n</calculation>\n"
    return text + "</modeling>\n"


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
    return rows(POSITIONS[step]).splitlines()


def run(folder: Path, name: str, text: str, **keys: Any) -> tuple[list[int], list[tuple[int, str]], dict[str, Any]]:
    """Rows that are kept; rows that are set aside, with the reason; metrics."""
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
    "VASP 5": ("OUTCAR", outcar([(12, REACHED), (60, ""), (9, REACHED)]), "60 electronic steps, as many as NELM (60)"),
    "VASP 6": ("OUTCAR", outcar([(12, REACHED), (60, NOT_REACHED), (9, REACHED)]), "EDIFF was not reached"),
    "vasprun.xml": ("vasprun.xml", vasprun([12, 60, 59]), "60 electronic steps, as many as NELM (60)"),
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
    first, second = outcar([(60, REACHED), (20, REACHED)]), outcar([(0, ""), (0, ""), (30, ""), (20, "")], nelm=30)
    second = (
        second[second.index("   NELM") : second.index(" k-points")] + second[second.index("-" * 39 + " Iteration") :]
    )
    kept, aside, _ = run(tmp_path, "OUTCAR", first + second, **AUTO)
    assert kept == [0, 1, 3]
    assert [row for row, _ in aside] == [2]


def test_a_file_without_a_converged_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^OUTCAR: frame 0 \(from 0\): the SCF did not converge .*VASP: a larger NELM"):
        run(tmp_path, "OUTCAR", outcar([(60, NOT_REACHED), (60, NOT_REACHED)]), **AUTO)
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_program_that_names_no_step_spoils_its_file(tmp_path: Path) -> None:
    text = "#P\n Entering Gaussian System, Link 0=g16\n" + GAUSSIAN
    assert run(tmp_path / made(tmp_path, "good"), "si.log", text, **AUTO)[0] == [0]
    text = text.replace(" SCF Done", " >>>>>>>>>> Convergence criterion not met.\n SCF Done")
    with pytest.raises(
        BadInput, match=r"^si\.log: frame 0 .*\(line \d+ says: Convergence criterion not met; the format"
    ):
        run(tmp_path / made(tmp_path, "bad"), "si.log", text, **AUTO)


def made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


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
