"""The locks of the images, the check of the running environment, and recorded digests of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from containers import environment, versions
from containers.contract import Image

LOCK = "# what it is for\nnumpy==2.3.5  # why\n\ntorch==2.13.0\n"


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock of the image `mace` that only this test sees."""
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    path = tmp_path / "mace" / "requirements.lock"
    path.parent.mkdir()
    path.write_text(LOCK)
    forget()
    yield path
    forget()


def forget() -> None:
    environment.locked.cache_clear()
    environment.lock_digest.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(environment, "version", version)


def test_comments_empty_lines_and_order_are_not_pins(lock_file: Path) -> None:
    assert environment.locked("mace") == {"numpy": "2.3.5", "torch": "2.13.0"}
    digest = environment.lock_digest("mace")
    lock_file.write_text("torch==2.13.0\nnumpy==2.3.5\n")
    forget()
    assert environment.lock_digest("mace") == digest


@pytest.mark.parametrize("text", [LOCK.replace("2.13.0", "2.13.1"), LOCK + "ase==3.29.0\n", "numpy==2.3.5\n"])
def test_digest_depends_on_every_pin(lock_file: Path, text: str) -> None:
    digest = environment.lock_digest("mace")
    lock_file.write_text(text)
    forget()
    assert environment.lock_digest("mace") != digest


def test_the_locked_environment_passes_and_another_is_refused(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, numpy="2.3.5", torch="2.13.0+cpu")
    assert environment.check_environment("mace") == {"numpy": "2.3.5", "torch": "2.13.0+cpu"}
    install(monkeypatch, numpy="2.4.0", torch="2.13.0")
    with pytest.raises(environment.EnvironmentDiffers, match=r"numpy is 2\.4\.0, locked 2\.3\.5.*make setup") as caught:
        environment.check_environment("mace")
    assert "torch" not in str(caught.value)
    install(monkeypatch, numpy="2.3.5")
    with pytest.raises(environment.EnvironmentDiffers, match=r"torch is missing, locked 2\.13\.0"):
        environment.check_environment("mace")


@pytest.mark.parametrize("image", ["mace", "tensorpot"])
def test_the_locks_of_the_project_are_exact_pins(image: Image) -> None:
    pins = environment.locked(image)
    assert {"ase", "numpy", "pyarrow", "pydantic"} <= set(pins)
    assert all(pin and pin[0].isdigit() for pin in pins.values())


# ---- recorded digests of the steps


def test_every_step_is_as_recorded() -> None:
    assert versions.problems() == []


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "outer.py").write_text('"""Doc."""\nfrom containers.inner import f\nx = f(1)  # one\n')
    (tmp_path / "containers" / "inner.py").write_text("def f(a):\n    return a\n")
    return tmp_path / "containers"


def test_comments_and_docstrings_do_not_count(tree: Path) -> None:
    before = versions.source_digest("containers.outer")
    (tree / "outer.py").write_text('"""Other words."""\nfrom containers.inner import f\nx = f(1)  # uno\n')
    assert versions.source_digest("containers.outer") == before


@pytest.mark.parametrize("file", ["outer.py", "inner.py"])
def test_code_of_the_step_and_of_what_it_imports_counts(tree: Path, file: str) -> None:
    before = versions.source_digest("containers.outer")
    path = tree / file
    path.write_text(path.read_text().replace("1", "2").replace("return a", "return a + 1"))
    assert versions.source_digest("containers.outer") != before
