"""Runs a benchmark: asks what has not been asked, writes every sample down, adds up at the end.

    FOLDER/run.json        what the scores depend on, when and with what they were begun
    FOLDER/samples.jsonl   one line per question, written batch by batch
    FOLDER/results.json    metrics, interval, counts; written when all questions are answered

Killed at any moment, it loses at most the batch in flight and goes on from there. Errors of the model, memory among
them, end the run. Knows tasks and answerers; knows no benchmark and no command line.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusionvl.eval.answerer import Answerer, Reply
from fusionvl.eval.judge import EndpointJudge, JudgeError
from fusionvl.eval.ordering import in_batches, share_of
from fusionvl.eval.results import Results, sum_up
from fusionvl.eval.run_record import claim
from fusionvl.eval.sample_file import SAMPLES, SampleFile, as_stored, read_samples, write_samples
from fusionvl.eval.task import Question, Sample, Task, Verdict

_JUDGEMENTS_AT_ONCE = 8


def run_task(
    task: Task,
    answerer: Answerer,
    folder: Path,
    *,
    data: Path | None = None,
    batch_size: int = 16,
    limit: int | None = None,
    judge: EndpointJudge | None = None,
    shard: tuple[int, int] = (0, 1),
    show_progress: bool = True,
) -> Results | None:
    """Score a model on a task, or go on where an earlier call stopped.

    Args:
        task: The benchmark.
        answerer: What is scored.
        folder: Of this task's scores with this model; the same call goes on in it.
        data: Folder of the task's published files; None: from where the task says.
        batch_size: Questions of a batch.
        limit: Ask only the first so many questions of the task. A later call may have a higher one.
        judge: For tasks that need one. Samples it failed on are judged again, not asked again.
        shard: (I, N): ask the questions of every N-th image only, from the I-th on.
        show_progress: Whether to draw bars.

    Returns:
        The results; None when other shards are not finished.

    Raises:
        ValueError: When the folder holds other scores, the task's files are missing, a question cannot be asked, or a
            judge is needed and not given.
    """
    questions = _load(task, data)
    asked = questions[:limit]
    judge = _judge_of(task, judge)
    told = {"model": answerer.name, "data": None if data is None else str(data), "batch_size": batch_size}
    claim_folder = partial(claim, folder, _settings(task, answerer, judge), told)
    claim_folder()
    mine = share_of(asked, shard)
    with SampleFile(folder / _file_name(shard)) as file:
        _check_same_questions(file, mine)
        run = _Run(task, answerer, judge, file, claim_folder, _bar(mine, file, task.name, show_progress))
        run.judge_again(mine)
        run.ask([question for question in mine if question.id not in file.samples], batch_size)
        run.bar.close()
    samples = _all_samples(folder, asked, shard[1])
    if samples is None:
        return None
    write_samples(folder / SAMPLES, samples)
    results = sum_up(task, samples, len(questions), _draws_bar(show_progress))
    results.write(folder)
    return results


class _Run:
    """One process's questions on their way into its file."""

    def __init__(
        self,
        task: Task,
        answerer: Answerer,
        judge: EndpointJudge | None,
        file: SampleFile,
        claim_folder: Callable[[], None],
        bar: "tqdm[Any]",
    ) -> None:
        self._task = task
        self._answerer = answerer
        self._judge = judge
        self._file = file
        self._claim_folder = claim_folder
        self.bar = bar

    def judge_again(self, questions: Sequence[Question]) -> None:
        """Score the answers whose judge failed earlier; the model is not asked again."""
        failed = [
            (question, sample)
            for question in questions
            if (sample := self._file.samples.get(question.id)) is not None and sample.score is None
        ]
        for start in range(0, len(failed), _JUDGEMENTS_AT_ONCE):
            batch = failed[start : start + _JUDGEMENTS_AT_ONCE]
            replies = [Reply(sample.output, sample.finish_reason) for _, sample in batch]  # type: ignore[arg-type]
            self._keep([question for question, _ in batch], replies)

    def ask(self, questions: Sequence[Question], batch_size: int) -> None:
        """Ask all, batch by batch."""
        for batch in in_batches(questions, batch_size):
            try:
                replies = self._answerer.answer(batch, self._task.max_new_tokens)
            except ValueError as error:
                among = ", ".join(question.id for question in batch[:8]) + (", ..." if len(batch) > 8 else "")
                raise ValueError(f"{self._task.name}, one of the questions {among}: {error}") from error
            self._keep(batch, replies)
            self.bar.update(len(batch))

    def _keep(self, questions: Sequence[Question], replies: Sequence[Reply]) -> None:
        texts = [reply.text for reply in replies]
        if self._judge is None:
            verdicts = list(map(self._verdict, questions, texts))
        else:
            with ThreadPoolExecutor(_JUDGEMENTS_AT_ONCE) as threads:
                verdicts = list(threads.map(self._verdict, questions, texts))
        self._claim_folder()  # nobody else's, if it was empty until now
        self._file.append(map(_sample, questions, replies, verdicts))
        self.bar.set_postfix_str(_running_score(self._file.samples.values()), refresh=False)

    def _verdict(self, question: Question, text: str) -> Verdict:
        try:
            return self._task.score(question, text, self._judge)
        except JudgeError as error:
            return Verdict(None, None, f"judge failed: {error}")


