from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.contract import Machine, Resources
from containers.tensorpot.representation import _told


def test_progress_is_of_the_rows_of_the_data_set(tmp_path: Path) -> None:
    path, told = tmp_path / "data.parquet", list[tuple[float, float]]()
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), path)
    ids: list[str] = []

    def structures() -> Any:
        for name in ("a", "c"):  # b cannot be used
            ids.append(name)
            yield Atoms()

    machine = Machine(Resources(), lambda done, total, text="", figures=None: told.append((done, total)))
    data = SimpleNamespace(path=path, ids=ids, structures=structures)
    assert len(list(_told(cast(Any, data), machine))) == 2
    assert told == [(1, 3), (2, 3)]
