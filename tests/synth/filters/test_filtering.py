"""Scoring whole runs: kept columns, journals of costly filters, outputs for the trainer, the datasheet, commands."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow.parquet
import pytest
from PIL import Image

from fusionvl.cli import main
from fusionvl.data.mixture import open_mixture
from fusionvl.synth.corruptions import named_corruptions
from fusionvl.synth.datasheet import write_datasheet
from fusionvl.synth.filter_quality import UNTOUCHED, as_table, measure_filters, spoil_rows
from fusionvl.synth.filtering import filter_run, score_rows, sound_rows
from fusionvl.synth.filters.asking import ModelError
from fusionvl.synth.filters.registry import NEEDS_NO_MODEL, Models
from fusionvl.synth.outputs import export_rows
from fusionvl.synth.row_files import shard_path
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scores import ScoreJournal, read_scores


class Knowing:
    """A text model that has read the rows: it gives their answers. Fails on the requests it is told to."""

    def __init__(self, rows, fails=()):
        self.rows, self.fails, self.asked = rows, fails, 0

    async def complete(self, messages):
        self.asked += 1
        if self.asked in self.fails:
            raise ModelError("lost")
        text = messages[-1]["content"]
        turns = [turn for row in self.rows if row.description in text for turn in row.turns]
        return next((turn.correct for turn in turns if turn.question in text), "no idea")


def test_scores_of_a_run_and_one_filter_again(runs):
    folder = runs.write(runs.rows(12))
    table = filter_run(folder, NEEDS_NO_MODEL, Models())
    assert table.ids == [row.id for row in sound_rows(folder)]
    again = read_scores(folder)
    assert (again.columns, again.filters, again.digest) == (table.columns, table.filters, table.digest)
    first = sound_rows(folder)[0]
    (folder / first.image).unlink()
    later = filter_run(folder, ["images"], Models())
    assert list(later.filters) == list(NEEDS_NO_MODEL), "what did not run again is kept"
    assert later.columns["image_decodes"][0] == 0
    assert later.columns["text_group"] == table.columns["text_group"]
    assert later.digest != table.digest


def test_only_sound_rows_are_scored(runs):
    rows = runs.rows(4)
    folder = runs.write([rows[0].rejected("no JSON"), *rows[1:]])
    assert filter_run(folder, ["rules"], Models()).ids == [row.id for row in rows[1:]]
    with pytest.raises(ValueError, match="none of its 1 finished rows"):
        sound_rows(type(runs)(runs.folder / "other").write([rows[0].failed("x")], shards=1))


def test_costly_filter_goes_on_where_it_was_and_asks_again_what_failed(runs):
    rows = runs.rows(6)
    folder = runs.write(rows)
    model = Knowing(rows, fails={1})
    first = filter_run(folder, ["closed-book"], Models(text=model, text_name="a", votes=1))
    assert model.asked == 12
    assert sum(first.columns["closed_book_errors"]) == 1
    model = Knowing(rows)
    second = filter_run(folder, ["closed-book"], Models(text=model, text_name="a", votes=1))
    assert model.asked in (1, 3), "one row, with one turn or three"
    assert second.columns["closed_book_worst"] == [1] * 6
    model = Knowing(rows)
    filter_run(folder, ["closed-book"], Models(text=model, text_name="b", votes=1))
    assert model.asked == 12, "another model, other scores"


def test_journal_with_a_torn_line_loses_that_line_only(tmp_path):
    journal = ScoreJournal(tmp_path, "judge", {"model": "m"})
    journal.add(["a", "b"], [{"x": 1, "x_errors": 0}, {"x": None, "x_errors": 0}])
    with journal.path.open("ab") as file:
        file.write(b'{"id": "c", "x"')
    again = ScoreJournal(tmp_path, "judge", {"model": "m"})
    assert again.known("b") == {"x": None, "x_errors": 0}
    assert again.known("c") is None
    again.add(["c"], [{"x": 3, "x_errors": 0}])
    assert ScoreJournal(tmp_path, "judge", {"model": "m"}).known("c") == {"x": 3, "x_errors": 0}
    assert ScoreJournal(tmp_path, "judge", {"model": "n"}).known("a") is None


def test_scores_of_other_rows_are_refused(runs, capsys):
    rows = runs.rows(6)
    folder = runs.write(rows[:4])
    filter_run(folder, ["rules"], Models())
    runs.write(rows)
    for action in ("select", "export"):
        assert main(["synth", action, str(folder)]) == 2
        assert "4 rows are scored, 6 are in the run" in capsys.readouterr().err


def test_new_rows_are_scored_by_every_filter_that_scored_the_others(runs):
    """As after --retry-errors: the third row came out well the second time."""
    rows = runs.rows(4)
    folder = runs.write([*rows[:2], rows[2].failed("no answer"), rows[3]])
    doubting = Models(text=Knowing([]), text_name="a", votes=1)
    before = filter_run(folder, ["rules", "closed-book"], doubting)
    assert before.columns["closed_book_worst"] == [0, 0, 0]
    runs.write(rows)
    for names in (["rules"], ["closed-book"]):
        idle = {"rules": "closed-book", "closed-book": "rules"}[names[0]]
        with pytest.raises(ValueError, match=f"1 rows are new since {idle} scored.*--filters rules closed-book"):
            filter_run(folder, names, doubting)
    assert read_scores(folder).digest == before.digest, "nothing is lost"
    after = filter_run(folder, ["rules", "closed-book"], doubting)
    assert after.columns["closed_book_worst"] == [0, 0, 0, 0]
    assert doubting.text.asked == sum(len(row.turns) for row in rows), "no row is asked about twice"


def test_scores_stay_with_their_rows_when_others_go(runs):
    rows = runs.rows(4)
    folder = runs.write(rows)
    half = Models(text=Knowing(rows[2:]), text_name="a", votes=1)
    assert filter_run(folder, ["closed-book"], half).columns["closed_book_worst"] == [0, 0, 1, 1]
    runs.write([rows[3], rows[1], rows[2].rejected("no good")])
    table = filter_run(folder, ["rules"], Models())
    assert table.ids == [rows[3].id, rows[1].id]
    assert table.columns["closed_book_worst"] == [1, 0]


@pytest.mark.parametrize(
    ("suffix", "told"), [(".parquet", "12 of 24 rows; 1 shards"), (".jsonl", "24 of 24 rows; 1 shards")]
)
def test_a_run_that_is_not_finished_is_told(runs, capsys, suffix, told):
    """Its second shard is not there yet; or it is open again, for its errors."""
    told += " unfinished"
    folder = runs.write(runs.rows(24))
    if suffix == ".jsonl":
        shard_path(folder, 1, suffix).touch()
    else:
        shard_path(folder, 1).unlink()
    for action in (["filter"], ["select", "--cap", "letters=off"]):
        assert main(["synth", *action, str(folder)]) == 0
        assert f"{folder} holds {told}" in capsys.readouterr().err
    assert main(["synth", "export", str(folder)]) == 2
    assert f"{told}; finish it" in capsys.readouterr().err
    assert main(["synth", "export", str(folder), "--unfinished"]) == 0
    provenance = json.loads((folder / "export-llava" / "provenance.json").read_text())
    assert provenance["unfinished"] == told
    assert f"The run is not finished: {told}." in write_datasheet(folder, folder / "sheet")


def test_a_whole_run_is_not_called_unfinished(runs, capsys):
    folder = runs.write(runs.rows(8))
    assert main(["synth", "filter", str(folder)]) == 0
    assert "holds" not in capsys.readouterr().err
    assert "not finished" not in write_datasheet(folder, folder / "sheet")


def test_unknown_filter_or_missing_model(runs):
    folder = runs.write(runs.rows(2))
    with pytest.raises(ValueError, match="no filter 'rulez', only rules, images"):
        filter_run(folder, ["rulez"], Models())
    with pytest.raises(ValueError, match="'judge' needs a model that sees"):
        filter_run(folder, ["judge"], Models())


@pytest.mark.parametrize("form", ["llava", "parquet", "tar"])
def test_the_trainer_reads_what_is_written(runs, form):
    rows = runs.rows(10)
    rows[1] = replace(rows[1], turns=(SynthTurn("Which?", "B", ("x", "y"), "B"),))
    rows[2] = replace(rows[2], image=None)
    output = runs.folder / "out"
    mixture = export_rows(rows, runs.folder, output, form, {"from": "test"}, shard=4)
    shutil.rmtree(runs.folder / "images")
    samples = {}
    opened = open_mixture(mixture, seed=0, index_folder=runs.folder / "index")
    for position in range(len(opened)):
        sample = opened.read(opened.order.at(position))
        samples[sample.id] = sample
    assert samples.keys() == {row.id for row in rows}
    for row in rows:
        sample = samples[row.id]
        assert [turn.answer for turn in sample.turns] == [turn.answer for turn in row.turns]
        assert (sample.image is None) == (row.image is None)
    assert samples[rows[1].id].turns[0].question == "Which?\nA. x\nB. y"
    image = samples[rows[0].id].image
    content = image if isinstance(image, bytes) else image.read_bytes()
    assert content.startswith(b"\xff\xd8")
    assert json.loads((output / "provenance.json").read_text()) == {"rows": 10, "format": form, "from": "test"}


def test_parquet_says_what_rows_are(runs):
    rows = runs.rows(4)
    export_rows(rows, runs.folder, runs.folder / "out", "parquet", {})
    table = pyarrow.parquet.read_table(runs.folder / "out" / "part-00000.parquet")
    assert table["kind"].to_pylist() == [row.kind for row in rows]
    assert table["description"].to_pylist() == [row.description for row in rows]


def test_export_is_whole_or_not_there(runs):
    rows = runs.rows(3)
    (runs.folder / rows[2].image).unlink()
    output = runs.folder / "out"
    with pytest.raises(ValueError, match=f"row {rows[2].id}: there is no image"):
        export_rows(rows, runs.folder, output, "tar", {})
    assert not output.exists()
    export_rows(rows[:2], runs.folder, output, "tar", {})
    with pytest.raises(ValueError, match="exists already"):
        export_rows(rows[:2], runs.folder, output, "tar", {})
    with pytest.raises(ValueError, match="no rows to export"):
        export_rows([], runs.folder, runs.folder / "none", "tar", {})


def test_filters_find_what_was_spoiled(runs):
    rows = runs.rows(160)
    target = runs.folder / "spoiled"
    spoiled = spoil_rows(rows, runs.folder, target, each=4, seed=0)
    faults = set(spoiled.fault.values())
    assert {"leaked caption", "wrong count", "swapped colour", "wrong option", "near-duplicate", UNTOUCHED} <= faults
    assert list(spoiled.fault.values()).count(UNTOUCHED) == 80
    assert len({row.id for row in spoiled.rows}) == len(spoiled.rows)
    again = spoil_rows(rows, runs.folder, runs.folder / "again", each=4, seed=0)
    assert again == spoiled, "the seed decides"
    found = {each.name: each for each in measure_filters(spoiled, target, NEEDS_NO_MODEL, Models())}
    for name in ("rules", "images", "duplicates"):
        assert found[name].precision == 1, as_table(spoiled, list(found.values()))
        assert found[name].recall > 0.8, as_table(spoiled, list(found.values()))
    assert found["rules"].found["wrong count"] == 0, "a rule cannot know"
    table = as_table(spoiled, list(found.values())).splitlines()
    assert table[0].split() == ["corruption", "rows", *NEEDS_NO_MODEL]
    assert next(line for line in table if line.startswith("empty answer")).split()[2:] == ["4", "*4", ".", ".", "."]


def test_corruptions_are_named(runs):
    chosen = named_corruptions(["wrong count", "empty answer"])
    spoiled = spoil_rows(runs.rows(40), runs.folder, runs.folder / "spoiled", each=5, seed=0, corruptions=chosen)
    assert Counter(spoiled.fault.values()) == {UNTOUCHED: 20, "wrong count": 5, "empty answer": 5}
    with pytest.raises(ValueError, match="no corruption 'typo', only leaked caption, "):
        named_corruptions(["typo"])


def test_closed_book_finds_wrong_answers(runs):
    rows = runs.rows(80)
    target = runs.folder / "spoiled"
    spoiled = spoil_rows(rows, runs.folder, target, each=3, seed=1)
    truth = Knowing(rows)
    (found,) = measure_filters(spoiled, target, ["closed-book"], Models(text=truth, votes=1))
    assert found.recall == 1
    assert found.found[UNTOUCHED] == 0
    assert found.found["leaked caption"] <= 3


def test_balance_drops_a_favourite_letter_only(runs):
    rows = [row for row in runs.rows(160) if row.kind == "MultiChoice"]
    scored = score_rows(rows, runs.folder, ["balance"], Models())["balance"][1]
    assert set(scored["letters"]) == {"A of 4", "B of 4", "C of 4", "D of 4"}
    spoiled = spoil_rows(rows, runs.folder, runs.folder / "spoiled", each=3, seed=0)
    (found,) = measure_filters(spoiled, runs.folder / "spoiled", ["balance"], Models())
    assert found.found["letter skewed to A"] > 0


def test_the_whole_way_by_commands(runs, capsys):
    rows = runs.rows(24)
    rows[0] = replace(rows[0], turns=(SynthTurn("According to the caption, who is there?", "a dog"),))
    Image.new("RGB", (128, 128)).save(runs.folder / rows[3].image)
    rows[5] = rows[5].rejected("broken JSON twice")
    folder = str(runs.write(rows))
    assert main(["synth", "select", folder]) == 2
    assert "run: fusionvl synth filter" in capsys.readouterr().err
    assert main(["synth", "filter", folder]) == 0
    assert main(["synth", "export", folder]) == 2
    assert "run: fusionvl synth select" in capsys.readouterr().err
    assert main(["synth", "select", folder, "--cap", "letters=off", "--cap", "answers=off"]) == 0
    said = capsys.readouterr().out
    assert "21 of 23 rows kept" in said
    assert "rule_leakage" in said
    for form in ("llava", "parquet", "tar"):
        assert main(["synth", "export", folder, "--format", form]) == 0
        mixture = open_mixture(runs.folder / f"export-{form}" / "mixture.yaml", seed=0)
        assert len(mixture) == 21
    assert main(["synth", "inspect", folder]) == 0
    said = capsys.readouterr().out
    for words in (
        "24 rows, 23 of them sound",
        "The selection keeps 21",
        "broken JSON twice",
        "image_contrast",
        "drawn",
    ):
        assert words in said
    sheet = runs.folder / "datasheet"
    assert "![examples](examples.png)" in (sheet / "datasheet.md").read_text()
    for name in ("kinds", "lengths", "answers", "examples"):
        with Image.open(sheet / f"{name}.png") as image:
            assert min(image.size) > 100
    assert main(["synth", "filter", folder, "--filters", "rules"]) == 0
    assert main(["synth", "measure-filters", folder, "--each", "2", "--filters", "rules", "images"]) == 0
    assert "precision" in capsys.readouterr().out


def test_datasheet_of_a_run_that_nothing_was_asked_about_yet(runs):
    folder = runs.write(runs.rows(2), shards=1)
    text = write_datasheet(folder, folder / "sheet")
    assert "2 rows, 2 of them sound, with 4 questions and 2 images. Nothing is selected yet." in text
    assert "`fusionvl synth filter DIR`" in text
    (folder / "images" / "00000" / f"{runs.rows(1)[0].id}.jpg").unlink()
    write_datasheet(folder, folder / "sheet")


def test_faulty_command_lines(runs, capsys):
    folder = str(runs.write(runs.rows(4)))
    assert main(["synth", "filter", folder]) == 0
    assert main(["synth", "select", folder, "--limit", "wrong=1:"]) == 2
    assert "no filter has given 'wrong'" in capsys.readouterr().err
    assert main(["synth", "filter", folder, "--filters", "judge"]) == 2
    assert "needs a model that sees" in capsys.readouterr().err
    assert main(["synth", "inspect", str(runs.folder / "nowhere")]) == 2
    assert "has no finished shard" in capsys.readouterr().err
