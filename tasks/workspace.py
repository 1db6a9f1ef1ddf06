"""The place a flow works in: its work root and the machine's settings."""

from __future__ import annotations

import os.path
import tempfile
from pathlib import Path
from uuid import uuid4

from pydantic import Field

from containers.contract import Closed
from tasks.errors import UserError
from tasks.settings import Settings
from tasks.store.results import Store


class Workspace(Closed):
    """`root` holds `store/` and `runs/`; travels with tasks, so it has plain values only."""

    root: Path
    settings: Settings
    verify: bool = False
    run_id: str = Field(default_factory=lambda: uuid4().hex, description="of the flow run; labels its containers")

    @property
    def store(self) -> Store:
        """The store under the root."""
        return Store(self.root / "store")

    def run_folder(self, name: str) -> Path:
        """Where the results of the config called `name` are published; `UserError` when a file is in its place."""
        folder = self.root / "runs" / name
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"{folder} is in the way of the run folder of that name: move it, or give the run another name"
            )
        return folder


def open_workspace(root: Path | None, settings: Settings, verify: bool = False, run_id: str | None = None) -> Workspace:
    """A workspace whose store and runs exist and can be written; `UserError` otherwise.

    `run_id` is the flow run's; without one the workspace gets one that no other has.
    """
    root = root or settings.work_root
    if "$" in str(root) and not root.exists():
        raise UserError(f"the work root {root}: variables such as $HOME are not expanded. Write the path, or use ~.")
    root = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111  that of pathlib raises for an unknown user
    for folder in (root / "store", root / "runs"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}. Choose another --work-root.") from None
    return Workspace(root=root, settings=settings, verify=verify, run_id=run_id or uuid4().hex)
