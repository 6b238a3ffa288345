"""Scores an engine on easy-VQA's official test questions by greedy generation and exact match.

    fusionvl eval easy-vqa --output runs/nano/easy-vqa

Every question is written to `samples.jsonl` as it is answered; started again, only the missing ones are asked. Knows
the engine and the data; the published comparison is a CNN+LSTM with 87.60 % (the data set's own page).
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusionvl.data.easy_vqa import load_split, question_samples
from fusionvl.data.sample import Sample
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation

MAX_NEW_TOKENS = 8


@dataclass(frozen=True)
class Score:
    """Exact matches over all questions asked.

    Attributes:
        questions: How many were asked.
        correct: How many answers equal the reference exactly.
        correct_by_kind: The same for yes/no, colour and shape questions, as (correct, asked).
    """

    questions: int
    correct: int
    correct_by_kind: dict[str, tuple[int, int]]

    @property
    def accuracy(self) -> float:
        """Share of exact matches."""
        return self.correct / self.questions


def score_easy_vqa(
    engine: FusionEngine,
    output: Path,
    *,
    batch_size: int = 64,
    num_latents: int | None = None,
    limit: int | None = None,
) -> Score:
    """Ask the test questions and write `samples.jsonl` and `score.json`.

    Args:
        engine: What answers.
        output: Folder of the results; results of an earlier, interrupted call are kept.
        batch_size: Questions of a batch.
        num_latents: Latent tokens of each question; None is the processor's default.
        limit: Ask only the first so many questions.

    Raises:
        ValueError: When the folder's results are of other questions.
    """
    samples = question_samples(load_split("test"))[:limit]
    output.mkdir(parents=True, exist_ok=True)
    path = output / "samples.jsonl"
    results = _earlier_results(path, {sample.id for sample in samples})
    missing = [sample for sample in samples if sample.id not in results]
    with path.open("a") as lines, tqdm(total=len(samples), initial=len(results), unit="question") as progress:
        for start in range(0, len(missing), batch_size):
            for result in _ask(engine, missing[start : start + batch_size], num_latents):
                results[result["id"]] = result
                lines.write(json.dumps(result) + "\n")
                progress.update()
            lines.flush()
            progress.set_postfix(accuracy=f"{sum(r['correct'] for r in results.values()) / len(results):.2%}")
    score = _total(list(results.values()))
    (output / "score.json").write_text(json.dumps({**asdict(score), "accuracy": score.accuracy}, indent=2) + "\n")
    return score


def _ask(engine: FusionEngine, batch: list[Sample], num_latents: int | None) -> list[dict[str, Any]]:
    answers = engine.answer(
        [conversation(sample.image, sample.turns[0].question) for sample in batch],
        max_new_tokens=MAX_NEW_TOKENS,
        num_latents=num_latents,
    )
    return [
        {
            "id": sample.id,
            "question": sample.turns[0].question,
            "reference": sample.turns[0].answer,
            "answer": answer.text,
            "correct": answer.text == sample.turns[0].answer,
        }
        for sample, answer in zip(batch, answers, strict=True)
    ]


def _earlier_results(path: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]  # a killed run may leave half a line
    if complete != text:
        path.write_text(complete)
    results = {result["id"]: result for result in map(json.loads, complete.splitlines())}
    foreign = results.keys() - known
    if foreign:
        raise ValueError(f"{path} holds {len(foreign)} results of other questions: choose another --output")
    return results


def _total(results: list[dict[str, Any]]) -> Score:
    asked, correct = Counter[str](), Counter[str]()
    for result in results:
        kind = _kind(result["reference"])
        asked[kind] += 1
        correct[kind] += result["correct"]
    return Score(len(results), correct.total(), {kind: (correct[kind], asked[kind]) for kind in sorted(asked)})


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in ("circle", "rectangle", "triangle") else "colour"
