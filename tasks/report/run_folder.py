"""Publish a folder as a whole: whoever looks, and whenever the process dies, sees the old one or the new one.

Beside `NAME` lie, hidden and only for a moment:

- `.NAME.building`: unfinished or to be deleted; never of use;
- `.NAME.new`: complete, about to become `NAME`; after the exchange it is the folder that was `NAME`;
- `.NAME.old`: the folder that was `NAME`, where the system cannot exchange two folders in one call.

The next publish finds what a kill left, so nothing of the user's is lost. `.NAME.lock` dies with its process.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from containers.contract import file_digest
from tasks.errors import StoreError, UserError

MANIFEST = "manifest.json"
BESIDE = ("building", "new", "old", "lock")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def publish_files(
    target: Path, copies: Mapping[str, Path], contents: Mapping[str, str | bytes], about: Mapping[str, Any]
) -> None:
    """Publish a folder of copies and new files, with a manifest.json that ends with the digest of each.

    Args:
        target: see `publish_folder`, which also says what is raised.
        copies: name in the folder -> file to copy, so that editing the copy cannot damage the store.
        contents: name in the folder -> content.
        about: begins the manifest.
    """

    def fill(folder: Path) -> None:
        for name in {*copies, *contents}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name, source in copies.items():
            shutil.copyfile(source, folder / name)
        for name, content in contents.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        files = {name: file_digest(folder / name) for name in sorted({*copies, *contents})}
        (folder / MANIFEST).write_text(json_text({**about, "files": files}), encoding="utf-8")

    publish_folder(target, fill)


def json_text(value: Mapping[str, Any]) -> str:
    """Readable JSON; dates and paths of a config become text."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def publish_folder(
    target: Path, fill: Callable[[Path], None], exchange: Callable[[Path, Path], bool] | None = None
) -> None:
    """Make `target` the folder that `fill` writes, and carry the user's own files over from the one before.

    Args:
        target: the folder to publish; a link to a folder is followed.
        fill: writes into the empty folder it is given, with a manifest.json whose `files` (name -> sha256) lists
            what was published, so that a file the user added or edited is known later. An edited one is kept
            beside the new one as `NAME.edited`.
        exchange: swaps two folders in one step, or returns False; by default the system's call.

    Raises:
        UserError: `target` exists and is not a folder.
        StoreError: its place cannot be written.
    """
    place = target.resolve()
    building, new, old, lock = (place.with_name(f".{place.name}.{ending}") for ending in BESIDE)
    if place.exists() and not place.is_dir():
        raise UserError(f"{target} is in the way of the run folder of that name: move it, or give the run another name")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            _recover(place, building, (new, old))
            building.mkdir()
            fill(building)
            building.rename(new)
            if not place.exists():
                new.rename(place)
            elif not (exchange or exchange_folders)(new, place):
                place.rename(old)
                new.rename(place)
            _recover(place, building, (new, old))
    except OSError as error:
        raise StoreError(f"cannot publish {target}: {error}. Free or change the work root, then run again.") from error


def _recover(target: Path, building: Path, complete: tuple[Path, Path]) -> None:
    """Bring the hidden folders to rest: a complete one takes the place of a missing target, the others give back."""
    if building.exists():
        shutil.rmtree(building)
    for hidden in complete:
        if not hidden.exists():
            continue
        if not target.exists():
            hidden.rename(target)
            continue
        try:
            manifest = json.loads((hidden / MANIFEST).read_bytes())
        except (FileNotFoundError, ValueError):  # a folder of the user's own: all of it is kept
            manifest = None
        files = manifest.get("files") if isinstance(manifest, dict) else None
        _carry_over(hidden, target, {**files, MANIFEST: ""} if files and isinstance(files, dict) else {})
        hidden.rename(building)  # from here on it is rubbish, also when deleting it is cut short
        shutil.rmtree(building)


def _carry_over(old: Path, target: Path, published: dict[str, str]) -> None:
    """Move what is not as it was published: renames, so open files and big trajectories stay what they are.

    Names that are free come first, so that an edit kept long ago does not lose its name to a newer one. A folder that
    was published is looked into.

    Args:
        published: names in `old` -> digests (an empty one: any content).
    """
    for entry in sorted(old.iterdir(), key=lambda entry: (os.path.lexists(target / entry.name), entry.name)):
        folder, place = f"{entry.name}/", target / entry.name
        inside = {name.removeprefix(folder): sha for name, sha in published.items() if name.startswith(folder)}
        if inside and entry.is_dir() and not entry.is_symlink() and (place.is_dir() or not os.path.lexists(place)):
            _carry_over(entry, place, inside)
            continue
        digest = published.get(entry.name)
        plain = digest is not None and entry.is_file() and not entry.is_symlink()
        if plain and digest in ("", file_digest(entry)):
            continue
        number, edited = 1, target / f"{entry.name}.edited"
        while os.path.lexists(place):
            place = edited if number == 1 else edited.with_name(f"{edited.name}{number}")
            number += 1
        target.mkdir(parents=True, exist_ok=True)
        entry.rename(place)


def exchange_folders(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux renameat2); False where the system or the file system has no such call."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(other))
