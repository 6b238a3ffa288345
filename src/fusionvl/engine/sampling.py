"""How answers are sampled: the way from logits to the next tokens, and to their log probabilities.

Everything stays on the device of the logits, all answers at once; a whole vocabulary is sorted only for a nucleus of
many thousand tokens. Each answer draws from a generator of its own, so that it depends neither on its neighbours nor
on global random state. Knows numbers; knows no text.

Shapes: N answers, V tokens of the vocabulary.
"""

from collections.abc import Sequence

import torch

from fusionvl.engine.events import SamplingSettings

FIRST_CANDIDATES = 256  # of the most likely tokens: the nucleus of most distributions lies among them
WIDENING = 16  # times as many when it does not

LogProbabilities = tuple[float, list[tuple[int, float]]]
"""Of a token, and of the most likely tokens: ids with theirs."""


class Sampler:
    """Chooses the tokens of the answers to one conversation.

    Args:
        settings: `temperature`, `top_p`, `seed` and `n` are read.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self._temperature = settings.temperature
        self._top_p = settings.top_p
        seed = torch.Generator().seed() if settings.seed is None else settings.seed
        # On the CPU: a seed means the same on every device.
        self._generators = [torch.Generator().manual_seed((seed + index) % 2**63) for index in range(settings.n)]

    def choose(self, logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
        """Choose the next tokens (N,).

        Args:
            logits: (N, V), of float32.
            answers: Whose logits they are.
        """
        if self._temperature == 0:
            return logits.argmax(-1)
        # Below the least temperature that float32 holds, all but the maximum become minus infinity all the same.
        temperature = max(self._temperature, torch.finfo(torch.float32).tiny)
        probabilities = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
        uniform = torch.cat([torch.rand(1, generator=self._generators[answer]) for answer in answers])
        shares = (1 - uniform).to(logits.device)  # above 0 and at most 1
        if self._top_p == 1:
            cumulated = probabilities.cumsum(-1)
            return _reached(cumulated, shares * cumulated[:, -1])
        return _from_nucleus(probabilities, self._top_p, shares, FIRST_CANDIDATES)


def log_probabilities(logits: torch.Tensor, tokens: torch.Tensor, top: int) -> list[LogProbabilities]:
    """How likely the chosen tokens were, each with the most likely ones.

    Args:
        logits: (N, V).
        tokens: (N,), chosen.
        top: How many of the most likely tokens are wanted beside each.
    """
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(top, logits.shape[1]))
    return [
        (value, list(zip(*others, strict=True)))
        for value, *others in zip(own, ids.tolist(), values.tolist(), strict=True)
    ]


def _from_nucleus(probabilities: torch.Tensor, top_p: float, shares: torch.Tensor, candidates: int) -> torch.Tensor:
    """Draw from the fewest most likely tokens that hold `top_p` together, looked for among so many candidates."""
    vocabulary = probabilities.shape[1]
    if candidates * WIDENING > vocabulary:  # so many most likely ones are dearer than the whole order
        values, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    else:
        values, tokens = probabilities.topk(candidates)
    cumulated = values.cumsum(-1)
    held = cumulated.gather(1, _reached(cumulated, torch.full_like(shares, top_p))[:, None])[:, 0]
    chosen = tokens.gather(1, _reached(cumulated, shares * held)[:, None])[:, 0]
    is_wider = cumulated[:, -1] < top_p
    if values.shape[1] < vocabulary and bool(is_wider.any()):
        # Only the rows that need it, so that no row depends on its neighbours.
        chosen[is_wider] = _from_nucleus(probabilities[is_wider], top_p, shares[is_wider], candidates * WIDENING)
    return chosen


def _reached(cumulated: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """The first place in each row (N, V) where its sum (N,) is reached, which adds something to it; else the last."""
    return torch.searchsorted(cumulated, sums[:, None])[:, 0].clamp(max=cumulated.shape[1] - 1)
