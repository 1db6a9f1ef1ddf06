"""The README says what is there: targets, flags, settings, files, exit codes."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from flows import command_line
from flows.compare import __main__ as compare_command
from flows.config.loading import load_config
from flows.config.schema import DistillConfig
from flows.distill import __main__ as command
from flows.sweep import __main__ as sweep_command
from flows.sweep.__main__ import _key_and_values
from flows.value_curve import __main__ as value_command
from tasks.report.summary import PUBLISHED
from tasks.settings import Settings

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
WRITTEN = {"in.lammps", "ml_peg.yml", "report.html", "report.json", "manifest.json"}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "ui", "bench"} <= named <= targets


@pytest.mark.parametrize("line", re.findall(r"^python -m flows\.distill (.*?)\s*(?:#.*)?$", README, flags=re.MULTILINE))
def test_every_command_line_is_understood(line: str) -> None:
    if "--help" not in line:
        options = command.parser().parse_args(line.split())
        assert options.config == Path("my.yaml")


@pytest.mark.parametrize(
    "line", re.findall(r"^python -m flows\.value_curve (.*?)\s*(?:#.*)?$", README, flags=re.MULTILINE)
)
def test_every_command_line_of_the_value_curve_is_understood(line: str) -> None:
    assert value_command.parser().parse_args(line.split()).config == Path("my.yaml")


@pytest.mark.parametrize("line", re.findall(r"^python -m flows\.sweep (.*?)\s*(?:#.*)?$", README, flags=re.MULTILINE))
def test_every_command_line_of_the_sweep_is_understood(line: str) -> None:
    assert sweep_command.parser().parse_args(line.split()).config == Path("my.yaml")


@pytest.mark.parametrize("line", re.findall(r"^python -m flows\.compare (.*?)\s*(?:#.*)?$", README, flags=re.MULTILINE))
def test_every_command_line_of_the_comparison_is_understood(line: str) -> None:
    assert compare_command.parser().parse_args(line.split()).runs == [Path("runs/first"), Path("runs/second")]


@pytest.mark.parametrize(
    "module", [command, value_command, sweep_command, compare_command], ids=lambda module: module.__name__
)
def test_every_example_of_a_help_is_understood(module: ModuleType) -> None:
    lines = re.findall(r"^  python -m flows\.\w+((?: \S+)*)", module.EPILOG, flags=re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        options = module.parser().parse_args(shlex.split(line))
        assert all(len(_key_and_values(option)[1]) > 1 for option in getattr(options, "vary", []))


def test_the_config_shown_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "my.yaml").write_text(block)
    assert isinstance(load_config(tmp_path / "my.yaml"), DistillConfig)
    assert set(yaml.safe_load(block)) <= set(DistillConfig.model_fields)


def test_every_setting_is_documented_and_no_other() -> None:
    named = set(re.findall(r"DISTILL_[A-Z_]+", README))
    assert named == {f"DISTILL_{name.upper()}" for name in Settings.model_fields}
    assert named == set(re.findall(r"DISTILL_[A-Z_]+", command.EPILOG))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_or_a_target_that_is_not_there(page: Path) -> None:
    text, makefile = page.read_text(), (REPOSITORY / "Makefile").read_text()
    settings = {f"DISTILL_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"DISTILL_[A-Z_]*[A-Z]", text)) <= settings
    assert set(re.findall(r"\bmake ([a-z-]+)`", text)) <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["use/labelling.md", "operate/containers.md", "operate/worker.md"])
def test_the_config_lines_of_a_page_are_valid(name: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / name).read_text(), flags=re.DOTALL)
    config = {"name": "page", "teacher": {"model": "my.model"}, "pool": {"files": ["pool.extxyz"]}}
    for block in blocks:
        DistillConfig.model_validate({**config, **yaml.safe_load(block)})
    assert blocks or name != "use/labelling.md"


def test_every_published_file_is_documented() -> None:
    published = {*PUBLISHED, "calculator.py"}
    assert all(f"`{name}`" in README for name in {*published, *WRITTEN})


def test_the_exit_codes_are_those_of_the_command() -> None:
    codes = set(map(int, re.findall(r"^\| (\d) \|", README, flags=re.MULTILINE)))
    assert codes == {command_line.CONVERGED, command_line.FAILED, command_line.BAD_INPUT, command_line.NOT_CONVERGED}


def test_the_config_reference_is_what_the_models_say() -> None:
    """Run `python docs/use/make_config.py` when this fails."""
    made = runpy.run_path(str(REPOSITORY / "docs" / "use" / "make_config.py"))["page"]()
    assert (REPOSITORY / "docs" / "use" / "config.md").read_text() == made


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """Relative links name files that are there, and headings of them."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE) if heading else []
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_config_key_in_a_page_is_one(page: Path) -> None:
    sections = "|".join(name for name, field in DistillConfig.model_fields.items() if name != "name")
    for section, key in re.findall(rf"`({sections})\.([a-z_A-Z0-9]+)[`:]", page.read_text()):
        if key in ("parquet", "json", "cfg", "extxyz", "csv", "png"):  # a file's name
            continue
        assert key in DistillConfig.model_fields[section].annotation.model_fields, f"{section}.{key}"
