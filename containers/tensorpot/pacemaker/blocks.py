"""The blocks of pacemaker's `potential` section, and the changes of a config in single ones.

Words of pacemaker (python-ace 0.4.0rc1): a block of `functions` is named by its central element and the other elements
among the neighbours, `ALL` and `UNARY`, `BINARY`, ... stand for many, and the more special one wins. The block `AlNi`
has Al in the centre, `NiAl` has Ni; a bond has one name for both. The trainer multiplies the radial functions of the
bond with the coefficients of order 1 of each of these two blocks and fails where one has fewer: they need one shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from containers.contract import BadInput, Closed

HIGHEST_L = (0, 10, 6, 4, 3, 2, 2, 1, 1, 1, 1, 1)
"""Largest angular momentum of orders 1, 2, ... with functions in python-ace 0.4.0rc1, which is silent beyond."""
FS_PARAMETERS = (1.0, 1.0, 1.0, 0.5, 1.0, 0.75, 1.0, 2.0)
"""Prefactor and exponent of the densities of an atom: a linear one, a square root, two more powers."""


class Block(Closed):
    """Base of all blocks: no text or truth values for numbers."""

    model_config = ConfigDict(strict=True)

    def given(self) -> dict[str, Any]:
        """Return the values that were set."""
        return self.model_dump(exclude_none=True)


class Embedding(Block):
    """How the densities of an element become its energy."""

    npot: Literal["FinnisSinclair", "FinnisSinclairShiftedScaled"] | None = None
    ndensity: int | None = Field(None, ge=1, description="densities")
    fs_parameters: list[float] | None = Field(None, description="prefactor and exponent of each density")
    rho_core_cut: float | None = Field(None, gt=0, description="density at which a core takes over")
    drho_core_cut: float | None = Field(None, gt=0, description="width of that")

    @model_validator(mode="after")
    def _two_parameters_a_density(self) -> Embedding:
        if self.ndensity and self.fs_parameters and len(self.fs_parameters) != 2 * self.ndensity:
            raise ValueError(f"{self.ndensity} densities need {2 * self.ndensity} fs_parameters, two each")
        return self


class Bond(Block):
    """Radial functions of two elements."""

    radbase: Literal["SBessel", "ChebExpCos", "ChebPow"] | None = Field(None, description="that the trainer has, too")
    radparameters: list[float] | None = None
    rcut: float | None = Field(None, gt=0, description="Å")
    dcut: float | None = Field(None, gt=0, description="Å")
    NameOfCutoffFunction: Literal["cos"] | None = None
    nradbase: int | None = Field(None, ge=1)
    nradmax: int | None = Field(None, ge=0)
    lmax: int | None = Field(None, ge=0)


class Functions(Block):
    """Shape of the basis: of every order from 1 on, radial functions and highest angular momentum."""

    nradmax_by_orders: list[int] = Field(min_length=1)
    lmax_by_orders: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _exists(self) -> Functions:
        radial, angular = self.nradmax_by_orders, self.lmax_by_orders
        if len(radial) != len(angular):
            raise ValueError(f"nradmax_by_orders has {len(radial)} orders, lmax_by_orders {len(angular)}: give as many")
        if min(radial) < 1 or min(angular) < 0:
            raise ValueError("nradmax_by_orders must be at least 1, lmax_by_orders at least 0")
        if len(angular) > len(HIGHEST_L):
            raise ValueError(f"pacemaker has functions up to order {len(HIGHEST_L)}")
        if over := [order for order, (lmax, most) in enumerate(zip(angular, HIGHEST_L, strict=False)) if lmax > most]:
            order = over[0] + 1
            raise ValueError(
                f"lmax_by_orders: pacemaker has no functions above {HIGHEST_L[order - 1]} at order {order}"
            )
        return self


class OwnFunctions(Functions):
    """A block of functions in the user's own section."""

    coefs_init: Literal["zero", "random"] | None = None


