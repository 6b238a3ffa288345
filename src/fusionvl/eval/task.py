"""What a benchmark is: one declaration of where its questions come from, how they are scored and what is reported.

    questions -> (model answers) -> score each answer -> summarise all samples

Knows no model, no file format and no benchmark; the benchmarks are in `eval/tasks/`, running them in `runner.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: Unique in the task.
        prompt: What the model is asked, as the task words it.
        image: A path, bytes or PIL image, or None.
        image_id: Equal for questions about the same image; they are asked next to each other, and share its features.
        reference: What the scorer compares with (an answer, several, a letter); JSON.
        details: What the summary or a reader needs besides (category, options, subset); JSON. Questions that only
            count together name their `group`.
    """

    id: str
    prompt: str
    image: Any
    image_id: str
    reference: Any
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A scorer's view of one answer.

    Attributes:
        parsed: What was understood of the answer (a letter, yes or no, a number), None when nothing could be.
        score: From 0 to 1; an answer that cannot be parsed has 0 and is counted as unparsed. None only when a judge
            was asked and failed; such samples are counted and left out of the score.
        reason: Why, where it needs saying: "not a letter", a judge's words.
    """

    parsed: str | None
    score: float | None
    reason: str = ""


@dataclass(frozen=True)
class Sample:
    """One line of `samples.jsonl`: a question, what the model said and what it was worth.

    Attributes:
        id: The question's.
        prompt: As asked.
        output: The model's words, untouched.
        parsed: See `Verdict`.
        score: See `Verdict`.
        reason: See `Verdict`.
        reference: The question's.
        details: The question's.
        finish_reason: `stop` or `length`.
        image_id: The question's. Intervals draw whole images and groups; one that is drawn twice comes with another
            id, image id and group.
    """

    id: str
    prompt: str
    output: str
    parsed: str | None
    score: float | None
    reason: str
    reference: Any
    details: Mapping[str, Any]
    finish_reason: str
    image_id: str = ""


Judge = Callable[[str], str]
"""A language model asked with a prompt; used by tasks whose answers are free text."""


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: As lmms-eval names it where it has it, for instance `pope`.
        title: For people.
        source: Where the questions come from: a hub data set and its revision, or what the folder must hold.
        load: Reads the questions from a folder with the published files; None: from where `source` says. Raises
            ValueError for missing files, wrong columns or duplicate ids, with the path.
        score: Judges one answer by the official definition. The judge is None for tasks that need none.
        summarise: Metric name -> value, in the unit the paper reports (percent, or sums for MME).
        headline: The metric of the summary that is shown first and compared.
        max_new_tokens: Bound on an answer; decoding is greedy.
        needs_judge: Whether `score` needs a judge.
        comes_with_package: Whether its questions are installed with a package, so that there is no folder to name.
        judge_prompt_version: Of the words the judge is asked with; it is recorded beside the scores.
    """

    name: str
    title: str
    source: str
    load: Callable[[Path | None], Sequence[Question]]
    score: Callable[[Question, str, Judge | None], Verdict]
    summarise: Callable[[Sequence[Sample]], dict[str, float]]
    headline: str
    max_new_tokens: int = 32
    needs_judge: bool = False
    comes_with_package: bool = False
    judge_prompt_version: str = ""
