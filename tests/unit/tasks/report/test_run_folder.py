"""Publishing a folder: whole or not at all, whatever kills it, and nothing of the user's lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.contract import file_digest
from tasks.errors import UserError
from tasks.report.run_folder import MANIFEST, exchange_folders, publish_folder

NAMES = [f"part {number}" for number in range(5)]
LOOP = """
import sys, itertools, pathlib, importlib.util
spec = importlib.util.spec_from_file_location("this_test", sys.argv[1])
test = importlib.util.module_from_spec(spec); spec.loader.exec_module(test)
for version in itertools.count():
    test.publish_folder(pathlib.Path(sys.argv[2]), test.filler(f"v{version}"))
"""


class Killed(BaseException):
    """Stands for SIGKILL at one exact place."""


def filler(version: str) -> Callable[[Path], None]:
    """Fills a folder with files that all hold `version`."""

    def fill(folder: Path) -> None:
        for name in NAMES:
            (folder / name).write_text(version)
        files = {name: file_digest(folder / name) for name in NAMES}
        (folder / MANIFEST).write_text(json.dumps({"files": files}))

    return fill


def no_exchange(one: Path, other: Path) -> bool:
    return False


def version_of(folder: Path) -> str:
    (version,) = {(folder / name).read_text() for name in NAMES}
    return version


@pytest.fixture(params=[exchange_folders, no_exchange], ids=["exchange", "two renames"])
def exchange(request: pytest.FixtureRequest) -> Callable[[Path, Path], bool]:
    chosen: Callable[[Path, Path], bool] = request.param
    return chosen


def test_the_new_folder_takes_the_place_and_nothing_hidden_stays(tmp_path: Path, exchange) -> None:
    target = tmp_path / "runs" / "silicon"
    for version in ("v1", "v2"):
        publish_folder(target, filler(version), exchange)
        assert version_of(target) == version
    assert sorted(path.name for path in target.parent.iterdir()) == [".silicon.lock", "silicon"]


def test_files_of_the_user_stay_and_edits_are_kept_beside(tmp_path: Path, exchange) -> None:
    target = tmp_path / "silicon"
    publish_folder(target, filler("v1"), exchange)
    (target / "notes.txt").write_text("mine")
    (target / "md").mkdir()
    (target / "md" / "dump").write_text("long")
    (target / "part 0").write_text("edited once")
    publish_folder(target, filler("v2"), exchange)
    (target / "part 0").write_text("edited twice")
    publish_folder(target, filler("v3"), exchange)
    assert version_of(target) == "v3"
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "md" / "dump").read_text() == "long"
    assert (target / "part 0.edited").read_text() == "edited once"
    assert (target / "part 0.edited2").read_text() == "edited twice"
    assert len(list(target.iterdir())) == len(NAMES) + 5


def test_a_published_folder_inside_is_looked_into(tmp_path: Path, exchange) -> None:
    def nested(*names: str) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("published")
            files = {name: file_digest(folder / name) for name in names}
            (folder / MANIFEST).write_text(json.dumps({"files": files}))

        return fill

    target = tmp_path / "silicon"
    publish_folder(target, nested("fit/1/input.yaml", "fit/2/input.yaml", "fit/3/input.yaml"), exchange)
    (target / "fit" / "1" / "log.txt").write_text("mine")
    (target / "fit" / "1" / "input.yaml").write_text("edited")
    (target / "fit" / "2" / "md").mkdir()
    (target / "fit" / "2" / "md" / "dump").write_text("long")
    publish_folder(target, nested("fit/1/input.yaml"), exchange)
    found = {path.relative_to(target).as_posix(): path.read_text() for path in (target / "fit").rglob("*.*")}
    assert found == {
        "fit/1/input.yaml": "published", "fit/1/input.yaml.edited": "edited", "fit/1/log.txt": "mine",
    }  # fmt: skip
    assert (target / "fit" / "2" / "md" / "dump").read_text() == "long"
    assert sorted(path.name for path in (target / "fit").iterdir()) == ["1", "2"]
    assert sorted(path.name for path in target.iterdir()) == ["fit", MANIFEST]


def test_a_folder_that_was_never_published_is_kept_whole(tmp_path: Path, exchange) -> None:
    target = tmp_path / "silicon"
    target.mkdir()
    (target / "part 0").write_text("mine")
    (target / MANIFEST).write_text("not of ours")
    publish_folder(target, filler("v1"), exchange)
    assert version_of(target) == "v1"
    assert (target / "part 0.edited").read_text() == "mine"
    assert (target / f"{MANIFEST}.edited").read_text() == "not of ours"


def test_links_are_followed_files_refused_and_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "disk" / "silicon").mkdir(parents=True)
    link = tmp_path / "silicon"
    link.symlink_to(tmp_path / "disk" / "silicon")
    publish_folder(link, filler("v1"))
    assert link.is_symlink()
    assert version_of(tmp_path / "disk" / "silicon") == "v1"
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UserError, match=r"file is in the way .* another name"):
        publish_folder(tmp_path / "file", filler("v1"))
    assert (tmp_path / "file").read_text() == "a file"

    def half(folder: Path) -> None:
        (folder / "part 0").write_text("v2")
        raise Killed

    publish_folder(tmp_path / "silicon", filler("v1"))
    with pytest.raises(Killed):
        publish_folder(tmp_path / "silicon", half)
    assert version_of(tmp_path / "silicon") == "v1"
    publish_folder(tmp_path / "silicon", filler("v3"))
    assert version_of(tmp_path / "silicon") == "v3"


@pytest.mark.parametrize("swapped", [False, True], ids=["before the exchange", "after the exchange"])
def test_killed_around_the_exchange(tmp_path: Path, swapped: bool) -> None:
    def dies(one: Path, other: Path) -> bool:
        if swapped:
            exchange_folders(one, other)
        raise Killed

    target = tmp_path / "silicon"
    publish_folder(target, filler("v1"))
    (target / "notes.txt").write_text("mine")
    with pytest.raises(Killed):
        publish_folder(target, filler("v2"), dies)
    assert version_of(target) == ("v2" if swapped else "v1")
    publish_folder(target, filler("v3"))
    assert version_of(target) == "v3"
    assert (target / "notes.txt").read_text() == "mine"
    assert not list(target.glob("*.edited*"))


def test_killed_between_two_renames(tmp_path: Path) -> None:
    target = tmp_path / "silicon"
    publish_folder(target, filler("v1"))
    (target / "notes.txt").write_text("mine")
    target.rename(tmp_path / ".silicon.old")
    publish_folder(tmp_path / "other", filler("v2"))
    (tmp_path / "other").rename(tmp_path / ".silicon.new")
    publish_folder(target, filler("v3"))
    assert version_of(target) == "v3"
    assert (target / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".silicon.[no]*"))


def test_a_real_kill_at_any_moment_leaves_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "silicon"
    publish_folder(target, filler("start"))
    (target / "notes.txt").write_text("mine")
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", LOOP, __file__, str(target)], cwd=Path(__file__).parents[4])
        wait_until_published(target, child)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert version_of(target).startswith("v")
        publish_folder(target, filler("start"))
        assert (target / "notes.txt").read_text() == "mine"
        assert len(list(target.iterdir())) == len(NAMES) + 2


def wait_until_published(target: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait until the child has published over the start, and a while that differs from child to child."""
    deadline = time.monotonic() + 30
    while (target / NAMES[0]).read_text() == "start":
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05 + child.pid % 7 / 100)
