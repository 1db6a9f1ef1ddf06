"""What the structures of a combined selection stand for."""

from __future__ import annotations

import numpy as np

from containers.tensorpot.selection.representatives import weights_of


def test_dft_structures_are_not_stood_for() -> None:
    """They have a weight of their own: 96 of them beside one of four chosen structures change nothing."""
    pool = np.array([[0.0], [1.0], [2.0], [3.0]])
    dft = np.full((96, 1), 0.01)
    space, is_dft = np.vstack([dft, pool]), np.arange(100) < 96
    train = np.arange(1000, 1100)
    assert weights_of(space, train, [0, 96, 97, 98, 99], is_dft) == {1096: 1.0, 1097: 1.0, 1098: 1.0, 1099: 1.0}
    assert weights_of(space, train, [96, 99], is_dft) == {1096: 1.0, 1099: 1.0}
    assert weights_of(space, train, [97, 99], is_dft) == {1097: 1.5, 1099: 0.5}, "equally near ones to the first"
    assert weights_of(space, train, [0], is_dft) == {}
