"""From logits to the next token: greedy or sampled, and how likely it was.

Each answer draws from a generator of its own, so that it does not depend on its neighbours in the batch. Knows
numbers; knows no text.
"""

from collections.abc import Sequence

import torch

from fusionvl.engine.generation_request import SamplingSettings


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
        scaled = logits.cpu().double() / self._temperature
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


def log_probabilities(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Log probability of a token by its logits (V,), and the `top` most likely tokens with theirs."""
    logprobs = logits.float().log_softmax(-1)
    values, tokens = logprobs.topk(min(top, logprobs.shape[0]))
    return float(logprobs[token]), list(zip(tokens.tolist(), values.tolist(), strict=True))
