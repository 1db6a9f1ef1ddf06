"""Exit codes of the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.compare.__main__ import main


@pytest.mark.parametrize("folders", [["none", "neither"], [""], ["", ""]])
def test_what_is_no_run_folder_is_2_and_one_line(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "page.html"
    assert main([*(str(tmp_path / name) for name in folders), "--output", str(written)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "runs/" in line, "what to give instead"
    assert not written.exists()
