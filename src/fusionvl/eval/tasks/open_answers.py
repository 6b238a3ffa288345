"""Benchmarks answered in a word or a phrase: TextVQA, VizWiz, ChartQA, DocVQA and OCRBench."""

from collections.abc import Sequence

from fusionvl.eval.scorers import score_anls, score_contains, score_relaxed, score_vqa
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
_VIZWIZ = Source(
    dataset="lmms-lab/VizWiz-VQA",
    revision="d428a2dae984f79cf1b9d99467dfa883e0c30686",
    hub_files=("data/val-*",),
    files=("val-*.parquet",),
    columns=("question_id", "question", "answers", "category", "image"),
)
_OCRBENCH = Source(
    dataset="echo840/OCRBench",
    revision="92a54bd1384387c178d5a07140a2d85e0a3d12e1",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("dataset", "question", "question_type", "answer", "image"),
)
_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
_FORMULAS = "HME100k"  # the part of OCRBench whose answers are formulas
_CHARTQA_TYPES = {"human_test": "human", "augmented_test": "augmented"}


def _question(
    row: Row, identity: object, references: list[str], instruction: str = f"\n{WORD}", **details: object
) -> Question:
    image, image_id = row.image()
    return Question(
        id=str(identity),
        prompt=row.text("question") + instruction,
        image=image,
        image_id=image_id,
        reference=references,
        details=details,
    )


def _answers(row: Row, column: str = "answers") -> list[str]:
    given = row.get(column) or ()
    answers = [given] if isinstance(given, str) else [str(answer) for answer in given]
    if not answers:
        raise ValueError(f"{row.where}: no answers; the test split has none and cannot be scored here")
    return answers


def _textvqa_question(row: Row) -> Question:
    return _question(row, row["question_id"], _answers(row))


def _docvqa_question(row: Row) -> Question:
    return _question(row, row["questionId"], _answers(row))


def _vizwiz_question(row: Row) -> Question:
    instruction = f"\n{_UNANSWERABLE}\n{WORD}"
    return _question(
        row, row["question_id"], _answers(row), instruction, category=str(row.get("category") or "unknown")
    )


def _ocrbench_question(row: Row) -> Question:
    details = {"type": row.text("question_type"), "formula": row["dataset"] == _FORMULAS}
    return _question(row, row.number, _answers(row, "answer"), "", **details)


def _chartqa_question(row: Row) -> Question:
    kind = one_of(row["type"], _CHARTQA_TYPES, f"{row.where}: type")
    return _question(row, row.number, [row.text("answer")], type=_CHARTQA_TYPES[kind])


def _score_vqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_vqa(answer, question.reference)


def _score_chartqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_relaxed(answer, question.reference)


def _score_ocrbench(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_contains(answer, question.reference, formula=question.details["formula"])


def _score_docvqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_anls(answer, question.reference)


TASKS: Sequence[Task] = (
    Task(
        name="textvqa_val",
        title="TextVQA, validation",
        source=str(_TEXTVQA),
        load=loader(_TEXTVQA, _textvqa_question),
        score=_score_vqa,
        summarise=mean_score(),
        headline="accuracy",
    ),
    Task(
        name="vizwiz_vqa_val",
        title="VizWiz, validation",
        source=str(_VIZWIZ),
        load=loader(_VIZWIZ, _vizwiz_question),
        score=_score_vqa,
        summarise=mean_score("category"),
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
    Task(
        name="ocrbench",
        title="OCRBench",
        source=str(_OCRBENCH),
        load=loader(_OCRBENCH, _ocrbench_question),
        score=_score_ocrbench,
        summarise=mean_score("type"),
        headline="accuracy",
        max_new_tokens=128,
    ),
)
