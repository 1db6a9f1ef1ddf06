"""Steps that lie: a hostile file may make one report or leave anything. None of it is believed or followed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.errors import StoreError
from tasks.run_step import look_up

if TYPE_CHECKING:
    Obedient = Any  # of conftest.py, which cannot be imported

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

FORGE = """
from containers.contract import OutputFile, Report, Request, file_digest
request = Request.model_validate_json((folder / "request.json").read_bytes())

def report(outputs, **changes):
    found = {name: OutputFile(name=file, sha256=file_digest(place), size=1) for name, (file, place) in outputs.items()}
    said = dict(status="ok", step=request.step, key=request.key, outputs=found, seconds=1, peak_memory_MB=1)
    (folder / "report.json").write_text(Report(**{**said, **changes}).sealed().model_dump_json())

def honest():
    done(outputs)
    return {name: (file, outputs / file) for name, file in ingest.OUTPUTS.items()}
"""
LEAVE = "\nimport os; sys.stdout.flush(); os._exit({code})"


SECRET = "the password is swordfish"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this machine that no step was given."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


def test_an_undeclared_file_is_refused(obedient: Obedient) -> None:
    failed = obedient.failure("done(outputs); (outputs / 'more.txt').write_text('')")
    assert failed.message == "outputs differ from what the step declares: missing [], not declared ['more.txt']"


def test_a_missing_file_is_refused(obedient: Obedient) -> None:
    failed = obedient.failure("done(outputs); (outputs / 'duplicates.parquet').unlink()")
    assert "missing ['duplicates.parquet'], not declared []" in failed.message


LINK = "path = outputs / 'structures.parquet'; path.unlink(); path.symlink_to({target!r})"


def test_a_link_out_of_the_folder_is_refused(obedient: Obedient, secret: Path) -> None:
    """By the step itself, to which the link leads nowhere, and by us, should the step keep quiet about it."""
    failed = obedient.failure(f"done(outputs)\n{LINK.format(target=str(secret))}")
    assert failed.message == "outputs must be plain files, not links or folders: ['structures.parquet']"
    quiet = f"{FORGE}\nsaid = honest()\nreport(said)\n{LINK.format(target=str(secret))}{LEAVE.format(code=0)}"
    failed = obedient.failure(quiet)
    assert failed.message == "outputs must be plain files, not links or folders: ['structures.parquet']"
    assert secret.read_text() == SECRET


def test_a_link_in_the_place_of_the_outputs_is_refused(obedient: Obedient, tmp_path: Path) -> None:
    """The folder it names has files of the right names and digests: outputs that another step could change later."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("structures.parquet", "duplicates.parquet"):
        (elsewhere / name).write_bytes(b"done")
    swap = f"import shutil; shutil.rmtree(outputs); outputs.symlink_to({str(elsewhere)!r})"
    failed = obedient.failure(f"{FORGE}\nreport(honest())\n{swap}{LEAVE.format(code=0)}")
    assert failed.message == "outputs/ is a link or a file, it must be a plain folder"


def test_a_file_in_the_place_of_the_outputs_is_refused(obedient: Obedient) -> None:
    swap = "import shutil; shutil.rmtree(outputs); outputs.write_text('')"
    failed = obedient.failure(f"{FORGE}\nreport(honest())\n{swap}{LEAVE.format(code=0)}")
    assert failed.message == "outputs/ is a link or a file, it must be a plain folder"


def test_a_log_that_was_made_a_link_is_not_followed(obedient: Obedient, secret: Path) -> None:
    code = f"path = folder / 'log.txt'; path.unlink(); path.symlink_to({str(secret)!r}); 1 / 0"
    failed = obedient.failure(code)
    assert failed.kind == "ZeroDivisionError"
    assert SECRET not in str(failed)
    assert secret.read_text() == SECRET


