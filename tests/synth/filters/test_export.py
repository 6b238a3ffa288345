"""Data sets for the trainer: every form is read as it was meant, whole or not there, of the rows that were chosen."""

import json
from dataclasses import replace

import pyarrow.parquet
import pytest

from fusionvl.cli import main
from fusionvl.data.mixture import open_mixture
from fusionvl.run_folder import read_record
from fusionvl.synth.export import export_rows, export_selection
from fusionvl.synth.filtering import filter_run
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.selection import asked_rules, select_rows, write_selection
from fusionvl.synth.shard_files import SHARD_FOLDER, shard_path
from fusionvl.synth.shards import Sharing


def choose(folder, *limits):
    """Scores and selects, whatever letters and answers there are."""
    filter_run(folder, ["rules"], sharing=Sharing(shown=False))
    rules = asked_rules(limits, [], [])
    return write_selection(folder, *select_rows(folder, rules), rules)


def samples_of(mixture):
    """Every sample that the trainer would read."""
    opened = open_mixture(mixture, seed=0, index_folder=mixture.parent.parent / "index")
    return [opened.read(opened.order.at(position)) for position in range(len(opened))]


@pytest.mark.parametrize("form", ["llava", "parquet", "tar"])
def test_the_trainer_reads_what_is_written(runs, form):
    rows = runs.rows(10)
    rows[1] = replace(rows[1], turns=(SynthTurn("Which?", "B", ("x", "y"), "B"),))
    rows[2] = replace(rows[2], image=None)
    output = runs.folder / "out"
    mixture = export_rows(rows, runs.folder, output, form, {"from": "test"}, shard=4)
    samples = {sample.id: sample for sample in samples_of(mixture)}
    assert samples.keys() == {row.id for row in rows}
    assert samples[rows[1].id].turns[0].question == "Which?\nA. x\nB. y"
    assert samples[rows[0].id].turns[0].answer == rows[0].turns[0].answer
    assert samples[rows[2].id].image is None
    image = samples[rows[0].id].image
    assert (image if isinstance(image, bytes) else image.read_bytes()) == (runs.folder / rows[0].image).read_bytes()
    assert json.loads((output / "provenance.json").read_text()) == {"from": "test"}


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
    assert not list(runs.folder.glob("out*"))
    export_rows(rows[:2], runs.folder, output, "tar", {})
    with pytest.raises(ValueError, match="exists already"):
        export_rows(rows[:2], runs.folder, output, "tar", {})


def test_what_was_chosen_is_exported_and_nothing_else(runs):
    rows = runs.rows(8)
    rows[2], rows[5] = rows[2].rejected("no JSON"), replace(rows[5], turns=(SynthTurn("Who is there?", "x" * 500),))
    folder = runs.write(rows)
    record = choose(folder, "answer_characters=:400")
    export_selection(folder, folder / "out", "tar")
    assert {path.name for path in (folder / "out").iterdir()} == {
        "mixture.yaml", "part-00000.tar", "provenance.json",
    }  # fmt: skip
    exported = {sample.id for sample in samples_of(folder / "out" / "mixture.yaml")}
    assert exported == {row.id for number, row in enumerate(rows) if number not in (2, 5)}
    provenance = json.loads((folder / "out" / "provenance.json").read_text())
    assert provenance == {
        "rows": 6, "format": "tar", "selection.json": record, "run.json": read_record(folder),
    }  # fmt: skip


def test_a_selection_of_nothing_and_one_of_other_scores_or_rows_are_refused(runs):
    rows = runs.rows(6)
    folder = runs.write(rows)
    choose(folder, "answer_characters=:0")
    with pytest.raises(ValueError, match="no rows to export"):
        export_selection(folder, folder / "out", "tar")
    choose(folder)
    filter_run(folder, ["balance"], sharing=Sharing(shown=False))
    with pytest.raises(ValueError, match=r"selection.json: was made from other scores"):
        export_selection(folder, folder / "out", "tar")
    choose(folder)
    runs.write([*rows[:5], rows[5].failed("gone")])
    with pytest.raises(ValueError, match="rows have changed since they were chosen"):
        export_selection(folder, folder / "out", "tar")


@pytest.mark.parametrize(
    ("suffix", "told"), [(".parquet", "12 of 24 rows; 1 shards"), (".jsonl", "24 of 24 rows; 1 shards")]
)
def test_a_run_that_is_not_finished_is_told(runs, capsys, suffix, told):
    """Its second shard is not there yet; or it is begun again, for its errors."""
    told += " unfinished"
    folder = runs.write(runs.rows(24))
    second = shard_path(folder / SHARD_FOLDER, 1, suffix)
    second.touch() if suffix == ".jsonl" else second.unlink()
    for action in (["filter", "--filters", "rules"], ["select"]):
        assert main(["synth", action[0], str(folder), *action[1:]]) == 0
        assert f"{folder} holds {told}" in capsys.readouterr().err
    assert main(["synth", "export", str(folder)]) == 2
    assert f"{told}; finish it" in capsys.readouterr().err
    assert main(["synth", "export", str(folder), "--unfinished"]) == 0
    provenance = json.loads((folder / "export-llava" / "provenance.json").read_text())
    assert provenance["unfinished"] == told
    assert main(["synth", "inspect", str(folder)]) == 0
    assert f"The run is not finished: {told}." in capsys.readouterr().out
