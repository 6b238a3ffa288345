"""Benchmarks answered in a word or a phrase: TextVQA, ChartQA and DocVQA."""

from collections.abc import Sequence

from fusionvl.eval.scorers import score_anls, score_relaxed, score_vqa
from fusionvl.eval.sources import Row, Source
from fusionvl.eval.summaries import mean_score
from fusionvl.eval.task import Judge, Question, Task, Verdict
from fusionvl.eval.tasks.questions import WORD, loader, one_of

_TEXTVQA = Source(
    dataset="lmms-lab/textvqa",
    hub_files=("data/validation-*",),
    files=("validation-*.parquet",),
    columns=("question_id", "question", "answers", "image"),
)
_CHARTQA = Source(
    dataset="lmms-lab/ChartQA",
    revision="9e63b7df1592a1c2158e735cc1725454aef0d6d9",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("type", "question", "answer", "image"),
)
_DOCVQA = Source(
    dataset="lmms-lab/DocVQA",
    revision="59fed3cdc38662abeef8f363171b2ec7c95c165c",
    hub_files=("DocVQA/validation-*",),
    files=("DocVQA/validation-*.parquet", "validation-*.parquet"),
    columns=("questionId", "question", "answers", "image"),
)
_CHARTQA_TYPES = {"human_test": "human", "augmented_test": "augmented"}


def _question(row: Row, identity: object, references: list[str], **details: object) -> Question:
    image, image_id = row.image()
    return Question(
        id=str(identity),
        prompt=f"{row.text('question')}\n{WORD}",
        image=image,
        image_id=image_id,
        reference=references,
        details=details,
    )


def _answers(row: Row) -> list[str]:
    answers = [str(answer) for answer in row.get("answers") or ()]
    if not answers:
        raise ValueError(f"{row.where}: no answers; the test split has none and cannot be scored here")
    return answers


def _textvqa_question(row: Row) -> Question:
    return _question(row, row["question_id"], _answers(row))


def _docvqa_question(row: Row) -> Question:
    return _question(row, row["questionId"], _answers(row))


def _chartqa_question(row: Row) -> Question:
    kind = one_of(row["type"], _CHARTQA_TYPES, f"{row.where}: type")
    return _question(row, row.number, [row.text("answer")], type=_CHARTQA_TYPES[kind])


def _score_textvqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_vqa(answer, question.reference)


def _score_chartqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_relaxed(answer, question.reference)


def _score_docvqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_anls(answer, question.reference)


TASKS: Sequence[Task] = (
    Task(
        name="textvqa_val",
        title="TextVQA, validation",
        source=str(_TEXTVQA),
        load=loader(_TEXTVQA, _textvqa_question),
        score=_score_textvqa,
        summarise=mean_score(),
        headline="accuracy",
    ),
    Task(
        name="chartqa",
        title="ChartQA, test",
        source=str(_CHARTQA),
        load=loader(_CHARTQA, _chartqa_question),
        score=_score_chartqa,
        summarise=mean_score("type", metric="relaxed_accuracy"),
        headline="relaxed_accuracy",
    ),
    Task(
        name="docvqa_val",
        title="DocVQA, validation",
        source=str(_DOCVQA),
        load=loader(_DOCVQA, _docvqa_question),
        score=_score_docvqa,
        summarise=mean_score(metric="anls"),
        headline="anls",
    ),
)
