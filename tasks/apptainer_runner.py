"""Steps under Apptainer, for clusters without a daemon: the same contract, a child process instead of an engine."""

from __future__ import annotations

from pathlib import Path

from containers.contract import Image, Progress, Request
from tasks.runners import Ended, run_process
from tasks.settings import Settings, thread_environment


class ApptainerRunner:
    """`apptainer exec` on an image made from the Docker archive."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        raise NotImplementedError
