"""Which students nothing beats, which one is taken, and the folders of a sweep and of a committee."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.report.plots import BLUE, GREY, ORANGE
from tasks.studies.committee import CommitteeStudent, CommitteeSummary
from tasks.studies.sweep import (
    COST,
    ENERGY,
    FORCE,
    SweepFailure,
    SweepSummary,
    SweptStudent,
    choose,
    chosen_yaml,
    comma_separated,
    front,
    sweep_picture,
)
from tests.unit.tasks.pictures import ink


def student(name: str, force: float, cost: float | None, stable: bool | None = True, **changes: Any) -> SweptStudent:
    figures = {FORCE: force, "force_max_meV_per_A": 9 * force, ENERGY: force / 10, COST: cost, "structures": 30}
    return SweptStudent(
        name=name, changes=changes or {"train.maxiter": 10}, verdict="converged", attempts=1, iterations=10, fit_s=75.0,
        structures=300, functions=250, stable=stable, figures=figures, potential_key="ab" * 32,
    )  # fmt: skip


FAST, GOOD = student("fast", 60.0, 10.0), student("good", 42.0, 30.0)
DEAR, BEATEN = student("dear", 40.0, 90.0), student("beaten", 61.0, 40.0)
ALL = (BEATEN, DEAR, FAST, GOOD)


@pytest.fixture
def sweep() -> SweepSummary:
    return SweepSummary(
        name="si<b>", config={}, teacher_reach_A=10.0, take="best", within=0.1, students=ALL,
        chosen_config={"name": "si", "train": {"l1": 1e-8, "early_stop": None}},
    )  # fmt: skip


def test_the_front_is_what_no_other_beats() -> None:
    assert [one.name for one in front(ALL)] == ["fast", "good", "dear"]
    assert [one.name for one in front([GOOD, student("same", 42.0, 30.0)])] == ["good"]
    assert front([student("untimed", 1.0, None)]) == ()
    for one in ALL:
        beaten = any(other.force <= one.force and other.cost < one.cost for other in ALL if other is not one)  # type: ignore[operator]
        assert (one in front(ALL)) != beaten


@pytest.mark.parametrize(
    ("within", "name"), [(0.0, "dear"), (0.04, "dear"), (0.05, "good"), (0.5, "fast"), (9.0, "fast")]
)
def test_the_cheapest_is_the_fastest_of_those_within_the_share(within: float, name: str) -> None:
    assert choose(ALL, "cheapest", within).name == name
    assert choose(ALL, "best", within).name == "dear"


def test_an_unstable_or_untimed_student_is_taken_only_when_there_is_no_other() -> None:
    wild = student("wild", 1.0, 1.0, stable=False)
    assert choose([*ALL, wild], "best", 0.1).name == "dear"
    assert choose([*ALL, wild], "cheapest", 9.0).name == "fast"
    assert choose([wild], "best", 0.1) is wild
    assert choose([*ALL, student("no gate", 1.0, 1.0, stable=None)], "best", 0.1).name == "no gate"
    assert choose([student("untimed", 42.0, None), GOOD], "cheapest", 0.1).name == "good"


def test_front_rest_and_the_taken_one_are_drawn() -> None:
    png = sweep_picture(ALL, "dear")
    assert min(ink(png, colour) for colour in (BLUE, ORANGE, GREY)) > 20
    assert sweep_picture(ALL, "dear") == png
    assert ink(sweep_picture((GOOD, DEAR), "dear"), GREY) < ink(png, GREY)
    assert sweep_picture(ALL, "good") != png


def test_the_front_alone_is_named_and_a_student_without_a_time_not_drawn() -> None:
    many = [student(f"s{n}", 100.0 + n, 10.0 + n) for n in range(40)]
    renamed = [one.model_copy(update={"name": f"{one.name} renamed"}) if n else one for n, one in enumerate(many)]
    assert sweep_picture(many, "s0") == sweep_picture(renamed, "s0")
    assert sweep_picture([*ALL, student("odd", 5.0, None)], "dear") == sweep_picture(ALL, "dear")


@pytest.mark.parametrize(("force", "cost"), [(0.0, 1.0), (5.0, None), (5.0, 0.0)])
def test_a_figure_that_no_logarithm_takes_is_left_out_without_a_warning(
    force: float, cost: float | None, recwarn: pytest.WarningsRecorder
) -> None:
    for students in ([student("odd", force, cost)], [*ALL, student("odd", force, cost)]):
        assert sweep_picture(students, "odd").startswith(b"\x89PNG")
    drawn = [warning for warning in recwarn if not issubclass(warning.category, ResourceWarning)]  # of another test
    assert not [str(warning.message) for warning in drawn]


def notes(sweep: SweepSummary) -> list[str]:
    return [part for part in sweep.parts()[1:] if isinstance(part, str) and part]


def test_the_table_has_a_row_a_student_by_force_error(sweep: SweepSummary) -> None:
    told = sweep.parts()[-2].rows
    assert [row[0] for row in told] == ["dear", "good", "fast", "beaten"]
    assert {len(row) for row in told} == {len(sweep.parts()[-2].head)}
    assert [row[-2:] for row in told] == [("yes", "yes"), ("yes", ""), ("yes", ""), ("", "")]
    assert told[0][1:5] == ("40", "360", "4", "90")


def test_what_must_be_known_is_reported(sweep: SweepSummary) -> None:
    assert notes(sweep) == ["Taken: dear (the smallest force error)."]
    cheap = sweep.model_copy(update={"take": "cheapest"})
    assert "the fastest whose force error exceeds the smallest by at most 10 %" in notes(cheap)[0]
    cut = sweep.model_copy(update={"students": (*ALL, student("c", 99.0, 9.0, **{"pacemaker.cutoff": 4.0}))})
    assert "The teacher sees 10 Å" in notes(cut)[1]
    wild = sweep.model_copy(update={"students": (student("wild", 1.0, 1.0, stable=False),)})
    assert notes(wild)[-1] == "No student passed the stability check in molecular dynamics."
    other = GOOD.model_copy(update={"figures": {**GOOD.figures, "structures": 31}})
    assert "different structures" in notes(sweep.model_copy(update={"students": (DEAR, other)}))[-1]


def test_names_are_escaped_failures_named_and_csv_and_config_hold_what_they_should(sweep: SweepSummary) -> None:
    assert "si<b>" not in sweep.page(b"png")
    stub = sweep.model_copy(update={"stub": True})
    assert "STUB RUN" in stub.page(b"png")
    assert "STUB RUN" in stub.text()
    assert "STUB RUN" not in sweep.page(b"png")
    failure = SweepFailure(name="x", changes={}, step="pace_train", message="the loss <is> infinite")
    failed = sweep.model_copy(update={"failures": (failure,)})
    assert "| x | pace\\_train | the loss &lt;is&gt; infinite |" in failed.text()
    assert "the loss &lt;is&gt; infinite" in failed.page(b"png")
    assert "These gave" not in sweep.text()
    changed = sweep.model_copy(update={"students": (student("s", 5.0, 1.0, **{"train.stages": [1, 2]}), *ALL)})
    read = list(csv.DictReader(io.StringIO(comma_separated(changed))))
    assert [row["test_force_mae_meV_per_A"] for row in read] == ["5.0", "61.0", "40.0", "60.0", "42.0"]
    assert [row["student_us_per_atom"] for row in read[:2]] == ["1.0", "40.0"]
    assert (read[0]["train.stages"], read[0]["train.maxiter"], read[1]["train.maxiter"]) == ("[1, 2]", "", "10")
    text = chosen_yaml(sweep, Path("here/chosen.yaml"))
    assert YAML(typ="safe", pure=True).load(text) == sweep.chosen_config
    assert "python -m flows.distill here/chosen.yaml" in text


def test_the_folder_is_published_as_a_whole(sweep: SweepSummary, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "si" / "sweep"
    text = sweep.publish(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "sweep.png", "sweep.json", "sweep.csv", "sweep.md", "index.html", "chosen.yaml", "manifest.json",
    }  # fmt: skip
    assert SweepSummary.model_validate_json((folder / "sweep.json").read_bytes()) == sweep
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    assert "data:image/png;base64," in text
    assert len(text) < 1_000_000
    assert "data:image" not in (folder / "sweep.md").read_text()


def committee_of(folder: Path, count: int, mark: str) -> CommitteeSummary:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    (store / mark).write_text(mark)
    members = tuple(
        CommitteeStudent(
            name=str(place), force_mae_meV_per_A=40.0 + place, energy_mae_meV_per_atom=None,
            verdict="killed", stable=False, files={"potential.yaml": store / mark, "baseline.json": store / mark},
        )
        for place in range(1, count + 1)
    )  # fmt: skip
    figures = {"force_std_mean_meV_per_A": 12.5, "force_std_error_pearson": 0.75}
    return CommitteeSummary(name="si", differ_by="bootstrap", students=members, figures=figures, spread=store / mark)


def test_a_committees_folder_has_its_students_and_who_asks_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "si" / "committee"
    text = committee_of(tmp_path, 3, "first").publish(folder)
    assert "12.5" in text
    assert "| 2 | 42 | – | killed | False |" in text
    assert {"1", "2", "3", "committee.py", "calculator.py", "committee.json", "committee.parquet"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "committee.json").read_text())["students"] == ["1", "2", "3"]


def test_a_smaller_committee_later_keeps_the_users_files_and_asks_its_own_students(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "si" / "committee"
    committee_of(tmp_path, 3, "first").publish(folder)
    (folder / "mine.txt").write_text("mine")
    (folder / "7").mkdir()
    committee_of(tmp_path, 2, "second").publish(folder)
    assert (folder / "mine.txt").read_text() == "mine"
    assert json.loads((folder / "committee.json").read_text())["students"] == ["1", "2"]
    assert [(folder / name / "potential.yaml").read_text() for name in ("1", "2")] == ["second"] * 2
    assert not (folder / "3").exists(), "its potentials are not of this committee"
    assert (folder / "7").is_dir(), "the user's own"
    assert not [path.name for path in folder.iterdir() if "edited" in path.name]
    folder = tmp_path / "runs" / "other" / "committee"
    committee_of(tmp_path, 3, "first").publish(folder)
    (folder / "3" / "mine.txt").write_text("mine")
    committee_of(tmp_path, 2, "second").publish(folder)
    assert {path.name for path in (folder / "3").iterdir()} == {"mine.txt"}
