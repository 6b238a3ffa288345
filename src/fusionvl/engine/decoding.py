"""Token after token: the decoding loop of the answers to one conversation, told in events.

The prompt runs once, whatever the number of answers; an answer that has ended leaves the batch. What transformers'
`generate` prepares (processors of logits, criteria of stopping, the cache) is used as it is; only its loop is ours, so
that whoever asks is told every token as it comes, and stops the work by no longer asking. Knows a model and tokens;
knows no images.

Shapes: N running answers, S tokens so far, V tokens of the vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from fusionvl.engine.emission import Emission, TokenBytes
from fusionvl.engine.events import Event, Finish, Piece, TokenLogprob
from fusionvl.engine.sampling import LogProbabilities, log_probabilities
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.model_outputs import CACHE

Choose = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""From logits (N, V), and which answers they are of, to the next tokens (N,)."""


class RunningAnswer:
    """One answer while it is generated.

    Args:
        index: Which of the answers to the conversation.
        stop: Texts that end it.
        token_bytes: Of the model's tokenizer.
        ends: Ids of tokens that end the model's turn.
        prompt_tokens: Tokens of the prompt.

    Attributes:
        is_over: Whether its last event was told.
    """

    def __init__(
        self, index: int, stop: Sequence[str], token_bytes: TokenBytes, ends: Collection[int], prompt_tokens: int
    ) -> None:
        self.index = index
        self.is_over = False
        self._emission = Emission(token_bytes, stop)
        self._token_bytes = token_bytes
        self._ends = ends
        self._prompt_tokens = prompt_tokens
        self._answer_tokens = 0

    def take(self, token: int, likely: LogProbabilities | None, is_last: bool) -> Iterator[Event]:
        """The events that the next token makes."""
        self._answer_tokens += 1
        if token in self._ends:
            yield from self._finish("stop")
            return
        text = self._emission.push(token)
        logprobs = () if likely is None else (self._logprob(token, *likely),)
        if text or logprobs:
            yield Piece(self.index, text, logprobs)
        if self._emission.is_stopped:
            yield from self._finish("stop")
        elif is_last:
            yield from self._finish("length")

    def _finish(self, reason: Literal["stop", "length"]) -> Iterator[Event]:
        self.is_over = True
        if text := self._emission.finish():
            yield Piece(self.index, text)
        yield Finish(self.index, reason, self._prompt_tokens, self._answer_tokens)

    def _logprob(self, token: int, logprob: float, likely: Sequence[tuple[int, float]]) -> TokenLogprob:
        return TokenLogprob(
            *self._text_and_bytes(token),
            logprob,
            tuple((*self._text_and_bytes(other), value) for other, value in likely),
        )

    def _text_and_bytes(self, token: int) -> tuple[str, bytes]:
        content = self._token_bytes.of(token)
        return content.decode(errors="replace"), content


@torch.inference_mode()
def decode(
    model: FusionForConditionalGeneration,
    input_ids: torch.Tensor,
    *,
    answers: Sequence[RunningAnswer],
    choose: Choose | None,
    top_logprobs: int | None,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Iterator[Event]:
    """Generate answers to one prompt, as the `custom_generate` of `generate`.

    Args:
        model: That answers.
        input_ids: (1, S).
        answers: Fresh.
        choose: Chooses their tokens; None: as `generate` does.
        top_logprobs: How many alternatives to report for each token; None reports no log probabilities.
        logits_processor: From `generate`, as the arguments that follow.
        stopping_criteria: Ends answers.
        generation_config: Says whether to sample, without `choose`.
        **inputs: Of the prompt's forward pass.
    """
    choose = choose or (_sample if generation_config.do_sample else _most_likely)
    running = list(answers)
    output = model(input_ids=input_ids, **inputs)
    cache = getattr(output, CACHE)
    logits = output.logits[:, -1]
    if len(running) > 1:
        cache.batch_repeat_interleave(len(running))
        input_ids, logits = input_ids.repeat(len(running), 1), logits.repeat(len(running), 1)
    while True:
        logits = logits.to(input_ids.device, torch.float32)
        tokens = choose(logits_processor(input_ids, logits), [answer.index for answer in running])
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        likely = [None] * len(running) if top_logprobs is None else log_probabilities(logits, tokens, top_logprobs)
        is_last = stopping_criteria(input_ids, None).tolist()
        for answer, *news in zip(running, tokens.tolist(), likely, is_last, strict=True):
            yield from answer.take(*news)
        rows = [row for row, answer in enumerate(running) if not answer.is_over]
        if not rows:
            return
        if len(rows) < len(running):
            running, input_ids = [running[row] for row in rows], input_ids[rows]
            cache.batch_select_indices(torch.tensor(rows))
        logits = model(input_ids=input_ids[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]


def _most_likely(scores: torch.Tensor, _: Sequence[int]) -> torch.Tensor:
    return scores.argmax(-1)


def _sample(scores: torch.Tensor, _: Sequence[int]) -> torch.Tensor:
    return torch.multinomial(scores.softmax(-1), 1)[:, 0]
