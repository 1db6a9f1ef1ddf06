"""The store of results: `store/STEP/KEY/` is a published run folder, valid or moved aside.

Correctness rests on publishing by one rename; the lock only keeps two runs from doing the same work.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE, S_ISDIR, S_ISREG

from pydantic import ValidationError

from containers.contract import RESUMES, Report, Request, file_digest, write_atomic
from tasks.artefact import External, FileRef
from tasks.errors import StoreError
from tasks.store.locks import held
from tasks.store.stamps import read_stamps, stamp_of, write_stamps

LOG = logging.getLogger(__name__)
LARGEST_REPORT = 10_000_000  # bytes
WORK, LEFT = "work", "left"
"""A step's scratch, and that of an interrupted run of the same request, for a step of RESUMES."""
TAKEN_UP = ("Cancelled", "DiskFull")
"""Failures after which the same request is resumed."""
OF_A_RUN = ("request.json", "report.json", "log.txt", "outputs")


class Store:
    """Published results under `root`, unfinished work in `root/work`, what was found bad in `root/damaged`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, file: FileRef) -> Path:
        """Where a referenced file lies."""
        if isinstance(file, External):
            return file.path
        return self.root / file.step / file.key / "outputs" / file.name

    @contextmanager
    def lock(self, request: Request) -> Iterator[None]:
        """Hold the work on one key; an operating-system lock, so it dies with its process."""
        folder = self._made(self.root / "locks")
        with held(folder / f"{request.step}-{request.key}.lock"):
            yield

    def peek(self, request: Request, verify: bool = False) -> Report | None:
        """The report of a valid entry, or None. Changes nothing but stamps."""
        entry = self._entry(request)
        return self._valid(entry, request.key, verify) if entry.is_dir() else None

    def find(self, request: Request, verify: bool = False) -> Report | None:
        """Like `peek`; a damaged entry is moved aside, a request that differs (damaged, other paths) is written again.

        Hold the lock.
        """
        report = self.peek(request, verify)
        entry = self._entry(request)
        if report is None and entry.exists():
            entry.rename(self._fresh("damaged", request))
        elif report is not None and _request_on_disk(entry) != request:
            write_atomic(entry / "request.json", request.model_dump_json(indent=1).encode())
        return report

    def stage(self, request: Request) -> Path:
        """A new folder to run in, with its request.

        A step that resumes is given what an interrupted run of the same request left, see `_take_over`. Hold the lock
        for such a step.
        """
        folder = self._made(self._fresh("work", request))
        folder.chmod(0o700)  # while a step runs, nobody else can start a program that it makes
        write_atomic(folder / "request.json", request.model_dump_json(indent=1).encode())
        (folder / "outputs").mkdir()
        if request.step in RESUMES:
            self._take_over(request, folder)
        return folder

    def _take_over(self, request: Request, folder: Path) -> None:
        """Move the working folder of an interrupted run of the same request into `folder`, as LEFT.

        Whoever ran it is gone, because its lock is ours. The rest of its folder is removed, as far as it can be. Only
        plain folders are moved, by one rename; what is in them is for the step to judge. One that a step has made so
        that it cannot be moved is passed over.
        """
        name = f"{request.step}-{request.key[:8]}-*"
        for left in sorted(self.root.joinpath("work").glob(name), reverse=True):
            if left == folder or not _plain_folder(left):
                continue
            there, report = _request_on_disk(left), read_report(left)
            failed = report and report.error and report.error.kind in TAKEN_UP
            if there is None or there.key != request.key or not (failed or not (left / "report.json").exists()):
                continue
            part = next((left / name for name in (WORK, LEFT) if _plain_folder(left / name)), None)
            if part is None:
                continue
            try:
                part.chmod(0o700)  # else it could not be moved into another folder
                part.rename(folder / LEFT)
            except OSError as error:
                LOG.warning("%s is not gone on from: %s. Remove it by hand.", part, error.strerror)
                continue
            shutil.rmtree(left, ignore_errors=True)
            return

    def checked(self, folder: Path, request: Request) -> Report:
        """The report of a finished folder; `StoreError` when the folder is not what its report says.

        Only a step's plain results stay: a link beside them could lead what is written here to another place.
        """
        for path in folder.iterdir():
            kind = path.lstat().st_mode
            if S_ISDIR(kind) and path.name not in OF_A_RUN:
                shutil.rmtree(path, ignore_errors=True)
            elif not S_ISDIR(kind) and not (S_ISREG(kind) and path.name in OF_A_RUN):
                path.unlink()
        report = self._valid(folder, request.key, verify=True)
        if report is None:
            raise StoreError(f"{request.step} left no valid report.json or its outputs differ from it: {folder}")
        return report

    def publish(self, folder: Path, request: Request) -> Report:
        """Move a finished folder to its place by one rename; `StoreError` when it is not what its report says."""
        report = self.checked(folder, request)
        write_atomic(folder / "request.json", request.model_dump_json(indent=1).encode())
        entry = self._entry(request)
        folder.chmod(S_IMODE(self._made(entry.parent).stat().st_mode))
        if entry.exists() and (occupant := self.find(request)):  # one without our lock was faster
            return occupant
        folder.rename(entry)
        return report

    def _valid(self, folder: Path, key: str, verify: bool) -> Report | None:
        report = read_report(folder)
        if report is None or report.status != "ok" or report.key != key:
            return None
        stamps = {output.name: stamp_of(folder / "outputs" / output.name) for output in report.outputs.values()}
        if None in stamps.values():
            return None
        if not verify and stamps == read_stamps(folder):
            return report
        try:
            if any(file_digest(folder / "outputs" / out.name) != out.sha256 for out in report.outputs.values()):
                return None
        except OSError:
            return None
        write_stamps(folder, stamps)
        return report

    def _entry(self, request: Request) -> Path:
        return self.root / request.step / request.key

    def _fresh(self, kind: str, request: Request) -> Path:
        parent = self._made(self.root / kind)
        return parent / f"{request.step}-{request.key[:8]}-{time.time_ns()}"

    def _made(self, folder: Path) -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror}. Choose another --work-root.") from None
        return folder


def read_report(folder: Path) -> Report | None:
    """The report in a folder, or None when it is missing, unreadable, no plain file or not what was sealed."""
    path = folder / "report.json"
    stamp = stamp_of(path)
    if stamp is None or stamp[0] > LARGEST_REPORT:  # a link would show another file, a pipe would never end
        return None
    try:
        report = Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return report if report.intact else None


def _plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _request_on_disk(entry: Path) -> Request | None:
    try:
        return Request.model_validate_json((entry / "request.json").read_bytes())
    except (OSError, ValidationError):
        return None
