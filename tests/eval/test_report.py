"""Scores beside the paper's rows: the right number in the right place, and nothing left unsaid."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image
from stand_ins import scored

from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS
from fusionvl.eval.plots import radar
from fusionvl.eval.report import make_report
from fusionvl.eval.score_store import write_scores
from fusionvl.run_folder import claim
from fusionvl.text_table import FORMATS, Table


def benchmark(folder, task, title, **metrics):
    """A folder of scores as lmms-eval's are kept: metrics that are not means of questions' scores."""
    claim(folder, {"task": task, "lmms_eval": "0.7.3", "weights": "w"}, told={"model": "fake"}, is_begun=False)
    values = {name.replace("_", "-"): (value, []) for name, value in metrics.items()}
    write_scores(folder, [], values, task=task, title=title)


def cells(report, label):
    table = report.table()
    (row,) = [row for row in table.rows if row[0] == label]
    return dict(zip(table.header, row, strict=True))


def test_the_papers_table_is_whole():
    assert len(COLUMNS) == 23
    assert len(PAPER_ROWS) == 9
    assert PAPER_ROWS["FUSION 3B"]["MMB-EN"] == 79.5
    assert PAPER_ROWS["FUSION-X 8B"]["MME-P"] == 1607.5
    assert PAPER_ROWS["FUSION-L 8B"]["DocVQA"] == 66.0
    assert PAPER_ROWS["LLaVA-OneVision 8B"]["CV-B"] is None
    for _, column in COLUMNS:
        values = [row[column.column] for row in PAPER_ROWS.values() if row[column.column] is not None]
        assert values
        assert all(column.best / 5 < value <= column.best for value in values), column


def test_both_kinds_of_scores_stand_beside_the_papers(tmp_path):
    benchmark(tmp_path / "a" / "mme", "mme", "MME", MME_P=1500.0, MME_C=400.0)
    benchmark(tmp_path / "a" / "pope", "pope", "POPE", POPE=50.0)
    scored(tmp_path / "a" / "even")
    report = make_report([tmp_path / "a"])
    assert [line.label for line in report.lines] == ["POPE", "MME, perception", "MME, cognition", "Even numbers"]
    assert (cells(report, "POPE")["fake"], cells(report, "MME, cognition")["fake"]) == ("50.0", "400.0")
    assert (cells(report, "POPE")["FUSION 3B"], cells(report, "POPE")["FUSION-X 8B"]) == ("88.9", "88.8")
    assert cells(report, "MME, cognition")["Cambrian-1 8B"] == "-"
    own = cells(report, "Even numbers")
    assert (own["fake"], own["FUSION 3B"]) == ("50.0", "-"), "all images alike: no interval"
    assert report.notes == []


def test_an_interval_stands_beside_its_score(tmp_path):
    scored(tmp_path, answer=lambda question: question.reference if question.id < "5" else "yes")
    assert re.fullmatch(r"75\.0 \[\d+\.\d, \d+\.\d\]", cells(make_report([tmp_path]), "Even numbers")["fake"])


def test_models_of_one_name_are_told_apart_by_how_they_were_asked(tmp_path):
    scored(tmp_path / "a", weights="w1")
    scored(tmp_path / "b", weights="w2", answer=lambda question: question.reference)
    row = cells(make_report([tmp_path / "a", tmp_path / "b"]), "Even numbers")
    assert (row["fake, weights w1"], row["fake, weights w2"]) == ("50.0", "100.0")


def test_a_model_scored_twice_is_refused(tmp_path):
    scored(tmp_path / "a")
    scored(tmp_path / "b")
    with pytest.raises(ValueError, match="fake was scored on even twice"):
        make_report([tmp_path])
    assert len(make_report([tmp_path / "a", tmp_path / "a"]).lines) == 1


def test_what_is_not_the_whole_benchmark_is_said(tmp_path):
    scored(tmp_path / "even", limit=10, answer=lambda question: "" if question.id == "0-0" else "perhaps")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"settings": {"task": "pope"}}')
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "run.json").write_text('{"settings": {"recipe": "nano"}}')
    report = make_report([tmp_path])
    assert cells(report, "Even numbers")["fake"] == "0.0 *"
    assert report.notes == [
        "* Even numbers, fake: 10 of 40 questions; 10 answers not understood, scored 0; 1 answers without a word",
        f"Not finished, and not in the table: {tmp_path / 'other'}",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "There is no folder"),
        ({}, "holds no finished scores"),
        ({"run.json": '{"settings": {"task": "pope"}}'}, "holds no finished scores of `fusionvl eval`; 1 are not"),
        ({"run.json": "{", "results.json": "{}"}, "run.json is not JSON"),
        ({"run.json": "[]", "results.json": "{}"}, "holds no settings"),
        ({"run.json": '{"settings": {"task": "x"}}', "results.json": "{}"}, "not what this version"),
        (
            {"run.json": '{"settings": {"task": "x"}}', "results.json": '{"intervals": {}, "x": 1}'},
            "not what this version writes",
        ),
    ],
)
def test_broken_folders_are_told(tmp_path, content, told):
    folder = tmp_path / "scores"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(ValueError, match=told):
        make_report([folder])


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts, self.in_cell = [], False

    def handle_starttag(self, tag, attrs):
        self.in_cell = tag in ("td", "th")
        if self.in_cell:
            self.texts.append("")

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.texts[-1] += data


class TestTables:
    TABLE = Table("Title <1>", ["name", "a|b"], [["x & y", "1.0"], ["z", "-"]], ["A note"])

    def test_terminal(self):
        assert self.TABLE.render("terminal") == (
            "Title <1>\n\nname   a|b\n----------\nx & y  1.0\nz        -\n\nA note\n"
        )

    def test_markdown(self):
        assert self.TABLE.render("markdown") == (
            "**Title <1>**\n\n| name  | a\\|b |\n| ----- | ---: |\n| x & y |  1.0 |\n| z     |    - |\n\n* A note\n"
        )

    def test_html(self):
        page = self.TABLE.render("html")
        parser = Cells()
        parser.feed(page)
        assert parser.texts == ["name", "a|b", "x & y", "1.0", "z", "-"]
        assert "Title &lt;1&gt;" in page
        assert "<p>A note</p>" in page

    @pytest.mark.parametrize("form", FORMATS)
    def test_without_notes(self, form):
        assert self.TABLE.render(form).count("A note") == 1
        assert "note" not in replace(self.TABLE, notes=()).render(form)


def test_radar_axes_begin_at_nothing_and_end_at_the_best_possible(tmp_path, monkeypatch):
    from fusionvl.eval import plots

    benchmark(tmp_path / "mme", "mme", "MME", MME_P=1000.0, MME_C=400.0)
    with pytest.raises(ValueError, match="at least 3 benchmarks, there are 2"):
        radar(make_report([tmp_path]), tmp_path / "radar.png")
    benchmark(tmp_path / "pope", "pope", "POPE", POPE=60.0)
    scored(tmp_path / "even")
    report = make_report([tmp_path])
    radar(report, tmp_path / "plots" / "radar.png")
    with Image.open(tmp_path / "plots" / "radar.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**20)) > 10
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    radar(report, tmp_path / "radar.png")
    axes = figures[0].axes[0]
    assert axes.get_ylim() == (0, 100)
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert lines["fake"].tolist() == pytest.approx([60, 50, 50, 50, 60])
    shown = lines["FUSION 3B, paper"].tolist()
    assert shown[:3] == pytest.approx([88.9, 1595.9 / 20, 416.5 / 8])
    assert math.isnan(shown[3]), "the paper has no even numbers"


def test_results_of_an_older_version_are_told(tmp_path):
    scored(tmp_path)
    path = tmp_path / "results.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: values[name] for name in values if name != "counts"}))
    with pytest.raises(ValueError, match="start the same command again"):
        make_report([tmp_path])
