"""easy-VQA, generated scenes and the user's own questions: tasks whose files are not somebody else's."""

import json

import pytest
from PIL import Image

from fusionvl.data.llava import write_llava
from fusionvl.data.sample import Sample, Turn
from fusionvl.eval.own_run import summarise
from fusionvl.eval.task import ScoredAnswer
from fusionvl.eval.tasks.named import own_task

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def answered(task, answers):
    pairs = zip(task.questions, answers, strict=True)
    return [ScoredAnswer.of(question, answer, "stop", task.score(question, answer)) for question, answer in pairs]


def summary(task, answers):
    return {name: value for name, (value, _) in summarise(task, answered(task, answers)).items()}


def own(folder, *rows):
    Image.new("RGB", (4, 4)).save(folder / "1.png")
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**more):
    return {"id": "1", "image": "1.png", "question": "What is it?", "answer": "a cat", **more}


def test_easy_vqa_asks_all_official_test_questions():
    task = own_task("easy-vqa")
    assert len(task.questions) == 9673
    assert len({question.image_id for question in task.questions}) == 1000
    assert (task.max_new_tokens, own_task("easy_vqa").name) == (8, "easy_vqa")
    found = summary(task, ["yes"] * 9673)
    assert found["accuracy"] == pytest.approx(100 * 3611 / 9673)
    assert found["accuracy/yes/no"] == pytest.approx(100 * 3611 / 7136)
    assert found["accuracy/colour"] == found["accuracy/shape"] == 0
    question = task.questions[0]
    assert task.score(question, question.reference).score == 1
    assert task.score(question, question.reference.capitalize() + ".").score == 0


def scenes(folder, *, split="held-out", samples=None):
    (folder / "images").mkdir()
    image = folder / "images" / "1.png"
    Image.new("RGB", (4, 4)).save(image)
    turns = (
        Turn("Describe the image.", "It shows a star and a ring."),
        Turn("What color is the star?" + WORD, "blue"),
        Turn("What colors are there?" + WORD, "red, blue"),
        Turn("Is there a star?" + WORD, "yes"),
        Turn("How many shapes are there?" + WORD, "2"),
    )
    choice = (Turn("What is it?\nA. a star\nB. a ring" + LETTER, "B"),)
    files = {"SynthColor": [Sample("color-0", turns, image, "x")], "MultiChoice": [Sample("m-0", choice, image, "x")]}
    for kind, default in files.items():
        write_llava(folder / f"{kind}.json", default if samples is None else samples, image_root=folder)
    (folder / "provenance.json").write_text(json.dumps({"run.json": {"settings": {"split": split}}}))
    (folder / "mixture.yaml").write_text("datasets:\n- json_path: SynthColor.json\n- json_path: MultiChoice.json\n")
    return folder


def test_scenes_are_asked_question_by_question_and_reported_by_kind(tmp_path):
    task = own_task("scenes", scenes(tmp_path))
    questions = task.questions
    assert [question.id for question in questions] == [*(f"color-0-q{number}" for number in (1, 2, 3, 4)), "m-0-q0"]
    assert [question.details["form"] for question in questions] == ["words", "words", "yes/no", "number", "letter"]
    assert {question.image for question in questions} == {tmp_path / "images" / "1.png"}
    assert summary(task, ["Blue.", "blue, red", "no", "2", "B. a ring"]) == pytest.approx(
        {
            "accuracy": 80,
            "accuracy/SynthColor": 75,
            "accuracy/MultiChoice": 100,
            "accuracy/words": 100,
            "accuracy/yes/no": 0,
            "accuracy/number": 100,
            "accuracy/letter": 100,
        }
    )


def test_scenes_written_by_the_data_engine_are_read(tmp_path):
    from fusionvl.synth.export import export_selection
    from fusionvl.synth.recipe import Procedural, SynthRecipe, Template
    from fusionvl.synth.run import synthesize

    rows = {"SynthCount": 2, "MultiChoice": 2}
    recipe = SynthRecipe("test", rows, Template(), Template(), Procedural(size=64), split="held-out")
    synthesize(recipe, tmp_path / "run")
    export_selection(tmp_path / "run", tmp_path / "test", "llava", everything=True)
    task = own_task("scenes", tmp_path / "test")
    assert {question.details["kind"] for question in task.questions} == {"SynthCount", "MultiChoice"}
    assert summary(task, [question.reference for question in task.questions])["accuracy"] == 100


