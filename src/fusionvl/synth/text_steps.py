"""The steps of language models: descriptions from captions, and questions from descriptions.

An answer that does not fit is sent back once, with what is wrong with it; the second one that does not fit rejects the
row. Knows no backend but by its contract.
"""

from dataclasses import replace
from typing import Any

from fusionvl.synth.answers import QUESTIONS, Answer, AnswerError, description_answer, parse
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.progress import Price
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.rows import Row, seed_of
from fusionvl.synth.text import Messages, RequestError, TextBackend, TextRequest


class DescribeStep:
    """Brings the description of what a caption may stand for.

    Args:
        backend: What writes.
        prompts: What it is told.
        price: Of its tokens.
    """

    def __init__(self, backend: TextBackend, prompts: Prompts, price: Price) -> None:
        self.price = price
        self._backend = backend
        self._prompts = prompts

    def is_done(self, row: Row) -> bool:
        """Whether the row has a description."""
        return bool(row.description)

    async def run(self, row: Row, shard: int) -> Row:
        """Have a row's caption described."""
        answer_type = description_answer(KINDS[row.kind])
        row, answer = await ask(self._backend, self._prompts, "describe", row, answer_type)
        return row if answer is None else replace(row, description=answer.as_text())

    def close(self) -> None:
        """Give the backend back."""
        self._backend.close()


class QuestionStep:
    """Brings questions and answers about what a description says.

    Args:
        backend: What writes.
        prompts: What it is told.
        price: Of its tokens.
    """

    def __init__(self, backend: TextBackend, prompts: Prompts, price: Price) -> None:
        self.price = price
        self._backend = backend
        self._prompts = prompts

    def is_done(self, row: Row) -> bool:
        """Whether the row has questions."""
        return bool(row.turns)

    async def run(self, row: Row, shard: int) -> Row:
        """Have questions asked about a row's description."""
        row, answer = await ask(self._backend, self._prompts, "questions", row, QUESTIONS[row.kind])
        return row if answer is None else replace(row, turns=tuple(asked.turn() for asked in answer.turns))

    def close(self) -> None:
        """Give the backend back."""
        self._backend.close()


async def ask(
    backend: TextBackend, prompts: Prompts, step: str, row: Row, answer_type: type[Answer]
) -> tuple[Row, Any | None]:
    """Ask for a structured answer, and once more if it does not fit.

    Args:
        backend: What answers.
        prompts: What is asked.
        step: `describe` or `questions`.
        row: For which row.
        answer_type: What the answer has to be.

    Returns:
        The row with what it took, and the answer; None when there is none, which the row then says.
    """
    prompt = prompts.of(step, row.kind)
    row = replace(row, prompt_hashes=row.prompt_hashes | {step: prompt.signature})
    messages, fault = prompts.fill(prompt, row), ""
    for attempt in range(2):
        name = step if attempt == 0 else f"{step}.repair"
        seed = seed_of(row.id, step, attempt)
        row = replace(row, seeds=row.seeds | {name: seed})
        request = TextRequest(messages, seed, answer_type.__name__, answer_type.model_json_schema())
        try:
            reply = await backend.complete(request)
        except RequestError as error:
            return replace(row, attempts=row.attempts + error.attempts).failed(f"{step}: {error}"), None
        row = replace(
            row,
            attempts=row.attempts + reply.attempts,
            models=row.models | {step: reply.model},
            finish_reason=reply.finish_reason,
            input_tokens=row.input_tokens + reply.input_tokens,
            output_tokens=row.output_tokens + reply.output_tokens,
        )
        try:
            return row, parse(reply.text, answer_type)
        except AnswerError as error:
            fault = f"{error} (cut off at the token limit)" if reply.finish_reason == "length" else str(error)
            messages = _with_repair(messages, reply.text, prompts.repair(fault))
    return row.rejected(f"{step}: {fault}"), None


def _with_repair(messages: Messages, text: str, repair: str) -> Messages:
    """The conversation with the faulty answer and the request to repair it; of an empty answer, as it was."""
    return (*messages, ("assistant", text), ("user", repair)) if text.strip() else messages
