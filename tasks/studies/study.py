"""Common ground of sweep, value curve and committee: a folder with JSON, Markdown and, with a picture, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from containers.contract import Closed
from tasks.report.markup import STUB, Part, Section, to_html, to_markdown
from tasks.report.run_folder import publish_files


class Study(Closed):
    """Several fits that are shown together."""

    KIND: ClassVar[str]  # of the folder and of its main files
    TITLE: ClassVar[str]
    TASK: ClassVar[str]  # name of the task run that publishes it

    name: str = Field(description="of the run")
    config: dict[str, Any] = {}
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")

    def parts(self) -> Sequence[Part]:
        """Return what the page and the Markdown show below the title."""
        raise NotImplementedError

    def picture(self) -> bytes | None:
        """Draw the picture of the study as PNG; None where it has none."""
        return None

    def contents(self, folder: Path) -> Mapping[str, str]:
        """Return other files of `folder`, name -> text."""
        return {}

    def copies(self) -> Mapping[str, Path]:
        """Return files of the store that the folder gets, name -> file."""
        return {}

    def text(self, picture: bytes | None = None) -> str:
        """Markdown for an artifact or a terminal."""
        return to_markdown(*self._described(picture))

    def page(self, picture: bytes) -> str:
        """index.html."""
        return to_html(*self._described(picture))

    def _described(self, picture: bytes | None) -> tuple[str, list[Section], dict[str, bytes]]:
        parts = [*([STUB] if self.stub else []), *self.parts()]
        return f"{self.name}: {self.TITLE}", [Section("", parts)], {self.KIND: picture} if picture else {}

    def json_text(self) -> str:
        """The study's values as JSON."""
        return self.model_dump_json(indent=1) + "\n"

    def publish(self, folder: Path) -> str:
        """Write `folder` as a whole; return the text of the artifact.

        Raises:
            UserError, StoreError: see `publish_folder`.
        """
        picture = self.picture()
        files: dict[str, str | bytes] = {f"{self.KIND}.json": self.json_text(), f"{self.KIND}.md": self.text()}
        if picture:
            files |= {f"{self.KIND}.png": picture, "index.html": self.page(picture)}
        publish_files(folder, self.copies(), files | dict(self.contents(folder)), {"name": self.name})
        return self.text(picture)
