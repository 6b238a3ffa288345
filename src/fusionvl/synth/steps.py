"""What a row goes through: describe, draw, ask. Each step says by itself whether a row still needs it.

An answer of a language model that does not fit is sent back once, with what is wrong with it; the second one that does
not fit rejects the row. Knows no backend but by its client, and no files.
"""

from dataclasses import replace
from typing import Any, Protocol

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.kinds.written import AnswerError, parse
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.rows import Row, seed_of
from fusionvl.synth.shards import Spend
from fusionvl.synth.text_client import Message, Price, RequestError, TextClient, TextReply, TextRequest, message


class Step(Protocol):
    """One step of making a row.

    Whatever goes wrong with one row is said in the row it returns (`Row.failed`, `Row.rejected`). It raises only what
    concerns every row: a ValueError for wrong settings or credentials, or for a disk that is full.
    """

    def is_done(self, row: Row) -> bool:
        """Whether the row has what this step brings."""

    async def run(self, row: Row, shard: int) -> Row:
        """Carry out the step for a row of a shard."""

    def close(self) -> None:
        """Give back connections and processes; the step may not be used after that."""


class _AskingStep:
    """A step that a language model carries out.

    Args:
        client: Asks it.
        prompts: What it is told.
        price: Of its tokens.
        spend: Is told of tokens, and what they cost.
    """

    def __init__(self, client: TextClient, prompts: Prompts, price: Price, spend: Spend) -> None:
        self._client = client
        self._prompts = prompts
        self._price = price
        self._spend = spend

    def close(self) -> None:
        """Give the client back."""
        self._client.close()

    async def _ask(self, row: Row, step: str, answer_type: Any) -> tuple[Row, Any | None]:
        """Ask for a structured answer, and once more if it does not fit.

        Returns:
            The row with what it took, and the answer; None when there is none, which the row then says.
        """
        prompt = self._prompts.of(step, row.kind)
        row = replace(row, prompt_hashes=row.prompt_hashes | {step: prompt.signature})
        messages = tuple(message(role, text) for role, text in self._prompts.fill(prompt, row))
        fault = ""
        for attempt in range(2):
            name = step if attempt == 0 else f"{step}.repair"
            seed = seed_of(row.id, step, attempt)
            row = replace(row, seeds=row.seeds | {name: seed})
            request = TextRequest(messages, seed, answer_type.model_json_schema(), answer_type.__name__)
            try:
                reply = await self._client.complete(request)
            except RequestError as error:
                return replace(row, attempts=row.attempts + error.attempts).failed(f"{step}: {error}"), None
            read, written = reply.input_tokens, reply.output_tokens
            self._spend(read + written, (read * self._price.input + written * self._price.output) / 1e6)
            row = _with_reply(row, step, reply)
            try:
                return row, parse(reply.text, answer_type)
            except AnswerError as error:
                fault = f"{error} (cut off at the token limit)" if reply.finish_reason == "length" else str(error)
                messages = _with_repair(messages, reply.text, self._prompts.repair(fault))
        return row.rejected(f"{step}: {fault}"), None


class DescribeStep(_AskingStep):
    """Brings the description of what a caption may stand for."""

    def is_done(self, row: Row) -> bool:
        """Whether the row has a description."""
        return bool(row.description)

    async def run(self, row: Row, shard: int) -> Row:
        """Have a row's caption described."""
        row, answer = await self._ask(row, "describe", KINDS[row.kind].described)
        return row if answer is None else replace(row, description=answer.as_text())


class QuestionStep(_AskingStep):
    """Brings questions and answers about what a description says."""

    def is_done(self, row: Row) -> bool:
        """Whether the row has questions."""
        return bool(row.turns)

    async def run(self, row: Row, shard: int) -> Row:
        """Have questions asked about a row's description."""
        row, answer = await self._ask(row, "questions", KINDS[row.kind].asked)
        return row if answer is None else replace(row, turns=answer.as_turns())


def _with_reply(row: Row, step: str, reply: TextReply) -> Row:
    return replace(
        row,
        attempts=row.attempts + reply.attempts,
        models=row.models | {step: reply.model},
        finish_reason=reply.finish_reason,
        input_tokens=row.input_tokens + reply.input_tokens,
        output_tokens=row.output_tokens + reply.output_tokens,
    )


def _with_repair(messages: tuple[Message, ...], text: str, repair: str) -> tuple[Message, ...]:
    """The conversation with the faulty answer and the request to repair it; of an empty answer, as it was."""
    return (*messages, message("assistant", text), message("user", repair)) if text.strip() else messages
