"""VASP's output files as its programs write them: what ASE looks for, in VASP's words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from ase import Atoms

GPA = 1602.1766208 / 1e4  # GPa of 1 eV/Å³ over 1,000: kB of eV/Å³ is 10,000 of it


def columns(rows: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.8f}" for value in row) for row in rows)


def outcar(structures: Sequence[Atoms], steps: Sequence[tuple[int, str]] = (), nelm: int | None = None) -> str:
    """An OUTCAR of labelled structures; of each ionic step, how many electronic ones and the line that ends them."""
    symbols = structures[0].get_chemical_symbols()
    kinds = list(dict.fromkeys(symbols))
    text = "".join(f" POTCAR:    PAW_PBE {kind} 05Jan2001\n" for kind in kinds) * 2
    counts = "".join(f"{symbols.count(kind):4}" for kind in kinds)
    text += f"   ions per type =            {counts}\n   ISPIN  =      1    spin polarized calculation?\n"
    if nelm is not None:
        text += f"   NELM   = {nelm:6};   NELMIN=  2; NELMDL= -5     # of ELM steps\n"
    text += (
        " k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8\n"
    )
    text += " k-points in reciprocal lattice and weights: one\n   0.0  0.0  0.0   1.0\n"
    for step, (atoms, (electronic, end)) in enumerate(zip(structures, steps or repeat((3, "")), strict=False), 1):
        for scf in range(1, electronic + 1):
            text += f"{'-' * 39} Iteration {step:6}({scf:4})  {'-' * 39}\n"
            text += "  Free energy of the ion-electron system (eV)\n"
        stress = -atoms.calc.results["stress"][[0, 1, 2, 5, 3, 4]] * GPA * 10_000
        text += f"{end}\n  in kB  {columns(stress[None])}\n      direct lattice vectors          reciprocal\n"
        text += columns(np.hstack([atoms.cell.array, np.linalg.inv(atoms.cell.array).T]))
        text += f"\n\n POSITION          {' ' * 24} TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        text += columns(np.hstack([atoms.positions, atoms.calc.results["forces"]])) + f"\n {'-' * 83}\n"
        energy = atoms.calc.results["energy"]
        text += f"  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 51}\n"
        text += f"  free  energy   TOTEN  = {energy - 9:.6f} eV\n\n"
        text += f"  energy  without entropy=  {energy - 5:.6f}  energy(sigma->0) =  {energy:.6f}\n"
    return text + " General timing and accounting informations for this job:\n"


def varray(name: str, rows: np.ndarray) -> str:
    return f"<varray name='{name}'>" + "".join(f"<v>{columns(row[None])}</v>" for row in rows) + "</varray>"


def structure_xml(atoms: Atoms, name: str = "") -> str:
    named = f" name='{name}'" if name else ""
    crystal = f"<crystal>{varray('basis', atoms.cell.array)}</crystal>"
    return f"<structure{named}>{crystal}{varray('positions', atoms.get_scaled_positions(wrap=False))}</structure>"


def vasprun(structures: Sequence[Atoms], electronic: Sequence[int] = (), nelm: int | None = None) -> str:
    """A vasprun.xml of labelled structures with so many electronic steps in each ionic one."""
    names = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in structures[0].get_chemical_symbols())
    text = "<?xml version='1.0'?>\n<modeling>\n<kpoints><varray name='kpointlist'><v>0 0 0</v></varray>"
    text += "<varray name='weights'><v>1</v></varray></kpoints>\n<parameters>"
    if nelm is not None:
        text += f'<i type="int" name="NELM">{nelm:6}</i>\n <i type="int" name="NELMDL">    -5</i>\n'
    text += f"</parameters>\n<atominfo><array name='atoms'><set>{names}</set></array></atominfo>\n"
    text += structure_xml(structures[0], "initialpos") + "\n"
    for atoms, count in zip(structures, electronic or repeat(1), strict=False):
        energy, stress = atoms.calc.results["energy"], atoms.calc.results["stress"]
        full = -stress[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3) * GPA * 10_000
        named = {"e_fr_energy": energy - 9, "e_wo_entrp": energy - 5, "e_0_energy": energy}
        energies = "".join(f"<i name='{key}'>{value}</i>" for key, value in named.items())
        text += "<calculation>" + f"<scstep><energy>{energies}</energy></scstep>\n" * count + structure_xml(atoms)
        text += varray("forces", atoms.calc.results["forces"]) + varray("stress", full)
        text += f"<energy>{energies}</energy></calculation>\n"
    return text + "</modeling>\n"
