"""What the label store keeps of a structure: the teacher's raw answer, and how it was computed."""

from __future__ import annotations

import pyarrow as pa

ROWS = pa.schema(
    [
        ("id", pa.binary(32)),  # the structure's content id as bytes
        ("energy", pa.float64()),  # eV, total; null when there is a reason
        ("forces", pa.list_(pa.float64())),  # eV/Å, N*3; null when there is a reason
        ("stress", pa.list_(pa.float64(), 6)),  # eV/Å³, Voigt; null unless periodic in all three directions
        ("edges", pa.int64()),  # neighbour pairs within the teacher's cutoff; null without a neighbour list
        ("min_distance_A", pa.float64()),  # shortest pair, Å; null when no pair lies within the cutoff
        ("reason", pa.string()),  # why the teacher has no label for it; null when it has
        ("device", pa.string()),
        ("acceleration", pa.string()),
        ("mace_version", pa.string()),
    ]
)
