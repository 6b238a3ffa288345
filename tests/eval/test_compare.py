"""Two models, question by question: what they share is compared, what they do not is counted."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from stand_ins import questions
from stand_ins import scored as folder_of_scores

from fusionvl.eval.compare import compare
from fusionvl.eval.plots import differences
from fusionvl.eval.task import Mark


def scored(folder, right, **options):
    """Scores of a model that is right where `right` says so."""

    def answer(question):
        wrong = "yes" if question.reference == "no" else "no"
        return question.reference if right(question) else wrong

    return folder_of_scores(folder, answer=answer, **options)


def picture(question):
    return int(question.image_id.split()[1])


@pytest.fixture
def a(tmp_path):
    return scored(tmp_path / "a", lambda question: picture(question) < 4)


def test_the_numbers_are_those_of_a_hand_count(tmp_path, a):
    b = scored(tmp_path / "b", lambda question: picture(question) in (3, 4, 5, 6, 7, 8))
    comparison = compare(a, b)
    (task,) = comparison.tasks
    assert (task.questions, task.first, task.second, task.difference) == (40, 40.0, 60.0, pytest.approx(20.0))
    assert (task.only_first, task.only_second) == (12, 20)
    assert task.p_value == pytest.approx(2 * sum([1, 32, 496, 4960, 35960, 201376, 906192, 3365856, 10518300,
        28048800, 64512240, 129024480, 225792840]) / 2**32)  # fmt: skip
    low, high = task.interval
    assert low < 0 < 20 < high, "ten images are too few to tell"
    assert comparison.table().rows[0][:5] == ["Even numbers", "40", "40.00", "60.00", "+20.00"]


def test_equal_models(a):
    (task,) = compare(a, a).tasks
    assert (task.difference, task.interval, task.only_first, task.only_second, task.p_value) == (0.0, None, 0, 0, 1.0)


def test_questions_that_only_one_was_asked_are_counted(tmp_path, a):
    b = scored(tmp_path / "b", lambda question: True, limit=12)
    (task,) = compare(a, b).tasks
    assert task.questions == 12
    assert task.notes == ["28 questions only A was asked, left out"]
    assert compare(b, a).tasks[0].notes == ["28 questions only B was asked, left out"]


def test_samples_without_a_judgement_are_counted(tmp_path, a):
    b = scored(tmp_path / "b", lambda question: True)
    lines = [json.loads(line) for line in (b / "samples.jsonl").read_text().splitlines()]
    for line in lines[:3]:
        line["score"] = None
    (b / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (task,) = compare(a, b).tasks
    assert task.questions == 37
    assert task.notes == ["3 questions without a judgement in one of them, left out"]
    for line in lines:
        line["score"] = None
    (b / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="none of 40 questions has a score of its own in both"):
        compare(a, b)


def test_scores_between_right_and_wrong_have_no_mcnemar(tmp_path, a):
    b = scored(tmp_path / "b", lambda question: True, score=lambda question, answer: Mark(answer, 0.5))
    (task,) = compare(a, b).tasks
    assert (task.only_first, task.only_second, task.p_value) == (None, None, None)
    assert task.difference == pytest.approx(10.0)
    assert compare(a, b).table().rows[0][-3:] == ["-", "-", "-"]


def test_tasks_are_paired_by_name_and_others_are_told(tmp_path):
    scored(tmp_path / "a" / "even", lambda question: True)
    scored(tmp_path / "a" / "odd", lambda question: True, name="odd", title="Odd numbers")
    scored(tmp_path / "b" / "even", lambda question: False)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    assert [task.title for task in comparison.tasks] == ["Even numbers"]
    assert comparison.notes == [f"Only in {tmp_path / 'a'}, and left out: odd"]


def test_other_tasks_and_other_data_are_refused(tmp_path, a):
    odd = scored(tmp_path / "odd", lambda question: True, name="odd")
    with pytest.raises(ValueError, match="no task in common: they hold even and odd"):
        compare(a, odd)
    other = [replace(question, id=f"x{question.id}") for question in questions()]
    with pytest.raises(ValueError, match=r"no question in common \(40 and 40 questions\)"):
        compare(a, scored(tmp_path / "x", lambda question: True, questions=other))
    turned = [replace(question, reference="yes") for question in questions()]
    with pytest.raises(ValueError, match="20 of 40 questions have another reference answer"):
        compare(a, scored(tmp_path / "y", lambda question: True, questions=turned))
    with pytest.raises(ValueError, match="fake was scored on even twice"):
        compare(a, tmp_path)


def test_other_words_are_told(tmp_path, a):
    worded = [replace(question, prompt="Even?") for question in questions()]
    b = scored(tmp_path / "b", lambda question: True, questions=worded)
    assert compare(a, b).tasks[0].notes == ["40 questions were worded differently"]


def test_the_plot_is_a_picture(tmp_path, a):
    b = scored(tmp_path / "b", lambda question: picture(question) > 2)
    differences(compare(a, b), tmp_path / "plots" / "differences.png")
    with Image.open(tmp_path / "plots" / "differences.png") as picture_of_it:
        assert min(picture_of_it.size) > 200
        assert len(picture_of_it.convert("RGB").getcolors(2**20)) > 10
