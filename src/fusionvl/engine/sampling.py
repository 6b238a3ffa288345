"""From logits to the next token: greedy or sampled, and how likely it was.

Each answer draws from a generator of its own, so that it does not depend on its neighbours in the batch. Knows
numbers; knows no text.
"""

from collections.abc import Sequence

import torch

from fusionvl.engine.generation_request import SamplingSettings

LogProbabilities = tuple[float, list[tuple[int, float]]]
"""Of a token, and of the most likely tokens: ids with theirs."""


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        settings: `temperature`, `top_p` and `seed` are read.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self.is_greedy = settings.temperature == 0
        self._temperature = settings.temperature
        self._top_p = settings.top_p
        self._generator = torch.Generator()  # on the CPU: a seed means the same on every device
        if settings.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(settings.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Choose a token by its logits (V,)."""
        if self.is_greedy:
            return int(logits.argmax())
        logits = logits.cpu().double()
        # A tiny temperature makes infinities: below the maximum they are minus infinity, which a softmax can take.
        scaled = (logits - logits.max()) / self._temperature
        probabilities, tokens = scaled.softmax(-1).sort(descending=True, stable=True)
        cumulated = probabilities.cumsum(-1)
        # The nucleus is the fewest most likely tokens that hold top_p together, and never fewer than one.
        last = min(int(torch.searchsorted(cumulated, self._top_p)), cumulated.shape[0] - 1)
        drawn = torch.rand(1, generator=self._generator, dtype=torch.float64) * cumulated[last]
        return int(tokens[min(int(torch.searchsorted(cumulated, drawn, right=True)), last)])


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Choose a token for each row of logits (B, V); greedy rows all at once."""
    chosen = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.is_greedy:
            chosen[row] = sampler.choose(logits[row])
    return chosen


def log_probabilities(
    logits: torch.Tensor, tokens: Sequence[int], tops: Sequence[int | None]
) -> list[LogProbabilities | None]:
    """How likely the chosen tokens were, all rows at once.

    Args:
        logits: (B, V).
        tokens: The token chosen in each row.
        tops: How many of the most likely tokens are wanted beside it; None: the row is not asked for at all.

    Returns:
        For each row the token's log probability, and the most likely tokens with theirs.
    """
    asked = [row for row, top in enumerate(tops) if top is not None]
    found: list[LogProbabilities | None] = [None] * len(tops)
    if not asked:
        return found
    logprobs = logits[asked].float().log_softmax(-1)
    chosen = torch.tensor([tokens[row] for row in asked], device=logits.device)
    own = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(max(top or 0 for top in tops), logits.shape[1]))
    for row, value, *others in zip(asked, own, ids.tolist(), values.tolist(), strict=True):
        found[row] = value, list(zip(*others, strict=True))[: tops[row]]
    return found
