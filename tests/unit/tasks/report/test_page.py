"""The page stands alone, escapes what it is given, and shows the figures that decide, attempts and rounds too."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from containers.labels.pool_labels import REJECTIONS
from containers.tensorpot.student.baseline import PairTerm
from tasks.report import data
from tasks.report.markup import Code, Picture, Section, Table, duration, markdown_table, number, to_html, to_markdown
from tasks.report.page import artifacts, fitting, page
from tasks.report.summary import (
    AttemptSummary,
    Extensions,
    LabelCounts,
    Labelling,
    Round,
    RunSummary,
    SelectionCounts,
    Size,
)
from tasks.report.training import attempts, extensions, plan_text

VOID = {"meta", "img"}
EVIL = "<script>alert('x')</script>"
PICTURES = {name: b"PNG of " + name.encode() for name in
            ("forces", "learning-curve", "parity-teacher", "parity-dft", "core-repulsion")}  # fmt: skip


class Outline(HTMLParser):
    """Tags in order, whether they nest, the text, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("compared", [30, 0])
def test_dft_structures_that_no_check_saw_are_named_with_the_first(finished: RunSummary, compared: int) -> None:
    first = "dft.xyz, frame 9 (from 0): <far>"
    seen = {"dft_compared": compared, "dft_not_compared": 3, "dft_not_compared_first": first}
    baseline = finished.steps["baseline"]
    steps = {"baseline": baseline.model_copy(update={"metrics": baseline.metrics | seen})}
    text = Outline(page(finished.model_copy(update={"steps": finished.steps | steps}), PICTURES)).text
    assert "DFT structures whose units nothing checked, because the teacher has no label of them" in text
    assert f"3; the first: {first}" in text
    assert "whose units nothing checked" not in Outline(page(finished, PICTURES)).text


def test_frames_whose_scf_did_not_converge_are_counted_with_the_first(finished: RunSummary) -> None:
    first = "OUTCAR: frame 9 (from 0): the SCF did not converge (60 electronic steps, as many as NELM (60) allows)"
    baseline = finished.steps["baseline"]
    ingested = baseline.model_copy(update={"metrics": {"unconverged": 2, "unconverged_first": first}})
    compared = baseline.model_copy(update={"metrics": baseline.metrics | {"dft_compared": 30}})
    steps = finished.steps | {"ingest DFT data": ingested, "baseline": compared}
    text = Outline(page(finished.model_copy(update={"steps": steps}), PICTURES)).text
    assert f"because their SCF did not converge (ingest DFT data) 2; the first: {first}" in text
    assert "SCF did not converge" not in Outline(page(finished, PICTURES)).text


def test_the_page_is_well_formed_stands_alone_and_shows_the_figures_of_the_run(finished: RunSummary) -> None:
    html = page(finished, PICTURES)
    outline = Outline(html)
    text = outline.text
    assert outline.tags.count("script") == 1, "it sorts tables"
    assert "link" not in outline.tags
    assert len(outline.links) == len(PICTURES)
    assert all(link.startswith("data:image/png;base64,") for link in outline.links)
    assert "http" not in html
    assert "1 train 1 maxiter 40, start fresh, batch_size 100 (first) iterations_used_up" in text
    assert "2 train 2 start fresh → continue (used up) converged" in text
    assert "pair_coeff * * potential.yace Si" in text
    assert "Si -0.8125" in text
    assert "labels reused 102" in text
    for shown in (text, artifacts(finished, PICTURES)["labels"].replace(" | ", " ").replace("\\", "")):
        assert "structures with too large a force (labels.max_force_eV_per_A) 2" in shown
        assert "structures with atoms too close (labels.min_distance_A) 1" in shown
        assert "atoms labelled per second 3400" in shown
        assert "time of the labelling: model 9.3 s" in shown
    assert "share of atoms that extrapolate (γ above 1) 5.00 % 5.00 %" in text
    assert "teacher against DFT training data: force MAE (meV/Å)" in html
    assert "48.5" in html
    assert "Si 0.25" in html, "the constant that was taken from the DFT energies"
    assert "teacher against DFT test data" not in html, "there is none"
    assert html.count(">after the selection</td>") == 2
    assert "before: with DFT" not in html
    assert "3.25" in html


