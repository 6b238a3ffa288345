"""Benchmarks whose free answers another language model judges: MM-Vet and LLaVA-Bench (in the wild).

The words the judge is asked with are those of the benchmarks' authors: they are part of the score. So is the judge:
published figures are from GPT-4, and those of another judge do not compare with them. A reply without the number that
was asked for leaves the sample without a score, to be judged again.
"""

import re
from collections.abc import Sequence

from fusionvl.eval.sources import Row, Source
from fusionvl.eval.summaries import Summary, groups, percent, scored
from fusionvl.eval.task import Judge, Question, Sample, Task, Verdict
from fusionvl.eval.tasks.questions import loader, one_of

_MMVET = Source(
    dataset="lmms-lab/MMVet",
    revision="b310d12d0d9e765db953da28a7ef7ff43620dc83",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("question_id", "question", "answer", "capability", "image"),
)
_LLAVA_BENCH = Source(
    dataset="lmms-lab/llava-bench-in-the-wild",
    revision="2c88d835d509b1372066db42ab7799255dbe9da2",
    hub_files=("data/train-*",),
    files=("train-*.parquet",),
    columns=("question_id", "question", "gpt_answer", "caption", "category", "image"),
)
_LLAVA_CATEGORIES = ("conv", "detail", "complex")

