"""Sizes of pieces that keep a step within its memory: the container's limit, not the host's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from containers.contract import BadInput, Resources
from containers.memory import memory_limit

PROGRAM_BYTES = 256 * 2**20
"""Python with numpy, pandas, pyarrow and pyace (180 MB measured) and the tables of ids."""
PROCESS_BYTES = 48 * 2**20
"""A forked process's own part (25 MB measured), its structures included."""
BLOCK_ROWS = 2048
"""Environments in one piece, or structures: large enough for fast products, small beside everything else."""
ONE_SHOT_BYTES = 32 * 2**20
"""Projections of an element that are looked at all at once, exactly as pacemaker's own programs do."""
FEWEST_ROWS = 16
FEATURE_BYTES = 8
"""A structure's mean projection on one function."""
COMBINED_BYTES = 3 * FEATURE_BYTES
"""A function and structure while the combined method compares structures, at most: the means of all, those of the
training side, and the principal components of these: at most as many, a quarter on silicon."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the pieces: the same on every machine unless memory is short.

    Attributes:
        block_rows: environments in one piece.
        one_shot_bytes: projections of an element up to which there is one piece only.
    """

    block_rows: int = BLOCK_ROWS
    one_shot_bytes: int = ONE_SHOT_BYTES


def features_bytes(resources: Resources, structures: int, functions: int) -> int:
    """Return bytes of the means by which the combined method compares structures: they stay beside the pieces.

    Args:
        structures: N, how many are compared at most.
        functions: F, of all elements together.

    Raises:
        BadInput: comparing so many would take more than the limit; the message says what it needs.
    """
    blocks = 8 * functions * (4 * BLOCK_ROWS + 5 * functions)  # scaled, and products of columns with what LAPACK wants
    fixed = PROGRAM_BYTES + PROCESS_BYTES * resources.threads + blocks
    need, limit = fixed + COMBINED_BYTES * structures * functions, memory_limit(resources)
    if need > limit:
        enough = f"{math.ceil(need / 1e7) / 100:.2f}"  # GB, rounded up: it is what the setting is to be
        raise BadInput(
            f"the method combined compares {structures:,} structures by {functions:,} functions in memory: {enough} GB"
            f" are needed, and the limit is {limit / 1e9:.2f} GB. Raise it (DISTILL_SELECT_MEMORY_GB={enough}) where"
            " the machine has that much, take the method d_optimal, which keeps none of this, or fewer structures."
        )
    return FEATURE_BYTES * structures * functions


def sizes_for(resources: Resources, functions: int, held: int = 0) -> Sizes:
    """Return sizes that keep within the limit.

    Args:
        functions: the most basis functions (columns) that an element has.
        held: bytes that stay beside the pieces, see `features_bytes`.

    Raises:
        BadInput: the limit is too low for this basis; the message says what it needs.
    """
    row = 8 * functions
    fixed = (
        PROGRAM_BYTES + PROCESS_BYTES * resources.threads + 40 * functions * row + held
    )  # working set, active sets, inverses
    pieces = 6 + 3 * resources.threads  # blocks at once: waiting, being projected, and products of one
    left = memory_limit(resources) - fixed
    rows = min(BLOCK_ROWS, left // (pieces * row))
    if rows < FEWEST_ROWS:
        need = (fixed + pieces * row * FEWEST_ROWS) / 2**20
        raise BadInput(
            f"{memory_limit(resources) / 2**20:.0f} MB are too little to choose among environments of {functions}"
            f" functions: {need:.0f} MB are needed. Give the step more memory, fewer threads or a smaller basis."
        )
    return Sizes(rows, min(ONE_SHOT_BYTES, left // 5))
