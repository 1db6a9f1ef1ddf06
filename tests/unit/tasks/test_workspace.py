"""A workspace is one run's."""

from __future__ import annotations

from pathlib import Path

from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace


def test_no_two_runs_have_one_name(tmp_path: Path) -> None:
    """A run removes the containers that are labelled with its name."""
    opened = {open_workspace(tmp_path, Settings()).run_id for _ in range(3)}
    made = {Workspace(root=tmp_path, settings=Settings()).run_id for _ in range(3)}
    assert len(opened | made) == 6


def test_a_flow_run_gives_its_own(tmp_path: Path) -> None:
    assert open_workspace(tmp_path, Settings(), run_id="of the flow").run_id == "of the flow"
