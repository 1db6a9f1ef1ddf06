"""Locks of both stores. All are the operating system's: they die with the process that holds them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOLCK, ENOSYS
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import StoreError

NO_LOCKS = (ENOSYS, ENOLCK)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock at `path` alone; waits for it."""
    lock = _lock(path)
    with _name_missing_locks(path):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def try_hold(path: Path) -> FileLock | None:
    """The lock at `path`, held until its `release`; None when somebody holds it, another thread of ours included."""
    lock = _lock(path)
    try:
        with _name_missing_locks(path):
            lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def is_held(path: Path) -> bool:
    """Return True if somebody holds the lock at `path`; makes no file there, unlike an attempt to hold it."""
    try:
        with path.open("r+b") as file:
            return not _flocked(path, file.fileno())
    except FileNotFoundError:
        return False


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock at `path` together with others who share it; waits for one who holds it alone."""
    with path.open("a+b") as file:
        with _name_missing_locks(path):
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold the lock of `shared` alone if nobody has it now; gives whether it is held."""
    with path.open("a+b") as file:
        yield _flocked(path, file.fileno())


def _flocked(path: Path, descriptor: int) -> bool:
    try:
        with _name_missing_locks(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(path: Path) -> FileLock:
    """Never one that outlives its process; one that another thread than the first may release."""
    return FileLock(path, thread_local=False, fallback_to_soft=False)


@contextmanager
def _name_missing_locks(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise StoreError(
            f"{path}: this file system has no locks ({error.strerror}). Mount it with flock, or choose another"
            " --work-root."
        ) from None
