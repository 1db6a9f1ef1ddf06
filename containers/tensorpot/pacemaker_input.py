"""pacemaker's `input.yaml` as typed models. Pure: nothing here runs a program or needs pyace.

pacemaker ignores keys that it does not know, so everything that reaches the file passes through a closed model.
Source: https://pacemaker.readthedocs.io/en/latest/pacemaker/inputfile/ and what python-ace 0.4.0rc1 really does.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any, Literal

from pydantic import Field
from ruamel.yaml import YAML

from containers.contract import BadInput, Closed

Preset = Literal["mace", "small", "medium", "large"]
Start = Literal["fresh", "continue", "extend"]

TRAIN_FILE = "train.pckl.gzip"
VALIDATION_FILE = "validation.pckl.gzip"
START_FILE = "start.yaml"

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "small": ((12, 4, 3, 2, 1, 1), (0, 2, 2, 1, 1, 0)),
    "medium": ((15, 6, 4, 3, 2, 1), (0, 3, 3, 2, 1, 0)),
    "large": ((20, 8, 5, 4, 3, 2), (0, 5, 4, 3, 2, 0)),
}
"""Radial functions and highest angular momentum of every order, from order 1.

Functions offered to one element at orders 1 to 6:
small 12, 42, 116, 136, 139, 140; medium 15, 99, 403, 703, 733, 734; large 20, 236, 1266, 3998, 5108, 5115.
"""

SECTION_KEYS = {"deltaSplineBins", "elements", "embeddings", "bonds", "functions"}
BLOCK_KEYS = {
    "embeddings": {"npot", "fs_parameters", "ndensity", "rho_core_cut", "drho_core_cut"},
    "bonds": {"radbase", "radparameters", "rcut", "dcut", "NameOfCutoffFunction", "nradbase", "nradmax", "lmax"},
    "functions": {"nradmax_by_orders", "lmax_by_orders", "coefs_init"},
}
CORE_KEYS = {"core-repulsion", "r_in", "delta_in", "inner_cutoff_type"}


class Potential(Closed):
    """The basis of the student: pacemaker's `potential` section.

    A `b_basis` that is a mapping is the user's own section: it then decides orders and numbers of functions, and
    `order` and `functions_per_element` are not used.
    """

    elements: tuple[str, ...] = Field(min_length=1, description="chemical symbols, sorted")
    cutoff: float = Field(gt=0, description="Å; becomes potential.bonds.*.rcut")
    order: int = Field(3, ge=1, le=6, description="highest correlation order (neighbours in a product)")
    functions_per_element: int = Field(
        250,
        ge=1,
        description="at most so many basis functions an element; with several elements pacemaker deals them evenly"
        " to the blocks of elements, rounded down",
    )
    b_basis: Preset | dict[str, Any] = Field("mace", description="shape preset, or a pacemaker potential section")

    def section(self) -> dict[str, Any]:
        """The `potential` section of input.yaml; `BadInput` when the user's own contradicts `elements` or `cutoff`."""
        if isinstance(self.b_basis, dict):
            check_section(self.b_basis, self.elements, self.cutoff)
            return {"deltaSplineBins": 0.001, **self.b_basis}
        radial, angular = shape(self.b_basis, self.cutoff, len(self.elements))
        return {
            "deltaSplineBins": 0.001,  # Å
            "elements": list(self.elements),
            "embeddings": {
                "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
            },
            "bonds": {
                "ALL": {
                    "radbase": "SBessel",
                    "radparameters": [5.25],
                    "rcut": self.cutoff,
                    "dcut": 0.01,
                    "NameOfCutoffFunction": "cos",
                }
            },
            "functions": {
                "number_of_functions_per_element": self.functions_per_element,
                "ALL": {"nradmax_by_orders": radial[: self.order], "lmax_by_orders": angular[: self.order]},
            },
        }

    def functions_asked(self) -> int | None:
        """Functions of all elements together; None when the user's section names no number."""
        number = self.section()["functions"].get("number_of_functions_per_element")
        return None if number is None else int(number) * len(self.elements)


