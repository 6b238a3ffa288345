"""A benchmark runs to its end, through kills, errors and other people's folders; every question is asked once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import TASK, FakeAnswerer, lines, questions, run

from fusionvl.eval.ordering import in_batches, share_of
from fusionvl.eval.score_store import read_answers, read_results
from fusionvl.run_folder import CannotWriteError

SCRIPT = Path(__file__).parent / "score_to_kill.py"


def test_every_question_is_asked_once_and_written_down(tmp_path):
    answerer = FakeAnswerer()
    results = run(TASK, answerer, tmp_path, batch_size=6)
    assert sorted(answerer.asked) == sorted(question.id for question in questions())
    samples = list(read_answers(tmp_path / "samples.jsonl").values())
    assert [sample.id for sample in samples] == [question.id for question in questions()]
    assert (samples[1].prompt, samples[1].output, samples[1].score) == (questions()[1].prompt, "yes", 0.0)
    assert (samples[1].reference, samples[1].details["tags"], samples[1].image_id) == ("no", ["a", "b"], "picture 0")
    assert results.metrics == {"accuracy": 50.0, "accuracy/even": 100.0, "accuracy/odd": 0.0}
    assert (results.questions, results.images, results.trouble) == (40, 10, [])
    assert read_results(tmp_path) == results


def test_the_record_says_what_the_scores_were_made_with(tmp_path):
    run(TASK, FakeAnswerer(), tmp_path, batch_size=6)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"] == {"task": "even", "max_new_tokens": 32, "weights": "w"}
    assert (record["model"], record["batch_size"]) == ("fake", 6)
    assert {"torch", "transformers", "fusionvl", "python"} <= record["versions"].keys()
    assert record["begun"].startswith("20")
    assert "commit" in record


def test_finished_scores_are_not_asked_for_again(tmp_path):
    first = run(TASK, FakeAnswerer(), tmp_path)
    again = FakeAnswerer()
    assert run(TASK, again, tmp_path) == first
    assert again.asked == []


def test_an_error_of_the_model_ends_the_run_and_keeps_what_was_answered(tmp_path):
    first = FakeAnswerer(breaks_after=16)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(TASK, first, tmp_path, batch_size=8)
    assert len(lines(tmp_path)) == 16
    assert not (tmp_path / "results.json").exists()
    second = FakeAnswerer()
    assert run(TASK, second, tmp_path, batch_size=5).questions == 40
    assert Counter([*first.asked, *second.asked]) == Counter(question.id for question in questions())


def test_a_question_that_cannot_be_asked_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"even, one of the questions \S+, .*: CUDA out of memory"):
        run(TASK, FakeAnswerer(breaks_after=0, error=ValueError), tmp_path, batch_size=2)


def start(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), *arguments], env=environment)


def asked_in(folder):
    return Counter((folder / "asked.log").read_text().split())


def test_killed_in_the_middle_of_a_line(tmp_path):
    """Nothing whole is asked again, nothing is lost; the batch whose line was torn is the only one repeated."""
    run(replace(TASK, questions=questions(30)), FakeAnswerer(), tmp_path / "whole")
    whole = (tmp_path / "whole" / "samples.jsonl").read_text()
    folder = tmp_path / "killed"
    for _ in range(2):
        assert start(folder, str(random.SystemRandom().randrange(1500, 9000))).wait(60) == -signal.SIGKILL
    assert start(folder).wait(60) == 0
    assert (folder / "samples.jsonl").read_text() == whole
    asked = asked_in(folder)
    assert len(asked) == 120
    assert sum(asked.values()) - 120 <= 2 * 4, "a kill costs at most the batch in flight"
    assert (folder / "results.json").read_text() == (tmp_path / "whole" / "results.json").read_text()


def test_killed_from_outside_at_any_moment(tmp_path):
    process = start(tmp_path)
    samples = tmp_path / "samples.jsonl"
    try:
        while process.poll() is None and not (samples.exists() and samples.stat().st_size > 3000):
            time.sleep(0.005)
        assert process.poll() is None
    finally:
        process.kill()
    assert process.wait(60) == -signal.SIGKILL
    kept = len(lines(tmp_path))
    assert 0 < kept < 120
    assert start(tmp_path).wait(60) == 0
    assert len({json.loads(line)["id"] for line in lines(tmp_path)}) == len(lines(tmp_path)) == 120
    asked = asked_in(tmp_path)
    assert len(asked) == 120
    assert sum(asked.values()) - 120 <= 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": replace(TASK, name="odd")}, "task: 'even' there, 'odd' here"),
        ({"task": replace(TASK, max_new_tokens=5)}, "max_new_tokens: 32 there, 5 here"),
        ({"answerer": FakeAnswerer(weights="others")}, "weights: 'w' there, 'others' here"),
        ({"limit": 20}, "holds 20 answers to questions that are not asked now"),
        ({"task": replace(TASK, questions=[replace(q, prompt="?") for q in questions()])}, "another question"),
    ],
)
def test_a_folder_of_other_scores_is_refused(tmp_path, change, told):
    run(TASK, FakeAnswerer(), tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()
    options = {"task": TASK, "answerer": FakeAnswerer(), **change}
    with pytest.raises(ValueError, match=told) as error:
        run(options.pop("task"), options.pop("answerer"), tmp_path, **options)
    assert "--output" in str(error.value)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"prompt": "?"}, {"reference": "maybe"}, {"details": {"metric": "anls"}}, {"image_id": "another picture"}],
)
def test_questions_that_have_changed_are_refused(tmp_path, change):
    run(TASK, FakeAnswerer(), tmp_path)
    changed = [replace(questions()[0], **change), *questions()[1:]]
    with pytest.raises(ValueError, match="0-0 was another question then"):
        run(replace(TASK, questions=changed), FakeAnswerer(), tmp_path)


def test_a_run_that_ended_before_its_first_sample_leaves_the_folder_to_the_corrected_one(tmp_path):
    with pytest.raises(ValueError, match="one of the questions"):
        run(TASK, FakeAnswerer(breaks_after=0, error=ValueError, weights="mistaken"), tmp_path)
    assert run(TASK, FakeAnswerer(), tmp_path).questions == 40
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["weights"] == "w"


def test_two_that_begin_at_once_do_not_mix(tmp_path):
    """The second changes the record while the first waits for answers: the first finds the folder taken."""

    class Overtaken(FakeAnswerer):
        def answer(self, batch, max_new_tokens):
            if not self.batches:
                assert run(TASK, FakeAnswerer(weights="other"), tmp_path, shard=(1, 2)) is None
            return super().answer(batch, max_new_tokens)

    with pytest.raises(ValueError, match="weights: 'other' there, 'w' here"):
        run(TASK, Overtaken(), tmp_path, shard=(0, 2))
    assert lines(tmp_path, "samples-0-of-2.jsonl") == []


def test_samples_without_a_record_are_refused(tmp_path):
    (tmp_path / "samples.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"holds results and no run\.json"):
        run(TASK, FakeAnswerer(), tmp_path)


def test_a_higher_limit_goes_on(tmp_path):
    first, second = FakeAnswerer(), FakeAnswerer()
    results = run(TASK, first, tmp_path, limit=10)
    assert (results.questions, results.not_asked, results.trouble) == (10, 30, ["10 of 40 questions"])
    assert run(TASK, second, tmp_path).questions == 40
    assert Counter([*first.asked, *second.asked]) == Counter(question.id for question in questions())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{not json}\n", "line 2"),
        (b'{"id": "0-1"}\n', "line 2: .* missing"),
        (None, "line 2: 0-0 was scored before"),
    ],
)
def test_a_broken_samples_file_is_told(tmp_path, line, told):
    run(TASK, FakeAnswerer(), tmp_path, limit=1)
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes() + (line or path.read_bytes()))
    with pytest.raises(ValueError, match=told):
        run(TASK, FakeAnswerer(), tmp_path)


def test_two_processes_do_not_write_one_file(tmp_path):
    class Nested(FakeAnswerer):
        def answer(self, batch, max_new_tokens):
            run(TASK, FakeAnswerer(), tmp_path)

    with pytest.raises(ValueError, match="Another process writes"):
        run(TASK, Nested(), tmp_path)


def test_duplicate_ids_and_no_questions_are_refused():
    with pytest.raises(ValueError, match="made up here: 4 ids stand more than once, the first is '0-0'"):
        replace(TASK, questions=[*questions(2), *questions(1)])
    with pytest.raises(ValueError, match="made up here: there are no questions"):
        replace(TASK, questions=[])


def test_what_cannot_be_scored_is_counted(tmp_path):
    answers = {"0-0": "perhaps", "0-1": "", "0-2": "  "}
    results = run(TASK, FakeAnswerer(answer=lambda q: answers.get(q.id, q.reference)), tmp_path)
    assert results.counts == {"answers not understood, scored 0": 3, "answers without a word": 2}
    assert results.metrics["accuracy"] == pytest.approx(100 * 37 / 40)


def test_shards_are_merged_when_all_are_there(tmp_path):
    whole = run(TASK, FakeAnswerer(), tmp_path / "whole")
    parts = [FakeAnswerer() for _ in range(3)]
    folder = tmp_path / "shards"
    assert run(TASK, parts[0], folder, shard=(0, 3)) is None
    assert run(TASK, parts[2], folder, shard=(2, 3)) is None
    assert not (folder / "samples.jsonl").exists()
    assert run(TASK, parts[1], folder, shard=(1, 3)) == whole
    assert (folder / "samples.jsonl").read_text() == (tmp_path / "whole" / "samples.jsonl").read_text()
    assert sorted(id for part in parts for id in part.asked) == sorted(question.id for question in questions())
    images = [{id.split("-")[0] for id in part.asked} for part in parts]
    assert sum(map(len, images)) == 10


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_is_a_file_or_below_one_is_told(tmp_path, place):
    (tmp_path / "file").write_text("something")
    answerer = FakeAnswerer()
    with pytest.raises(CannotWriteError, match="Choose another place"):
        run(TASK, answerer, tmp_path / place)
    assert answerer.asked == []
    assert (tmp_path / "file").read_text() == "something"


class TestOrder:
    def test_batches_hold_every_question_once(self):
        for count in (1, 7, 33):
            asked = questions(count, 5)
            batches = list(in_batches(asked, 4))
            assert sorted(q.id for batch in batches for q in batch) == sorted(q.id for q in asked)
            assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)

    def test_questions_of_an_image_are_near_each_other_however_they_come(self):
        mixed = questions(200, 6)
        random.Random(0).shuffle(mixed)
        order = [question.image_id for batch in in_batches(mixed, 8) for question in batch]
        places = {image: [place for place, other in enumerate(order) if other == image] for image in set(order)}
        assert max(own[-1] - own[0] for own in places.values()) < 3 * 8 * 8
        # Between its first and last question, an image's features wait in the cache: for few other images.
        open_at = [sum(own[0] <= place <= own[-1] for own in places.values()) for place in range(len(order))]
        assert max(open_at) < 30

    def test_prompts_of_a_batch_are_of_similar_length(self):
        mixed = questions(50, 6)
        random.Random(0).shuffle(mixed)

        def padding(batches):
            return sum(max(len(q.prompt) for q in batch) - len(q.prompt) for batch in batches for q in batch)

        as_given = [mixed[start : start + 8] for start in range(0, len(mixed), 8)]
        assert padding(in_batches(mixed, 8)) < padding(as_given) / 4

    def test_shares_divide_the_images(self):
        shares = [share_of(questions(7), (index, 3)) for index in range(3)]
        assert sorted(q.id for share in shares for q in share) == sorted(q.id for q in questions(7))