def test_scenes_to_train_on_are_no_test_set(tmp_path):
    with pytest.raises(
        ValueError, match="of the split 'train', not of the test set: give a folder written by: fusionvl"
    ):
        own_task("scenes", scenes(tmp_path, split="train"))


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_scenes_that_are_not_there_are_told_with_the_command(folder, tmp_path):
    with pytest.raises(ValueError, match="fusionvl synth export RUN --all, of a run with split=held-out"):
        own_task("scenes", folder and tmp_path / folder)


def test_scenes_without_short_questions_are_told(tmp_path):
    image = tmp_path / "images" / "1.png"
    with pytest.raises(ValueError, match="there are no questions"):
        own_task("scenes", scenes(tmp_path, samples=[Sample("1", (Turn("Describe.", "A star."),), image, "x")]))


def test_own_questions_are_scored_each_by_its_metric(tmp_path):
    path = own(
        tmp_path,
        row(),
        row(id="2", answer="yes", metric="yes_no"),
        row(id="3", answer="b", options=["a cat", "a dog"], metric="choice", kind="animals"),
        {"id": "4", "question": "Say stop.", "answers": ["halt", "stop"]},
        row(id="5", answer="hello", metric="anls"),
        row(id="6", answer="100", metric="relaxed"),
    )
    task = own_task(str(path))
    questions = task.questions
    assert (task.name, questions[0].image, questions[3].image) == ("own-questions", tmp_path / "1.png", None)
    assert questions[2].prompt == "What is it?\nA. a cat\nB. a dog" + LETTER
    answers = ["A cat.", "No", "a dog", "Stop.", "helo", "104"]
    assert [answer.score for answer in answered(task, answers)] == pytest.approx([1, 0, 1, 1, 0.8, 1])
    found = summary(task, answers)
    assert found["score"] == pytest.approx(100 * 4.8 / 6)
    assert (found["score/yes_no"], found["score/anls"], found["score/animals"]) == pytest.approx((0, 80, 100))
    (tmp_path / "1.png").write_bytes(b"another picture")
    assert own_task(str(path)).questions[0].image_id != questions[0].image_id


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "there are no questions"),
        ([row(), row()], "1 ids stand more than once, the first is '1'"),
        ([row(metric="bleu")], "line 1: metric: 'bleu' is none of exact, anls, relaxed, choice, yes_no"),
        ([row(image="2.png")], r"line 1: there is no image .*2\.png"),
        ([row(text="?")], r"unknown \['text'\], missing \[\]"),
        ([{"id": "1"}], r"unknown \[\], missing \['question'\]"),
        ([row(answers=["a"])], "give either 'answer' or 'answers'"),
        ([{"id": "1", "question": "?", "answers": []}], "'answers' is an empty list"),
        ([row(answer=" ")], "'answers' must be a list of texts, none of them empty"),
        ([row(options="cat, dog", metric="choice")], "'options' must be a list of texts"),
        ([row(metric="choice")], "needs 'options', a list of at least two"),
        ([row(metric="choice", options=["x", "y"], answer="C")], "answer: 'C' is none of A, B"),
        ([row(metric="yes_no")], "answer: 'a cat' is none of yes, no"),
        ([{"id": "1", "question": "?", "answers": ["yes", "no"], "metric": "yes_no"}], "takes one answer, not 2"),
        (["text"], "line 1: must be an object, not str"),
    ],
)
def test_faulty_own_questions_are_told(rows, told, tmp_path):
    path = own(tmp_path, *rows)
    with pytest.raises(ValueError, match=told) as raised:
        own_task(str(path))
    assert str(path) in str(raised.value)


def test_own_questions_need_a_file_of_lines(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.jsonl is not a .jsonl file"):
        own_task(str(tmp_path / "missing.jsonl"))
    (tmp_path / "torn.jsonl").write_text('{"id": "1", ')
    with pytest.raises(ValueError, match="line 1: not valid JSON"):
        own_task(str(tmp_path / "torn.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b"\xe4")
    with pytest.raises(ValueError, match="not UTF-8 at byte 0"):
        own_task(str(tmp_path / "latin.jsonl"))


def test_an_unknown_test_is_told_with_those_there_are():
    with pytest.raises(ValueError, match=r"'popes'; there are easy-vqa, scenes, FILE.jsonl, .*pope"):
        own_task("popes")