def test_the_headline_holds_verdict_figures_and_limits(finished: RunSummary) -> None:
    text = Outline(page(finished, {})).text
    assert re.search(
        r"Converged .* force MAE \(meV/Å\) 45.3 at most 120: met energy MAE \(meV/atom\) 6.1 at most 20: met", text
    )
    worse = finished.model_copy(update={"converged": False, "not_converged_because": "the force MAE is 130"})
    assert "Finished, not converged the force MAE is 130" in Outline(page(worse, {})).text
    evaluation = json.loads(finished.files["evaluation"].read_text())
    evaluation["teacher"] |= {"force_mae_meV_per_A": 120.1, "energy_mae_meV_per_atom": None}
    finished.files["evaluation"].write_text(json.dumps(evaluation))
    again = RunSummary.model_validate(finished.model_dump())
    text = Outline(page(again, {})).text
    assert "120.1 at most 120: not met" in text
    assert "– at most 20: not known" in text


def test_a_run_that_reused_every_label_or_has_no_dft_data_or_core_repulsion_says_so(finished: RunSummary) -> None:
    reused = finished.model_copy(
        update={"labels": LabelCounts(computed=0, reused=302, rejected=0), "labelling": Labelling()}
    )
    text = Outline(page(reused, {})).text
    assert "per second" not in text
    assert "Why structures were rejected" not in text
    evaluation = json.loads(finished.files["evaluation"].read_text())
    finished.files["evaluation"].write_text(json.dumps({**evaluation, "dft": None}))
    finished.files["core_repulsion"].write_text('{"pairs": {}}')
    text = Outline(page(finished, {})).text
    assert "No DFT test file was given." in text
    assert "None: the config sets no reference potential." in text


def test_every_kind_of_rejection_has_words(finished: RunSummary) -> None:
    counts = dict.fromkeys(REJECTIONS, 1) | {"energy": 7}
    labels = finished.labels.model_copy(update={"rejected_by": counts})
    rows = data.labels(finished.model_copy(update={"labels": labels})).parts[-1].rows
    assert rows[0] == ("structures with too large an energy (labels.max_energy_eV_per_atom)", "7")
    assert len(rows) == len(REJECTIONS)


@pytest.mark.parametrize(
    ("source", "median", "told"),
    [
        ("teacher", -4.5, "probably energies of isolated atoms"),
        ("teacher", -0.03, "probably averages over the data"),
        ("given", 0.2, "probably averages over the data"),
        ("least_squares", -4.5, "averages over the data"),
        ("isolated_atoms", -0.03, "energies of isolated atoms"),
    ],
)
def test_the_page_says_what_the_reference_energies_are(
    finished: RunSummary, source: str, median: float, told: str
) -> None:
    frames = finished.steps["frames"]
    metrics = {**frames.metrics, "energy_less_e0s_eV_per_atom": {"all": median, "Si": median}}
    steps = {**finished.steps, "frames": frames.model_copy(update={"metrics": metrics})}
    baseline = finished.baseline.model_copy(update={"e0s_from": source})
    text = Outline(page(finished.model_copy(update={"steps": steps, "baseline": baseline}), {})).text
    assert f"The E0s are {told}" in text
    assert f"{median:.4g} eV/atom relative to the E0s" in text
    assert ("do not read cohesive" in text) == ("averages" in told)


def test_scarce_elements_and_pair_terms_are_noted(finished: RunSummary) -> None:
    assert "too few environments" not in page(finished, {})
    scarce = SelectionCounts(pool=9, candidates=9, set_aside=0, selected=9, scarce_elements=("Ni", "Re"))
    assert (
        "the selection took all that the budget allows Ni, Re"
        in Outline(page(finished.model_copy(update={"selection": scarce}), {})).text
    )
    assert "minus these pair potentials" not in page(finished, {})
    term = PairTerm(form="lj", epsilon_eV=0.5, sigma_A=2.125, inner_A=4.0, outer_A=5.0)
    baseline = finished.baseline.model_copy(update={"pairs": {"Si-Si": term}})
    html = page(finished.model_copy(update={"baseline": baseline}), {})
    assert "minus these pair potentials" in html
    assert "2.125" in html
    assert "hybrid/overlay" in html


def test_text_of_the_user_cannot_become_markup(finished: RunSummary) -> None:
    attempt = finished.attempts[0].model_copy(update={"message": EVIL, "name": EVIL})
    update = {
        "name": EVIL.replace("/", ""), "config": {EVIL: EVIL}, "versions": {EVIL: EVIL}, "inputs": {EVIL: EVIL},
        "teacher": {EVIL: [EVIL]}, "attempts": (attempt, attempt), "converged": False, "not_converged_because": EVIL,
        "steps": {EVIL: finished.steps["ingest"], "frames": finished.steps["frames"]},
    }  # fmt: skip
    evil = finished.model_copy(update=update)
    assert Outline(page(evil, PICTURES)).tags.count("script") == 1, "ours"
    assert "<script>alert" not in page(evil, PICTURES)
    assert all("<script" not in text for text in artifacts(evil, PICTURES).values())


