from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ase import Atoms

from containers.contract import Machine, Resources
from containers.tensorpot.selection.representatives import _told


def test_progress_is_of_the_rows_of_the_data_set() -> None:
    told, ids = list[tuple[float, float]](), list[str]()

    def structures() -> Any:
        for name in ("a", "c"):  # b cannot be used
            ids.append(name)
            yield Atoms()

    machine = Machine(Resources(), lambda done, total, text="", figures=None: told.append((done, total)))
    data = SimpleNamespace(rows=3, ids=ids, structures=structures)
    assert len(list(_told(cast(Any, data), machine))) == 2
    assert told == [(1, 3), (2, 3)]
