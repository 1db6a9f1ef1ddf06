"""What a build may have left of its host in a folder: `python trace.py FOLDER NEEDLES`; prints what it finds, as JSON.

NEEDLES is JSON: `addresses` of registries, `certificates` (PEM), and the name of the `host`. Runs in an image, on its
root, so it needs only Python. The content of packages is that of their wheels and not read, only what pip adds.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ["pip.conf", ".netrc", ".pypirc", ".git", ".gitconfig", ".git-credentials", ".docker", ".env", "ca.pem"]
OF_A_WHEEL = re.compile(r"/site-packages/(?![^/]+\.dist-info/)")
NAMES_THE_HOST = re.compile(r"^opt/venv/(pyvenv\.cfg|bin/[^/]+)$|\.dist-info/[^/]+$")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
NOT_OF_THE_IMAGE = ("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv")


def files(root: Path) -> Iterator[str]:
    """Plain files under `root` that are the image's, relative to it."""
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        folders[:] = [name for name in folders if os.path.normpath(f"{inside}/{name}") not in NOT_OF_THE_IMAGE]
        for name in names:
            path = os.path.normpath(f"{inside}/{name}")
            if path not in NOT_OF_THE_IMAGE and (root / path).is_file() and not (root / path).is_symlink():
                yield path


def traces(root: Path, path: str, addresses: list[str], certificates: list[str], host: str) -> Iterator[str]:
    """What is wrong with one file."""
    if set(Path(path).parts) & set(NAMES):
        yield f"{path}: a file of the build or of a user"
    if OF_A_WHEEL.search(path):
        return
    content = (root / path).read_bytes()
    if any(address.encode() in content for address in addresses):
        yield f"{path}: an address of a registry"
    if path.startswith("opt/") and b"-----BEGIN CERTIFICATE" in content:
        found = CERTIFICATE.findall(content.decode(errors="replace"))
        if set(found) & set(certificates):
            yield f"{path}: a certificate of this host"
    word = rb"(?<![\w.-])" + re.escape(host.encode()) + rb"(?![\w-])"
    if NAMES_THE_HOST.search(path) and re.search(word, content):
        yield f"{path}: this host's name"


def main(root: str, needles: str) -> None:
    """Print what was found, and how many files there are."""
    paths = list(files(Path(root)))
    found = [trace for path in paths for trace in traces(Path(root), path, **json.loads(needles))]
    print(json.dumps({"files": len(paths), "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