@pytest.mark.parametrize("made", ["path.symlink_to({secret!r})", "path.symlink_to('/dev/zero')", "os.mkfifo(path)"])
def test_a_report_that_is_no_plain_file_is_not_read(made: str, obedient: Obedient, secret: Path) -> None:
    code = f"import os; path = folder / 'report.json'; {made.format(secret=str(secret))}{LEAVE.format(code=0)}"
    failed = obedient.failure(code)
    assert failed.message == "the process ended without a report (exit code 0)"
    assert SECRET not in str(failed)


def test_links_in_the_way_of_our_own_writing_are_not_followed(obedient: Obedient, secret: Path) -> None:
    """A file is written under a passing name with our process number, which a step can guess."""
    pids = range(os.getpid() - 5, os.getpid() + 5)
    names = [f".{name}.{pid}" for pid in pids for name in ("stamps.json", "request.json")]
    link = f"[(folder / name).symlink_to({str(secret)!r}) for name in {[*names, 'stamps.json']}]"
    artefact = obedient.run(f"done(outputs); {link}")
    assert secret.read_text() == SECRET
    entry = obedient.workspace().store.root / "ingest" / artefact.key
    assert {path.name for path in entry.iterdir()} == {
        "log.txt",
        "outputs",
        "report.json",
        "request.json",
        "stamps.json",
    }
    assert not any(path.is_symlink() for path in entry.rglob("*"))


@pytest.mark.parametrize("act", ["path.unlink()", "path.write_text('{}')", "path.rename(folder / 'other')"])
def test_the_request_cannot_be_changed(act: str, obedient: Obedient) -> None:
    """Whoever repeats a kept folder runs what we asked, not what a hostile step would like."""
    failed = obedient.failure(f"path = folder / 'request.json'; {act}")
    assert failed.kind == "OSError"
    assert json.loads((failed.folder / "request.json").read_text())["step"] == "ingest"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"structures": "structures.parquet"}, "its report names other outputs than the step has"),
        (
            {"structures": "../request.json", "duplicates": "duplicates.parquet"},
            "its report names other outputs than the step has",
        ),
        (
            {"structures": "duplicates.parquet", "duplicates": "structures.parquet"},
            "its report names other outputs than the step has",
        ),
    ],
    ids=["too few", "outside", "exchanged"],
)
def test_a_report_of_other_outputs_is_refused(outputs: dict[str, str], message: str, obedient: Obedient) -> None:
    said = f"{{name: (file, outputs / file) for name, file in {outputs!r}.items()}}"
    failed = obedient.failure(f"{FORGE}\nhonest()\nreport({said}){LEAVE.format(code=0)}")
    assert failed.message == message


def test_a_report_of_other_digests_is_refused(obedient: Obedient) -> None:
    code = f"{FORGE}\nreport(honest())\n(outputs / 'structures.parquet').write_bytes(b'else'){LEAVE.format(code=0)}"
    with pytest.raises(StoreError, match=r"left no valid report.json or its outputs differ from it"):
        obedient.run(code)


def test_a_report_for_another_key_is_refused(obedient: Obedient) -> None:
    code = f"{FORGE}\nreport(honest(), key='0' * 64){LEAVE.format(code=0)}"
    with pytest.raises(StoreError, match=r"left no valid report.json or its outputs differ from it"):
        obedient.run(code)
    assert look_up(obedient.call(code), obedient.workspace()) is None


def test_an_ok_report_with_exit_code_1_is_refused(obedient: Obedient) -> None:
    failed = obedient.failure(f"{FORGE}\nreport(honest()){LEAVE.format(code=1)}")
    assert failed.message == "its report says ok, but the process did not end well (exit code 1)"
    assert failed.kind == "Died"


def test_exit_code_0_without_a_report_is_refused(obedient: Obedient) -> None:
    failed = obedient.failure(f"print('all is well')\ndone(outputs){LEAVE.format(code=0)}")
    assert failed.message == "the process ended without a report (exit code 0)"
    assert failed.log_tail.strip() == "all is well"


def test_the_same_forged_report_about_the_truth_is_taken(obedient: Obedient) -> None:
    """The control of the tests above: what is refused there is refused for what it says."""
    assert obedient.run(f"{FORGE}\nreport(honest()){LEAVE.format(code=0)}").outputs
