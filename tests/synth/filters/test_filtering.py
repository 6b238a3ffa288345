"""Scoring a run: what is scored stays, what failed is asked again, other settings are refused, filters do not meet."""

import json
import multiprocessing
from dataclasses import replace

import pytest
from fake_client import FakeClient, knowing

from fusionvl.cli import main
from fusionvl.run_folder import RowFile
from fusionvl.synth.filtering import filter_run
from fusionvl.synth.filters import NEEDS_NO_MODEL
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.scores import filters_of, ok_rows, read_scores, scores_folder
from fusionvl.synth.selection import SelectionRules, select_rows
from fusionvl.synth.shard_files import SHARD_FOLDER, shard_path
from fusionvl.synth.shards import Sharing
from fusionvl.synth.text_client import RequestError

HERE = Sharing(shown=False)
MODELS = FilterModels(text="http://localhost/v1#a", votes=1)


def scores_of(folder, name, column):
    return read_scores(folder, name, ok_rows(folder))[column].to_pylist()


def scored(folder, name, column, **options):
    filter_run(folder, [name], MODELS, replace(HERE, **options))
    return scores_of(folder, name, column)


def test_every_sound_row_has_the_scores_of_every_filter(runs):
    rows = runs.rows(12)
    rows[3] = rows[3].rejected("no JSON")
    folder = runs.write(rows)
    tallies = filter_run(folder, NEEDS_NO_MODEL, sharing=HERE)
    assert {name: tally.rows for name, tally in tallies.items()} == {name: {"ok": 11} for name in NEEDS_NO_MODEL}
    assert ok_rows(folder)["id"].to_pylist() == [row.id for row in rows if row.status == "ok"]
    assert ok_rows(folder)["kind"].to_pylist() == [row.kind for row in rows if row.status == "ok"]
    for name, column in [("rules", "rule_leakage"), ("duplicates", "text_group"), ("balance", "balance_errors")]:
        assert len(scores_of(folder, name, column)) == 11
    assert scores_of(folder, "images", "image_side") == [128] * 11


def test_a_run_without_sound_rows_is_refused(runs):
    with pytest.raises(ValueError, match="none of its finished rows has the status 'ok'"):
        filter_run(runs.write([runs.rows(1)[0].failed("x")], shards=1), ["rules"], sharing=HERE)


def test_what_is_scored_is_not_scored_again(runs, answering):
    rows = runs.rows(6)
    folder = runs.write(rows)
    first = answering(knowing(rows))
    assert scored(folder, "closed-book", "closed_book_worst") == [1] * 6
    assert len(first.requests) == 12
    again = answering(knowing(rows))
    assert scored(folder, "closed-book", "closed_book_worst") == [1] * 6
    assert again.requests == []


def test_a_row_that_failed_is_kept_as_such_and_asked_about_again_when_that_is_wanted(runs, answering):
    rows = runs.rows(6)
    folder = runs.write(rows)
    answering(knowing(rows, fails=(1,)))
    assert scored(folder, "closed-book", "closed_book_errors") == [1, 0, 0, 0, 0, 0]
    assert select_rows(folder, SelectionRules(caps={}))[1].kept.tolist() == [False] + [True] * 5
    model = answering(knowing(rows))
    assert sum(scored(folder, "closed-book", "closed_book_errors")) == 1
    assert model.requests == [], "another run goes on; it does not stumble over the row"
    assert scored(folder, "closed-book", "closed_book_worst", retry_errors=True) == [1] * 6
    assert len(model.requests) == 3, "the three turns of the one row"


def test_a_filter_that_was_stopped_goes_on(runs, answering):
    rows = runs.rows(6)
    folder = runs.write(rows)

    def stopping(text):
        if client.number > 5:
            raise ValueError("401: wrong key")
        return "x"

    client = answering(FakeClient(stopping))
    with pytest.raises(ValueError, match="401: wrong key"):
        filter_run(folder, ["closed-book"], MODELS, HERE, parallel=1)
    model = answering(knowing(rows))
    assert len(scored(folder, "closed-book", "closed_book_worst")) == 6
    assert 0 < len(model.requests) < 12


@pytest.mark.parametrize(("rows", "told"), [(40, "Stopped: .*connection refused"), (4, "could score none of 4 rows")])
def test_a_model_that_answers_nothing_ends_the_command(runs, answering, rows, told):
    folder = runs.write(runs.rows(rows))

    def silent(text):
        raise RequestError("connection refused")

    answering(FakeClient(silent))
    with pytest.raises(ValueError, match=told):
        filter_run(folder, ["closed-book"], MODELS, HERE)


def test_rows_that_fail_for_good_do_not_stand_in_the_way(runs, answering):
    folder = runs.write(runs.rows(2))

    def refusing(text):
        raise RequestError("400: too long")

    answering(FakeClient(refusing))
    with pytest.raises(ValueError, match="could score none of 2 rows"):
        filter_run(folder, ["closed-book"], MODELS, HERE)
    assert filter_run(folder, ["closed-book", "rules"], MODELS, HERE)["rules"].rows == {"ok": 2}
    assert scores_of(folder, "closed-book", "closed_book_errors") == [1, 1]


