"""What FUSION changes about transformers' generation: images belong to the prefill, placeholders to nobody.

Greedy search, sampling, beams, streamers and stopping are transformers' own. Knows ids and caches, not images.
"""

from typing import Any

import torch
from transformers import GenerationMixin
from transformers.utils import ModelOutput

from fusionvl.model.token_layout import TokenLayout
from fusionvl.model.vision_encoder import PatchStates

PREFILL_ONLY = (
    "token_layout",
    "mm_token_type_ids",
    "pixel_values",
    "guide_input_ids",
    "guide_attention_mask",
    "global_features",
    "patch_states",
)

ALIGNED = ("attention_mask", "mm_token_type_ids", "position_ids")  # with input_ids


def _pad_left(prompts: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Move every row's padding to its left, in the ids and in all that is aligned with them."""
    order = kwargs["attention_mask"].argsort(dim=1, stable=True)  # padding first, real tokens in their order
    if bool((order[:, 1:] > order[:, :-1]).all()):
        return prompts, kwargs
    aligned = {name: kwargs[name].gather(1, order) for name in ALIGNED if kwargs.get(name) is not None}
    return prompts.gather(1, order), {**kwargs, **aligned}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, (torch.Tensor, TokenLayout)) else value


class FusionGenerationMixin(GenerationMixin):
    """`generate` for a model whose prompt holds placeholder ids that may lie outside the vocabulary."""

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> ModelOutput | torch.Tensor:
        """Generate as `GenerationMixin.generate` does, from the processor's whole output.

        Logits processors and streamers see placeholder ids that lie outside the vocabulary as an ordinary special id;
        the returned sequences hold the prompt as given, its padding moved to the left, because generation goes on
        where rows end. What the processor made may lie on the CPU: then it is checked there, and generation waits for
        the model's device no more than it must.

        Args:
            inputs: (B, S) prompt ids; `input_ids=` is the same.
            **kwargs: The processor's other outputs, `global_features` or `patch_states`, and generation settings.

        Raises:
            ValueError: With `prefill_chunk_size`: latent tokens need their whole question in one prefill.
        """
        settings = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("prefill_chunk_size", settings.prefill_chunk_size) is not None:
            raise ValueError(
                "prefill_chunk_size cannot be used: latent tokens need their whole question in one prefill"
            )
        prompts = kwargs.pop("input_ids", inputs)
        if prompts is None:
            raise ValueError("generate needs input_ids, as made by the processor")
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2:
            prompts, kwargs = _pad_left(prompts, kwargs)
        layout = self.model.read_layout(
            prompts, mask, kwargs.get("mm_token_type_ids"), kwargs.get("guide_attention_mask")
        )
        kwargs = {name: _moved(value, self.device) for name, value in kwargs.items()}
        prompts = prompts.to(self.device)
        foreign = prompts >= self.config.text_config.vocab_size
        output = super().generate(
            prompts.masked_fill(foreign, self._stand_in_id()), token_layout=_moved(layout, self.device), **kwargs
        )
        if "custom_generate" in kwargs:
            return output  # whatever that gives
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        copies = sequences.shape[0] // prompts.shape[0]  # of each row, by beams or num_return_sequences
        sequences[:, : prompts.shape[1]] = prompts.repeat_interleave(copies, dim=0).to(sequences.device)
        return output

    def _stand_in_id(self) -> int:
        """An id that no answer holds, so that penalties on it change nothing."""
        text_config = self.config.text_config
        candidates = (text_config.bos_token_id, text_config.pad_token_id, 0)
        return next(token_id for token_id in candidates if token_id is not None)

    def prepare_inputs_for_generation(
        self, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Pass images, guides and token types to the prefill only: later steps live on the cache."""
        model_inputs = super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in PREFILL_ONLY:
                model_inputs.pop(name, None)
        return model_inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        if expand_size > 1:
            kwargs.pop("token_layout", None)  # of other rows; it is read again
        states = kwargs.get("patch_states")
        if isinstance(states, PatchStates) and expand_size > 1:
            kwargs["patch_states"] = states.repeat_interleave(expand_size)
        return super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