_MEME = (
    "This meme is poking fun at the fact that the names of the countries Iceland and Greenland are misleading. "
    "Despite its name, Iceland is known for its beautiful green landscapes, while Greenland is mostly covered in "
    "ice and snow. The meme is saying that the person has trust issues because the names of these countries do "
    "not accurately represent their landscapes."
)
_MMVET_EXAMPLES = (
    ("What is x in the equation?", "-1 <AND> -5", "x = 3", "0.0"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5 or 5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1 or x = -5", "1.0"),
    (
        "Can you explain this meme?",
        _MEME,
        "The meme talks about Iceland and Greenland. It's pointing out that despite their names, Iceland is not "
        "very icy and Greenland isn't very green.",
        "0.4",
    ),
    (
        "Can you explain this meme?",
        _MEME,
        "The meme is using humor to point out the misleading nature of Iceland's and Greenland's names. Iceland, "
        "despite its name, has lush green landscapes while Greenland is mostly covered in ice and snow. The text "
        "'This is why I have trust issues' is a playful way to suggest that these contradictions can lead to "
        "distrust or confusion. The humor in this meme is derived from the unexpected contrast between the names "
        "of the countries and their actual physical characteristics.",
        "1.0",
    ),
)
_MMVET_PROMPT = "\n".join(
    [
        "Compare the ground truth and prediction from AI models, to give a correctness score for the prediction. "
        "<AND> in the ground truth means it is totally right only when all elements in the ground truth are "
        "present in the prediction, and <OR> means it is totally right when any one element in the ground truth "
        "is present in the prediction. The correctness score is 0.0 (totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, "
        "0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just complete the last space of the correctness score.",
        "",
        "Question | Ground truth | Prediction | Correctness",
        "--- | --- | --- | ---",
        *(" | ".join(example) for example in _MMVET_EXAMPLES),
    ]
)
_LLAVA_PROMPT = (
    "We would like to request your feedback on the performance of two AI assistants in response to the user "
    "question displayed above. The user asks the question on observing an image. For your reference, the visual "
    "content in the image is represented with a few sentences describing the image. \nPlease rate the "
    "helpfulness, relevance, accuracy, level of details of their responses. Each assistant receives an overall "
    "score on a scale of 1 to 10, where a higher score indicates better overall performance.\nPlease first output "
    "a single line containing only two values indicating the scores for Assistant 1 and 2, respectively. The two "
    "scores are separated by a space.\nIn the subsequent line, please provide a comprehensive explanation of your "
    "evaluation, avoiding any potential bias and ensuring that the order in which the responses were presented "
    "does not affect your judgment."
)
_NUMBER = r"\d+(?:\.\d+)?"


def _mmvet_question(row: Row) -> Question:
    image, image_id = row.image()
    return Question(
        id=row.text("question_id"),
        prompt=row.text("question"),
        image=image,
        image_id=image_id,
        reference=row.text("answer"),
        details={"capabilities": sorted(name.strip() for name in row.text("capability").split(","))},
    )


def _score_mmvet(question: Question, answer: str, judge: Judge | None) -> Verdict:
    if not answer.strip():
        return Verdict(None, 0.0, "empty answer")
    truth = question.reference.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    said = _asked(judge)(f"{_MMVET_PROMPT}\n{question.prompt} | {truth} | {answer} |")
    match = re.match(rf"\W*({_NUMBER})", said)
    if match is None or float(match[1]) > 1:
        return Verdict(None, None, f"the judge gave no number from 0 to 1: {said[:200]}")
    return Verdict(match[1], float(match[1]), said)


def summarise_mmvet(samples: Sequence[Sample]) -> Summary:
    """The mean, and that of the questions that need a capability, alone or with others."""
    kept = scored(samples)
    names = sorted({name for sample in kept for name in sample.details["capabilities"]})
    return {
        "score": percent(sample.score for sample in kept),
        **{
            f"score/{name}": percent(sample.score for sample in kept if name in sample.details["capabilities"])
            for name in names
        },
    }


def _llava_question(row: Row) -> Question:
    image, image_id = row.image()
    caption = row.get("caption")
    return Question(
        id=row.text("question_id"),
        prompt=row.text("question"),
        image=image,
        image_id=image_id,
        reference=row.text("gpt_answer"),
        details={
            "category": one_of(row["category"], _LLAVA_CATEGORIES, f"{row.where}: category"),
            "caption": "\n".join(caption) if isinstance(caption, list) else str(caption or ""),
        },
    )


def _score_llava(question: Question, answer: str, judge: Judge | None) -> Verdict:
    """The score is the model's mark; an empty answer is judged, too, as the sum needs GPT-4's mark beside it."""
    answers = "".join(
        f"[Assistant {number}]\n{text}\n\n[End of Assistant {number}]\n\n"
        for number, text in enumerate((question.reference, answer), start=1)
    )
    said = _asked(judge)(
        f"[Context]\n{question.details['caption']}\n\n[Question]\n{question.prompt}\n\n{answers}"
        f"[System]\n{_LLAVA_PROMPT}\n\n"
    )
    marks = [float(number) for number in re.findall(_NUMBER, said.strip().split("\n")[0])]
    if len(marks) != 2 or not all(1 <= mark <= 10 for mark in marks):
        return Verdict(None, None, f"the judge gave no two numbers from 1 to 10: {said[:200]}")
    return Verdict(f"{marks[0]:g} {marks[1]:g}", marks[1] / 10, said)


def summarise_llava(samples: Sequence[Sample]) -> Summary:
    """The model's marks in percent of GPT-4's, of all questions and of each category."""
    kept = scored(samples)
    categories = groups(kept, lambda sample: sample.details["category"])
    return {"score": _relative(kept), **{f"score/{name}": _relative(own) for name, own in sorted(categories.items())}}


def _relative(samples: Sequence[Sample]) -> float:
    marks = [[float(mark) for mark in str(sample.parsed).split()] for sample in samples]
    return 100 * sum(mark[1] for mark in marks) / sum(mark[0] for mark in marks)


def _asked(judge: Judge | None) -> Judge:
    if judge is None:
        raise ValueError("this task is scored by a judge, and none was given")
    return judge


TASKS = (
    Task(
        name="mmvet",
        title="MM-Vet",
        source=str(_MMVET),
        load=loader(_MMVET, _mmvet_question),
        score=_score_mmvet,
        summarise=summarise_mmvet,
        headline="score",
        max_new_tokens=1024,
        needs_judge=True,
        judge_prompt_version="MM-Vet's own",
    ),
    Task(
        name="llava_in_the_wild",
        title="LLaVA-Bench in the wild",
        source=str(_LLAVA_BENCH),
        load=loader(_LLAVA_BENCH, _llava_question),
        score=_score_llava,
        summarise=summarise_llava,
        headline="score",
        max_new_tokens=1024,
        needs_judge=True,
        judge_prompt_version="LLaVA's own",
    ),
)