@pytest.mark.parametrize("parallel", [1, 5])
def test_so_many_requests_are_in_flight(runs, answering, parallel):
    rows = runs.rows(12)
    model = answering(knowing(rows))
    filter_run(runs.write(rows), ["closed-book"], MODELS, HERE, parallel=parallel)
    assert model.most == parallel


def test_scores_of_other_settings_are_refused_or_given_up(runs, answering):
    rows = runs.rows(4)
    folder = runs.write(rows)
    answering(knowing([]))
    assert scored(folder, "closed-book", "closed_book_worst") == [0] * 4
    other = replace(MODELS, text="http://localhost/v1#b")
    with pytest.raises(ValueError, match=r"other settings \(model.model: 'a' there, 'b' here\).*--rescore"):
        filter_run(folder, ["closed-book"], other, HERE)
    answering(knowing(rows))
    assert scores_of(folder, "closed-book", "closed_book_worst") == [0] * 4
    filter_run(folder, ["closed-book"], other, HERE, rescore=True)
    assert scores_of(folder, "closed-book", "closed_book_worst") == [1] * 4


def test_scores_do_not_outlive_an_upgrade_of_what_computed_them(runs, monkeypatch):
    folder = runs.write(runs.rows(2))
    filter_run(folder, ["images"], sharing=HERE)
    record = json.loads((scores_folder(folder, "images") / "run.json").read_text())
    record["settings"]["versions"]["pillow"] = "0.1"
    (scores_folder(folder, "images") / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"versions.pillow: '0.1' there"):
        filter_run(folder, ["images"], sharing=HERE)


def test_new_rows_are_scored_and_the_others_keep_their_scores(runs, answering):
    """As after --retry-errors: the third row came out well the second time, and the last did not."""
    rows = runs.rows(4)
    folder = runs.write([*rows[:2], rows[2].failed("no answer"), rows[3]])
    answering(knowing([]))
    filter_run(folder, ["rules", "closed-book"], MODELS, HERE)
    runs.write([*rows[:3], rows[3].rejected("no good")])
    filter_run(folder, ["rules"], MODELS, HERE)
    with pytest.raises(ValueError, match="3 rows are scored by closed-book, 3 are in the run, and not all"):
        select_rows(folder, SelectionRules())
    model = answering(knowing(rows))
    assert scored(folder, "closed-book", "closed_book_worst") == [0, 0, 1]
    assert len(model.requests) == len(rows[2].turns)
    assert len(select_rows(folder, SelectionRules())[0]) == 3


def test_shares_of_a_run_make_the_whole(runs):
    folder = runs.write(runs.rows(10), shards=5)
    filter_run(folder, ["rules"], sharing=replace(HERE, share=(0, 2)))
    assert sorted(path.name for path in scores_folder(folder, "rules").glob("*.parquet")) == [
        "part-00000.parquet", "part-00002.parquet", "part-00004.parquet",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="6 rows are scored by rules, 10 are in the run"):
        scores_of(folder, "rules", "rule_empty")
    filter_run(folder, ["rules"], sharing=replace(HERE, share=(1, 2)))
    assert len(scores_of(folder, "rules", "rule_empty")) == 10


def run_filter(folder, name):
    filter_run(folder, [name], sharing=HERE)


def test_filters_that_run_at_once_lose_nothing(runs):
    folder = runs.write(runs.rows(60), shards=6)
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=run_filter, args=(folder, name)) for name in NEEDS_NO_MODEL]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        assert process.exitcode == 0
    assert tuple(filters_of(folder)) == NEEDS_NO_MODEL
    assert len(select_rows(folder, SelectionRules())[0]) == 60


def test_a_shard_that_another_process_scores_is_named(runs):
    folder = runs.write(runs.rows(4))
    filter_run(folder, ["rules"], sharing=replace(HERE, share=(0, 2)))
    with (
        RowFile(shard_path(scores_folder(folder, "rules"), 1, ".jsonl")),
        pytest.raises(ValueError, match=r"Another process writes .*part-00001.jsonl"),
    ):
        filter_run(folder, ["rules"], sharing=HERE)


def test_faulty_command_lines(runs, capsys):
    folder = str(runs.write(runs.rows(4)))

    def refused(*command):
        assert main(["synth", *command]) == 2
        return capsys.readouterr().err

    assert "run: fusionvl synth filter" in refused("select", folder)
    assert main(["synth", "filter", folder]) == 0
    assert "needs a model that sees" in refused("filter", folder, "--filters", "judge")
    assert "no filter 'rulez'" in refused("filter", folder, "--filters", "rulez")
    assert "--parallel must be at least 1" in refused("filter", folder, "--parallel", "0")
    assert "no filter has given 'wrong'" in refused("select", folder, "--limit", "wrong=1:")
    assert "has no finished shard" in refused("inspect", str(runs.folder / "nowhere"))
    assert "run: fusionvl synth select" in refused("export", folder)
    (runs.folder / SHARD_FOLDER / "part-00001.parquet").write_bytes(b"broken")
    assert "part-00001.parquet is no finished shard" in refused("select", folder)