def test_artifacts_are_tables_and_data_uris_below_their_bound(finished: RunSummary) -> None:
    texts = artifacts(finished, PICTURES)
    assert set(texts) == {"card", "labels", "attempts", "learning-curve", "parity", "properties", "trajectory"}
    assert "| train 2 |" in texts["attempts"]
    uris = re.findall(r"!\[([^]]+)\]\(data:image/png;base64,([\w+/=]+)\)", "".join(texts.values()))
    assert {base64.b64decode(data) for _, data in uris} == set(PICTURES.values()) - {PICTURES["core-repulsion"]}
    assert "Atoms by the force on them" in {text for text, _ in uris}, "what it shows, for who does not see it"


def test_pictures_beyond_the_bound_are_named_and_left_out() -> None:
    sections = [
        Section("A", [Picture("one", "First"), Picture("none", "Never drawn")]),
        Section("B", [Picture("two", "Second")]),
    ]
    pictures = {"one": b"1" * 600, "two": b"2" * 600}
    assert fitting(sections, pictures, 2000) == (pictures, Section("Other pictures", []))
    kept, note = fitting(sections, pictures, 1000)
    assert list(kept) == ["one"]
    assert note.parts == ["Left out here, because the page would be too large: Second."]


def test_the_expected_error_against_dft_stands_beside_the_measured_one(finished: RunSummary) -> None:
    baseline = finished.steps["baseline"]
    metrics = baseline.metrics | {"teacher_test_force_mae_meV_per_A": 40.0}
    steps = finished.steps | {"baseline": baseline.model_copy(update={"metrics": metrics})}
    text = Outline(page(finished.model_copy(update={"steps": steps}), {})).text
    assert "against DFT expected against DFT" in text
    assert "force MAE (meV/Å) 45.3 57.7 60.43" in text  # 45.3² + 40² = 60.43²
    assert "expected against DFT" not in Outline(page(finished, {})).text


