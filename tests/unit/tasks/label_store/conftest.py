"""An empty label store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.label_store.store import LabelStore, TeacherKey


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    teacher = TeacherKey(model="ab" * 32, head="Default", dtype="float32", version=2, stub=False)
    return LabelStore(tmp_path / "labels", teacher)
