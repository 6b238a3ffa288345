"""Benchmarks answered with yes or no: POPE, MME and HallusionBench with images."""

from collections.abc import Sequence

from fusionvl.eval.scorers import score_yes_no
from fusionvl.eval.sources import Row, Source
from fusionvl.eval.summaries import Summary, groups, percent, scored, under, yes_no_counts
from fusionvl.eval.task import Judge, Question, Sample, Task, Verdict
from fusionvl.eval.tasks.questions import WORD, loader, one_of

_YES_NO = ("yes", "no")
_POPE_CATEGORIES = ("random", "popular", "adversarial")
_POPE = Source(
    dataset="lmms-lab/POPE",
    revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("question_id", "question", "answer", "category", "image"),
)
_MME = Source(
    dataset="lmms-lab/MME",
    revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("question_id", "question", "answer", "category", "image"),
)
_MME_PARTS = {
    "perception": (
        "existence",
        "count",
        "position",
        "color",
        "posters",
        "celebrity",
        "scene",
        "landmark",
        "artwork",
        "OCR",
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
_HALLUSION = Source(
    dataset="lmms-lab/HallusionBench",
    revision="ea5fd49f1b711d12cc8b0ec75be0c0593e17befe",
    hub_files=("data/image-*",),
    files=("image-*.parquet",),
    columns=("category", "subcategory", "set_id", "figure_id", "question_id", "question", "gt_answer", "image"),
)
_MME_INSTRUCTION = "Please answer yes or no."


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_yes_no(answer, question.reference)


def _pope_question(row: Row) -> Question:
    category = one_of(row["category"], _POPE_CATEGORIES, f"{row.where}: category")
    image, image_id = row.image()
    return Question(
        id=f"{category}-{row['question_id']}",
        prompt=f"{row.text('question')}\n{WORD}",
        image=image,
        image_id=image_id,
        reference=one_of(row.text("answer").lower(), _YES_NO, f"{row.where}: answer"),
        details={"category": category},
    )


def summarise_pope(samples: Sequence[Sample]) -> Summary:
    """Accuracy, precision, recall, F1 and yes ratio of all questions and of each way of choosing the objects."""
    kept = scored(samples)
    summary = yes_no_counts(kept)
    for category, own in groups(kept, lambda sample: sample.details["category"]).items():
        summary |= under(category, yes_no_counts(own))
    return summary


def _mme_question(row: Row) -> Question:
    categories = [category for part in _MME_PARTS.values() for category in part]
    image, image_id = row.image()
    question = row.text("question")
    return Question(
        id=f"{row['question_id']}: {question}",  # two questions share each question_id
        prompt=f"{question.removesuffix(_MME_INSTRUCTION).strip()}\n{WORD}",
        image=image,
        image_id=image_id,
        reference=one_of(row.text("answer").lower(), _YES_NO, f"{row.where}: answer"),
        details={
            "category": one_of(row["category"], categories, f"{row.where}: category"),
            "group": f"{row['category']}/{row['question_id']}",
        },
    )


def summarise_mme(samples: Sequence[Sample]) -> Summary:
    """Perception (of 2000) and cognition (of 800): the sums over subtasks of accuracy and accuracy+.

    Accuracy is over questions, accuracy+ over images with both questions right; each is in percent. An image of which
    only one question was asked (a run that was limited) has no accuracy+ and is left out of that mean.
    """
    by_category = {
        category: _accuracy_and_plus(own)
        for category, own in groups(scored(samples), lambda sample: sample.details["category"]).items()
    }
    totals = {
        part: sum(by_category[category] for category in categories if category in by_category)
        for part, categories in _MME_PARTS.items()
    }
    return {
        "total": sum(totals.values()),
        **totals,
        **{f"score/{category}": value for category, value in by_category.items()},
    }


def _accuracy_and_plus(samples: Sequence[Sample]) -> float:
    images = groups(samples, lambda sample: sample.details["group"]).values()
    both = [all(sample.score == 1 for sample in image) for image in images if len(image) == 2]
    return percent(sample.score for sample in samples) + (percent(both) if both else 0.0)


def _hallusion_question(row: Row) -> Question:
    parts = {name: str(row[name]) for name in ("category", "subcategory", "set_id", "figure_id", "question_id")}
    image, image_id = row.image()
    return Question(
        id="/".join(parts.values()),
        prompt=f"{row.text('question')}\n{WORD}",
        image=image,
        image_id=image_id,
        reference={"0": "no", "1": "yes"}[one_of(row["gt_answer"], ("0", "1"), f"{row.where}: gt_answer")],
        details={
            "group": "/".join([parts["category"], parts["subcategory"], parts["set_id"]]),
            "figure": parts["figure_id"],
            "question": parts["question_id"],
        },
    )


def summarise_hallusion(samples: Sequence[Sample]) -> Summary:
    """Shares of questions, of figures with every question right, and of questions right about every figure."""
    kept = scored(samples)
    whole = {
        name: groups(kept, lambda sample: (sample.details["group"], sample.details[part])).values()  # noqa: B023
        for name, part in (("fAcc", "figure"), ("qAcc", "question"))
    }
    return {
        "aAcc": percent(sample.score for sample in kept),
        **{name: percent(all(sample.score == 1 for sample in own) for own in found) for name, found in whole.items()},
    }


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
    Task(
        name="mme",
        title="MME",
        source=str(_MME),
        load=loader(_MME, _mme_question),
        score=_score,
        summarise=summarise_mme,
        headline="total",
        max_new_tokens=16,
    ),
    Task(
        name="hallusion_bench_image",
        title="HallusionBench, with images",
        source=str(_HALLUSION),
        load=loader(_HALLUSION, _hallusion_question),
        score=_score,
        summarise=summarise_hallusion,
        headline="aAcc",
        max_new_tokens=16,
    ),
)