def test_a_cell_of_markdown_keeps_to_its_cell() -> None:
    assert markdown_table(("a", "b"), [("x|y", "two\nlines *and* <b>")]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        r"| x\|y | two lines \*and\* &lt;b&gt; |",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.42, "0.42 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ({"Si": 1, "O": None}, "Si 1"),
        (["a", {"Default": {"Si": -1.5}}], "a, Default (Si -1.5)"),
        (1e-8, "1e-08"),
        (45.34, "45.34"),
        (83974, "83,974"),
        (True, "True"),
        (2e6, "2,000,000"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_a_section_is_described_once_for_html_and_markdown() -> None:
    parts = ["Run `lmp <in>` *now*.", Table(("a", "b"), [("<1>", "no")], "Caption:"), Table(("c",), [], "Never shown."),
             Picture("p", "seen"), Picture("absent", "not drawn"), Code("x < *y*\n\nz", "Lines")]  # fmt: skip
    sections = [Section("Title <b>", parts), Section("Empty", [Table(("c",), [], "Never.")])]
    html = to_html("T & U", sections, {"p": b"png"})
    assert "<p>Run <code>lmp &lt;in&gt;</code> *now*.</p>" in html
    assert '<td class="short">&lt;1&gt;</td><td class="no">no</td>' in html
    assert "<summary>Lines</summary><pre>x &lt; *y*\n\nz</pre>" in html
    assert to_markdown("T & U", sections, {"p": b"png"}) == (
        "## T &amp; U\n\n### Title &lt;b&gt;\n\nRun `lmp &lt;in&gt;` \\*now\\*.\n\nCaption:\n\n"
        "| a | b |\n| --- | --- |\n| &lt;1&gt; | no |\n\n![seen](data:image/png;base64,cG5n)\n\n"
        "Lines\n\n    x &lt; *y*\n\n    z\n"
    )
    assert not re.search("Never|Empty|absent", html + to_markdown("T", sections, {"p": b"png"}))


# ---- attempts


def tables(run: RunSummary) -> list[list[dict[str, str]]]:
    """Rows of attempts, and rows of errors, by the names of their columns."""
    return [[dict(zip(part.head, row, strict=True)) for row in part.rows] for part in attempts(run).parts[1:]]


def test_a_plan_ends_with_its_reason_and_a_later_one_tells_only_what_changed() -> None:
    assert plan_text({"reason": "stalled", "maxiter": 5, "ladder_step": None}) == "maxiter 5 (stalled)"
    before = {"stage": 1, "batch_size": 100, "ladder_step": 50, "l1": 1e-8, "tried": [], "reason": "the first attempt"}
    after = {**before, "batch_size": 50, "ladder_step": None, "tried": ["batch"], "reason": "out of memory"}
    assert plan_text(after, before) == "batch_size 100 → 50, ladder_step 50 → – (out of memory)"
    assert plan_text({**before, "reason": "it was killed"}, before) == "as before (it was killed)"
    stop = {"min_relative_train_loss_change": 1e-4, "patience": None}
    assert plan_text({"early_stop": stop}) == "early_stop min_relative_train_loss_change 0.0001"


def test_each_attempt_says_how_it_ended(finished: RunSummary) -> None:
    first, second = tables(finished)[0]
    assert (first["stage"], first["attempt"], first["chosen"]) == ("1", "train 1", "")
    assert (first["stopped because"], first["iterations"], first["best at"]) == (
        "its 40 iterations are used up",
        "40",
        "30",
    )
    assert (second["stage"], second["iterations"], second["chosen"]) == ("2", "40, resumed at 12", "yes")
    assert second["plan"] == "start fresh → continue (used up)"
    rows = tables(finished)[1]
    assert [(row["attempt"], row["potential"]) for row in rows[:3]] == [
        ("train 1", "best, training"),
        ("train 1", "best, validation"),
        ("train 1", "last, validation"),
    ]
    assert [row["force MAE (meV/Å)"] for row in rows[:3]] == ["44", "44", "46.5"]
    assert len(rows) == 6
    failed = AttemptSummary(name="train 1", plan={}, verdict="bad_data", seconds=1.0, message="row 3 of it is wrong")
    run = finished.model_copy(update={"attempts": (failed, finished.attempts[1])})
    row = tables(run)[0][0]
    assert row["verdict"] == "bad_data: row 3 of it is wrong"
    assert (row["stopped because"], row["iterations"], row["best at"]) == ("–", "–", "–")
    assert {row["attempt"] for row in tables(run)[1]} == {"train 2"}


# ---- rounds of extension


BEFORE = Size(structures=12, functions=30, validation={"force_mae_meV_per_A": 69.0, "energy_mae_meV_per_atom": 20.5})


def extension_rows(finished: RunSummary, *rounds: Round) -> list[tuple[str, ...]]:
    made = Extensions(rounds=rounds, why="rounds", stopped_because="all are made")
    table = extensions(finished.model_copy(update={"extensions": made})).parts[-1]
    assert {len(row) for row in table.rows} == {len(table.head)}
    return list(table.rows)


def extended(**changes: Any) -> Round:
    given = {"number": 1, "kind": "functions", "reason": "the basis is the limit", "before": BEFORE, "helped": True}
    after = BEFORE.model_copy(update={"functions": 45})
    return Round.model_validate({**given, "after": after, **changes})


def test_a_round_tells_what_changed_and_what_did_not(finished: RunSummary) -> None:
    (row,) = extension_rows(finished, extended())
    assert row == (
        "1",
        "more functions: the basis is the limit",
        "12",
        "30 → 45",
        "69, 20.5 → 69, 20.5",
        "–, – → –, –",
        "yes",
    )
    before, after = (BEFORE.model_copy(update={"properties": {"elastic": over, "surface": 0.5}}) for over in (2.4, 0.9))
    made = extended(kind="properties", before=before, after=after, added_by={"elastic": 34})
    (row,) = extension_rows(finished, made)
    assert row[1] == "structures for properties (34 for elastic): the basis is the limit"
    assert row[-2:] == ("elastic 2.4, surface 0.5 → elastic 0.9, surface 0.5", "yes")
    (row,) = extension_rows(finished, extended(after=None, helped=False, failure="pace_train: out of memory"))
    assert row[-1] == "failed: pace_train: out of memory"
    assert row[3] == "30"
    after = BEFORE.model_copy(update={"validation": {"force_mae_meV_per_A": None}})
    assert extension_rows(finished, extended(after=after))[0][4] == "69, 20.5 → –, –"
    none = Extensions(why="reached", stopped_because="validation and test errors are within the limits")
    assert none.sentence() == "Nothing was extended: validation and test errors are within the limits."
    two = Extensions(
        rounds=(extended(), extended(helped=False)), why="rounds", stopped_because="extend.rounds (2) are used up"
    )
    assert two.sentence() == "2 rounds of extension; 1 helped. No further round: extend.rounds (2) are used up."
