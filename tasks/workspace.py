"""The place a flow works in: its work root and the machine's settings."""

from __future__ import annotations

import os
from pathlib import Path

from containers.contract import Closed
from tasks.errors import UserError
from tasks.settings import Settings
from tasks.store import Store


class Workspace(Closed):
    """`root` holds `store/` and `runs/`; travels with tasks, so it has plain values only."""

    root: Path
    settings: Settings
    verify: bool = False

    @property
    def store(self) -> Store:
        """The store under the root."""
        return Store(self.root / "store")

    def run_folder(self, name: str) -> Path:
        """Where the results of the config called `name` are published."""
        return self.root / "runs" / name


def open_workspace(root: Path | None, settings: Settings, verify: bool = False) -> Workspace:
    """A workspace whose root exists and can be written; `UserError` otherwise."""
    root = (root or settings.work_root).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the work root {root}: {error.strerror}. Choose another --work-root.") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise UserError(f"the work root {root} cannot be written. Choose another --work-root.")
    return Workspace(root=root, settings=settings, verify=verify)
