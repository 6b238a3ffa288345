"""Benchmarks answered with yes or no: POPE."""

from collections.abc import Sequence

from fusionvl.eval.scorers import score_yes_no
from fusionvl.eval.sources import Images, Row, Source
from fusionvl.eval.summaries import Summary, groups, scored, under, yes_no_counts
from fusionvl.eval.task import Judge, Question, Sample, Task, Verdict
from fusionvl.eval.tasks.questions import WORD, loader, one_of

_YES_NO = ("yes", "no")
_POPE = Source(
    dataset="lmms-lab/POPE",
    files=("data/test-*.parquet", "**/test-*.parquet", "**/*.jsonl"),
    columns=("question_id", "question", "answer", "category", "image"),
)


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_yes_no(answer, question.reference)


def _pope_question(row: Row, images: Images, where: str) -> Question:
    image, image_id = images.of(row["image"], where)
    category = one_of(row["category"], ("random", "popular", "adversarial"), f"{where}: category")
    return Question(
        id=f"{category}-{row['question_id']}",
        prompt=f"{row['question'].strip()}\n{WORD}",
        image=image,
        image_id=image_id,
        reference=one_of(row["answer"].strip().lower(), _YES_NO, f"{where}: answer"),
        details={"category": category},
    )


def summarise_pope(samples: Sequence[Sample]) -> Summary:
    """Accuracy, precision, recall, F1 and yes ratio of all questions and of each way of choosing the objects."""
    kept = scored(samples)
    summary = yes_no_counts(kept)
    for category, own in groups(kept, lambda sample: sample.details["category"]).items():
        summary |= under(category, yes_no_counts(own))
    return summary


TASKS = (
    Task(
        name="pope",
        title="POPE",
        source=str(_POPE),
        load=loader(_POPE, _pope_question),
        score=_score,
        summarise=summarise_pope,
        headline="f1",
        max_new_tokens=16,
    ),
)
