from __future__ import annotations

from pathlib import Path

import pytest

from containers import versions


def test_every_step_is_as_recorded() -> None:
    assert versions.problems() == []


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "outer.py").write_text('"""Doc."""\nfrom containers.inner import f\nx = f(1)  # one\n')
    (tmp_path / "containers" / "inner.py").write_text("def f(a):\n    return a\n")
    return tmp_path / "containers"


def test_comments_and_docstrings_do_not_count(tree: Path) -> None:
    before = versions.source_digest("containers.outer")
    (tree / "outer.py").write_text('"""Other words."""\nfrom containers.inner import f\nx = f(1)  # uno\n')
    assert versions.source_digest("containers.outer") == before


@pytest.mark.parametrize("file", ["outer.py", "inner.py"])
def test_code_of_the_step_and_of_what_it_imports_counts(tree: Path, file: str) -> None:
    before = versions.source_digest("containers.outer")
    path = tree / file
    path.write_text(path.read_text().replace("1", "2").replace("return a", "return a + 1"))
    assert versions.source_digest("containers.outer") != before
