"""easy-VQA, generated scenes and the user's own questions: tasks whose files are not somebody else's."""

import json

import pytest
from PIL import Image

from fusionvl.data.llava import write_llava
from fusionvl.data.sample import Sample, Turn
from fusionvl.eval.task import Sample as Answered
from fusionvl.eval.tasks.registry import find_task

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def answered(task, questions, answers):
    samples = []
    for question, answer in zip(questions, answers, strict=True):
        verdict = task.score(question, answer, None)
        judged = (verdict.parsed, verdict.score, verdict.reason)
        samples.append(
            Answered(question.id, question.prompt, answer, *judged, question.reference, question.details, "stop")
        )
    return samples


def own(folder, *rows):
    Image.new("RGB", (4, 4)).save(folder / "1.png")
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**more):
    return {"id": "1", "image": "1.png", "question": "What is it?", "answer": "a cat", **more}


def test_easy_vqa_asks_all_official_test_questions():
    task = find_task("easy_vqa")
    questions = task.load(None)
    assert len(questions) == len({question.id for question in questions}) == 9673
    assert len({question.image_id for question in questions}) == 1000
    assert task.max_new_tokens == 8
    summary = task.summarise(answered(task, questions, ["yes"] * len(questions)))
    assert summary["accuracy"] == pytest.approx(100 * 3611 / 9673)
    assert summary["accuracy/yes/no"] == pytest.approx(100 * 3611 / 7136)
    assert summary["accuracy/colour"] == summary["accuracy/shape"] == 0


def test_easy_vqa_takes_exact_answers_and_no_folder(tmp_path):
    task = find_task("easy_vqa")
    question = task.load(None)[0]
    assert task.score(question, question.reference, None).score == 1
    assert task.score(question, question.reference.capitalize() + ".", None).score == 0
    with pytest.raises(ValueError, match="give no folder"):
        task.load(tmp_path)


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
    (folder / "scenes.json").write_text(json.dumps({"size": 64, "seed": 0, "split": split}))
    (folder / "mixture.yaml").write_text("datasets:\n- json_path: SynthColor.json\n- json_path: MultiChoice.json\n")
    return folder


def test_scenes_are_asked_question_by_question_and_reported_by_kind(tmp_path):
    task = find_task("scenes")
    questions = task.load(scenes(tmp_path))
    assert [question.id for question in questions] == [*(f"color-0-q{number}" for number in (1, 2, 3, 4)), "m-0-q0"]
    assert [question.details["form"] for question in questions] == ["words", "words", "yes/no", "number", "letter"]
    assert {question.image for question in questions} == {tmp_path / "images" / "1.png"}
    summary = task.summarise(answered(task, questions, ["Blue.", "blue, red", "no", "2", "B. a ring"]))
    assert summary == pytest.approx(
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
    from fusionvl.synth.scenes.scene_folder import write_scenes

    write_scenes(tmp_path, 2, kinds=("SynthCount", "MultiChoice"), size=64, split="held-out")
    task = find_task("scenes")
    questions = task.load(tmp_path)
    assert {question.details["kind"] for question in questions} == {"SynthCount", "MultiChoice"}
    right = answered(task, questions, [question.reference for question in questions])
    assert task.summarise(right)["accuracy"] == 100


def test_scenes_to_train_on_are_no_test_set(tmp_path):
    with pytest.raises(ValueError, match="of the split 'train', not of the test set: fusionvl synth scenes"):
        find_task("scenes").load(scenes(tmp_path, split="train"))


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_scenes_that_are_not_there_are_told_with_the_command(folder, tmp_path):
    with pytest.raises(ValueError, match="fusionvl synth scenes FOLDER --split held-out"):
        find_task("scenes").load(folder and tmp_path / folder)


def test_scenes_without_short_questions_are_told(tmp_path):
    image = tmp_path / "images" / "1.png"
    with pytest.raises(ValueError, match="there are no questions"):
        find_task("scenes").load(scenes(tmp_path, samples=[Sample("1", (Turn("Describe.", "A star."),), image, "x")]))


def test_own_questions_are_scored_each_by_its_metric(tmp_path):
    task = find_task("own")
    path = own(
        tmp_path,
        row(),
        row(id="2", answer="yes", metric="yes_no"),
        row(id="3", answer="b", options=["a cat", "a dog"], metric="choice", kind="animals"),
        {"id": "4", "question": "Say stop.", "answers": ["stop"] * 10, "metric": "vqa"},
        row(id="5", answer="hello", metric="anls"),
        row(id="6", answer="100", metric="relaxed"),
    )
    questions = task.load(path)
    assert questions[0].image == tmp_path / "1.png"
    assert questions[3].image is None
    assert questions[2].prompt == "What is it?\nA. a cat\nB. a dog" + LETTER
    samples = answered(task, questions, ["A cat.", "No", "a dog", "Stop!", "helo", "104"])
    assert [sample.score for sample in samples] == pytest.approx([1, 0, 1, 1, 0.8, 1])
    summary = task.summarise(samples)
    assert summary["score"] == pytest.approx(100 * 4.8 / 6)
    assert (summary["yes_no"], summary["anls"], summary["score/animals"]) == pytest.approx((0, 80, 100))
    assert task.load(tmp_path) == questions
    assert len({question.image_id for question in questions}) == 2, "one picture, and a question without"
    (tmp_path / "1.png").write_bytes(b"another picture")
    assert task.load(tmp_path)[0].image_id != questions[0].image_id


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "there are no questions"),
        ([row(), row()], "1 questions have the id of another, the first is '1'"),
        ([row(metric="bleu")], "question 1: metric: 'bleu' is none of exact, vqa, anls, relaxed, choice, yes_no"),
        ([row(image="2.png")], r"question 1: there is no image .*2\.png"),
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
        find_task("own").load(path)
    assert str(path) in str(raised.value)


def test_own_questions_need_a_file(tmp_path):
    with pytest.raises(ValueError, match="give the JSON lines file"):
        find_task("own").load(None)
    with pytest.raises(ValueError, match=r"holds 0 .jsonl files"):
        find_task("own").load(tmp_path)
    with pytest.raises(ValueError, match=r"not a .jsonl file"):
        find_task("own").load(tmp_path / "questions.csv")
    (tmp_path / "torn.jsonl").write_text('{"id": "1", ')
    with pytest.raises(ValueError, match="line 1: not valid JSON"):
        find_task("own").load(tmp_path / "torn.jsonl")