class Overrides(Closed):
    """Differences from the preset for single elements (`Al`) and pairs (`Al-Ni`, alphabetic).

    `functions` of an element are those among atoms of its own kind, `functions` of a pair those of just these two
    elements, with either in the centre.
    """

    embeddings: dict[str, Embedding] = {}
    bonds: dict[str, Bond] = {}
    functions: dict[str, Functions] = {}

    def names(self) -> list[tuple[str, str]]:
        """Part and name of every override."""
        return [(part, name) for part in ("embeddings", "bonds", "functions") for name in getattr(self, part)]


def overridden(section: dict[str, Any], overrides: Overrides, cutoff: float, order: int) -> dict[str, Any]:
    """Return the section of a preset with the overrides; `BadInput` where they do not fit the potential.

    Args:
        section: `potential` section whose parts have `ALL` only.
        cutoff: Å; the longest pair must have it.
        order: highest of the potential; no override exceeds it.
    """
    elements: list[str] = section["elements"]
    for part, name in overrides.names():
        _check_name(part, name, elements)
    reach = {name: bond.rcut for name, bond in overrides.bonds.items() if bond.rcut is not None}
    for name, rcut in reach.items():
        if rcut > cutoff:
            raise BadInput(f"overrides.bonds.{name}.rcut is {rcut:g} Å, more than pacemaker.cutoff, {cutoff:g} Å")
    if len(reach) == len(elements) * (len(elements) + 1) // 2 and max(reach.values()) < cutoff:
        raise BadInput(f"overrides.bonds: no pair reaches pacemaker.cutoff, {cutoff:g} Å: lower it to the longest rcut")
    functions = {}
    for name, block in overrides.functions.items():
        if len(block.nradmax_by_orders) > order:
            raise BadInput(
                f"overrides.functions.{name} has {len(block.nradmax_by_orders)} orders, the potential has {order}:"
                " raise pacemaker.order"
            )
        for symbols in (name.split("-"), name.split("-")[::-1]):  # a pair has one shape with either in the centre
            functions["".join(symbols)] = block.given()
    return {
        **section,
        "embeddings": section["embeddings"] | {name: _embedding(name, e) for name, e in overrides.embeddings.items()},
        "bonds": section["bonds"] | {name.replace("-", ""): bond.given() for name, bond in overrides.bonds.items()},
        "functions": section["functions"] | functions,
    }


def at_random(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section with all coefficients random (normal, 1e-4, by the seed) instead of zero."""
    blocks = {
        name: {**block, "coefs_init": "random"} if isinstance(block, Mapping) else block
        for name, block in section["functions"].items()
    }
    return {**section, "functions": blocks}


def _check_name(part: str, name: str, elements: Sequence[str]) -> None:
    symbols = name.split("-")
    sizes = {"embeddings": (1,), "bonds": (2,), "functions": (1, 2)}[part]
    if len(symbols) not in sizes:
        examples = (elements[0], f"{elements[0]}-{elements[-1]}")
        raise BadInput(f"overrides.{part}.{name}: write {' or '.join(examples[size - 1] for size in sizes)}")
    if strange := [symbol for symbol in symbols if symbol not in elements]:
        raise BadInput(f"overrides.{part}.{name}: the potential has {', '.join(elements)}, not {strange[0]!r}")
    if symbols != sorted(symbols):
        raise BadInput(f"overrides.{part}.{name}: write {'-'.join(sorted(symbols))}, in alphabetic order")
    if part == "functions" and len(set(symbols)) < len(symbols):
        raise BadInput(f"overrides.functions.{name}: write {symbols[0]}")


def _embedding(name: str, embedding: Embedding) -> dict[str, Any]:
    given = embedding.given()
    if (densities := embedding.ndensity) is None or "fs_parameters" in given:
        return given
    if 2 * densities > len(FS_PARAMETERS):
        raise BadInput(f"overrides.embeddings.{name} has {densities} densities: give fs_parameters, two for each")
    return given | {"fs_parameters": list(FS_PARAMETERS[: 2 * densities])}