def shape(preset: Preset, cutoff: float, elements: int) -> tuple[list[int], list[int]]:
    """Radial functions and highest angular momentum of the orders 1 to 6.

    `mace` is `medium` with the radial resolution of orders 1 and 2 set by the teacher's cutoff (Å): three functions
    an Å for pairs, one an Å plus one for triplets, so that a longer reach is not a blurred one (5 Å gives `medium`).
    It offers one element at order 3: 353 functions at 3 Å, 403 at 5 Å, 434 at 6 Å. With several elements every
    order from 3 on loses one radial function for each further element, because the combinations of elements
    multiply what is offered (asked for 250 functions an element at 5 Å, two elements get 250, three 248, four 240).
    """
    name = "medium" if preset == "mace" else preset
    radial, angular = (list(numbers) for numbers in SHAPES[name])
    if preset == "mace":
        radial[0] = min(max(round(3 * cutoff), 8), 20)
        radial[1] = min(max(round(cutoff + 1), 4), 8)
    fewer = elements - 1
    return radial[:2] + [max(1, number - fewer) for number in radial[2:]], angular


def check_section(section: Mapping[str, Any], elements: tuple[str, ...], cutoff: float) -> None:
    """Raise `BadInput` when the user's own potential section is incomplete, unknown in part, or contradicts us."""
    where = "b_basis (the potential section)"
    _only(section, SECTION_KEYS, where)
    if missing := sorted(SECTION_KEYS - {"deltaSplineBins"} - set(section)):
        raise BadInput(f"{where} has no {', '.join(missing)}; add it or choose a preset (mace, small, medium, large)")
    _check_elements(section["elements"], elements, where)
    for part, known in BLOCK_KEYS.items():
        if not isinstance(section[part], Mapping):
            raise BadInput(f"{where}, {part} must be a mapping, not {section[part]!r}")
        for name, block in section[part].items():
            if name == "number_of_functions_per_element":
                _check_number(block, f"{where}, {part}.{name}")
            else:
                _check_block(block, known, f"{where}, {part}.{name}")
    _check_cutoffs(section["bonds"], cutoff, where)


def _check_elements(given: Any, elements: tuple[str, ...], where: str) -> None:
    if not isinstance(given, list | tuple) or not all(isinstance(symbol, str) for symbol in given):
        raise BadInput(f"{where}, elements must be a list of chemical symbols, not {given!r}")
    if sorted(given) != sorted(elements):
        raise BadInput(f"{where} has the elements {list(given)}, the config {list(elements)}: make them equal")