def _load(task: Task, data: Path | None) -> list[Question]:
    questions = list(task.load(data))
    repeated = len(questions) - len({question.id for question in questions})
    if repeated or not questions:
        what = f"{repeated} of {len(questions)} questions have the id of another" if repeated else "there are none"
        raise ValueError(f"{task.name}: {what}; its questions come from {data or task.source}")
    return questions


def _judge_of(task: Task, judge: EndpointJudge | None) -> EndpointJudge | None:
    """The judge if the task asks one: what it does not ask is not part of its scores."""
    if not task.needs_judge:
        return None
    if judge is None:
        raise ValueError(f"{task.name} needs a judge: give --judge-url and --judge-model")
    return judge


def _settings(task: Task, answerer: Answerer, judge: EndpointJudge | None) -> dict[str, Any]:
    by = None if judge is None else {**judge.settings(), "prompt_version": task.judge_prompt_version}
    return {
        "task": task.name,
        "source": task.source,
        "max_new_tokens": task.max_new_tokens,
        **answerer.settings(),
        "judge": by,
    }


def _file_name(shard: tuple[int, int]) -> str:
    index, count = shard
    return SAMPLES if count == 1 else f"samples-{index}-of-{count}.jsonl"


def _check_same_questions(file: SampleFile, questions: Sequence[Question]) -> None:
    known = {question.id: question for question in questions}
    foreign = file.samples.keys() - known.keys()
    if foreign:
        raise ValueError(
            f"{file.path} holds {len(foreign)} samples of questions that are not asked now, for instance "
            f"{min(foreign)}: choose another --output, or a --limit not lower than before"
        )
    for sample in file.samples.values():
        question = known[sample.id]
        now = (question.prompt, as_stored(question.reference), as_stored(dict(question.details)), question.image_id)
        if (sample.prompt, sample.reference, sample.details, sample.image_id) != now:
            raise ValueError(f"{file.path}: {sample.id} was another question then: choose another --output")


def _all_samples(folder: Path, questions: Sequence[Question], shards: int) -> list[Sample] | None:
    """The samples of all shards in the task's order; None while some are missing."""
    samples: dict[str, Sample] = {}
    for index in range(shards):
        path = folder / _file_name((index, shards))
        if path.exists():
            samples |= read_samples(path)
    if any(question.id not in samples for question in questions):
        return None
    return [samples[question.id] for question in questions]


def _sample(question: Question, reply: Reply, verdict: Verdict) -> Sample:
    return Sample(
        id=question.id,
        prompt=question.prompt,
        output=reply.text,
        parsed=verdict.parsed,
        score=verdict.score,
        reason=verdict.reason,
        reference=as_stored(question.reference),
        details=as_stored(dict(question.details)),
        finish_reason=reply.finish_reason,
        image_id=question.image_id,
    )


def _bar(questions: Sequence[Question], file: SampleFile, name: str, shown: bool) -> "tqdm[Any]":
    return tqdm(
        total=len(questions),
        initial=len(file.samples),
        unit=" questions",
        desc=name,
        smoothing=0.05,
        dynamic_ncols=True,
        disable=not shown,
    )


def _draws_bar(shown: bool) -> Any:
    return lambda draws: tqdm(draws, desc="confidence interval", unit=" draws", leave=False, disable=not shown)


def _running_score(samples: Any) -> str:
    scores = [sample.score for sample in samples if sample.score is not None]
    failed = len(samples) - len(scores)
    mean = f"mean score {100 * sum(scores) / len(scores):.1f} %" if scores else "no score yet"
    return f"{mean}, {failed} not judged" if failed else mean
