"""x"""

from __future__ import annotations

from pydantic import Field

from containers.contract import Closed


class Convergence(Closed):
    """When a student is good enough."""

    force_mae_meV_per_A: float = Field(120, gt=0, description="meV/Å, mean absolute error of force components")
    energy_mae_meV_per_atom: float = Field(20, gt=0, description="meV/atom, mean absolute error of energies")