def _check_number(number: Any, where: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise BadInput(f"{where} must be a whole number from 1, not {number!r}")


def _check_block(block: Any, known: set[str], where: str) -> None:
    if not isinstance(block, Mapping):
        raise BadInput(f"{where} must be a mapping, not {block!r}")
    if core := sorted(CORE_KEYS & set(block)):
        raise BadInput(f"{where} sets {', '.join(core)}: leave it out, reference_potential decides the core repulsion")
    _only(block, known, where)


def _only(mapping: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in set(mapping) - known):
        raise BadInput(
            f"{where} has keys pacemaker would ignore: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def _check_cutoffs(bonds: Mapping[str, Mapping[str, Any]], cutoff: float, where: str) -> None:
    reach = {name: bond["rcut"] for name, bond in bonds.items() if "rcut" in bond}
    if strange := [name for name, value in reach.items() if not isinstance(value, int | float)]:
        raise BadInput(f"{where}: bonds.{strange[0]}.rcut must be a number (Å)")
    if not reach or max(reach.values()) != cutoff:
        raise BadInput(
            f"{where}: the largest bonds.*.rcut must be the cutoff of the config ({cutoff:g} Å), it has {reach}."
            " Make them equal."
        )


class Loss(Closed):
    """What the fit minimises. pacemaker knows one number for the balance, kappa."""

    kappa: float = Field(0.3, ge=0, le=1, description="share of the forces; more starves the energies")
    l1: float = Field(1e-8, ge=0, description="L1 regularisation of the coefficients; pacemaker's own default")
    l2: float = Field(1e-8, ge=0, description="L2 regularisation of the coefficients; pacemaker's own default")

    def section(self) -> dict[str, Any]:
        """`fit.loss`."""
        return {"kappa": self.kappa, "L1_coeffs": self.l1, "L2_coeffs": self.l2}


class EarlyStop(Closed):
    """When the fit ends before its iterations are used up."""

    min_relative_loss_per_iteration: float = Field(
        5e-5, gt=0, description="the train loss must fall by at least this share an iteration"
    )
    patience: int = Field(200, ge=2, description="iterations over which it must not, before the fit ends")


class Fit(Closed):
    """How the loss is minimised."""

    loss: Loss = Loss()
    optimizer: Literal["BFGS", "L-BFGS-B"] = Field(
        "BFGS", description="L-BFGS-B needs less memory beyond 5,000 parameters"
    )
    maxiter: int = Field(ge=1, description="iterations at most (for each step of a ladder)")
    ladder_step: int | None = Field(None, ge=1, description="grow the basis by so many functions at a time")
    early_stop: EarlyStop | None = Field(None, description="None: only iterations and the optimizer end the fit")
    repulsion: bool = Field(description="let pacemaker add a ZBL core after the fit, to its own output")

    def section(self, laddered: bool) -> dict[str, Any]:
        """`fit`."""
        section: dict[str, Any] = {"loss": self.loss.section(), "optimizer": self.optimizer, "maxiter": self.maxiter}
        if laddered and self.ladder_step is not None:
            section |= {"ladder_step": self.ladder_step, "ladder_type": "power_order"}
        if self.early_stop is not None:
            section["min_relative_train_loss_per_iter"] = self.early_stop.min_relative_loss_per_iteration
            section["early_stopping_patience"] = self.early_stop.patience
        if self.repulsion:
            section["repulsion"] = "auto"
        return section


class PacemakerInput(Closed):
    """A whole `input.yaml`. File names are relative: the step gives the files these names in its working folder.

    `start`: `fresh` begins at zero coefficients; `continue` takes the basis and coefficients of START_FILE (named by a
    string and without a ladder: with one, pacemaker would end at once without an iteration); `extend` grows a start
    whose basis is not complete, as an interrupted ladder leaves it.
    """

    potential: Potential
    fit: Fit
    batch_size: int = Field(ge=1, description="structures evaluated at a time")
    display_step: int = Field(10, ge=1, description="iterations between two looks at the validation frame")
    seed: int = Field(42, ge=0, description="seed of numpy; coefficients start at zero, so it seldom matters")
    start: Start = "fresh"

    def sections(self) -> dict[str, Any]:
        """The content of the file."""
        potential: str | dict[str, Any] = START_FILE if self.start == "continue" else self.potential.section()
        if self.start == "extend":
            potential = {**self.potential.section(), "initial_potential": START_FILE}
        return {
            "seed": self.seed,
            "data": {"filename": TRAIN_FILE, "test_filename": VALIDATION_FILE},
            "potential": potential,
            "fit": self.fit.section(laddered=self.start != "continue"),
            "backend": {
                "evaluator": "tensorpot",
                "batch_size": self.batch_size,
                "batch_size_reduction": False,  # what follows a lack of memory is decided by the flow, visibly
                "display_step": self.display_step,
            },
        }

    def text(self) -> str:
        """The file, block style, keys in the order of `sections`."""
        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = None
        writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        file = StringIO()
        writer.dump(self.sections(), file)
        return file.getvalue()
