"""x"""

from __future__ import annotations

MEND = "mend or remove the frame"

MOST_ATOMS = 1_000_000
"""A structure of more atoms is a mistake: nothing here learns from it, and reading it would take gigabytes."""


def too_many(atoms: int) -> str:
    """What is said of a structure that has, or claims to have, more than MOST_ATOMS atoms."""
    return f"{atoms:,} atoms, at most {MOST_ATOMS:,} are read; is this the right file? {MEND}"
