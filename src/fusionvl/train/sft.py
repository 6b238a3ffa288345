"""`FusionSFTTrainer`: TRL's `SFTTrainer` with FUSION's mapping loss; see docs/interoperability.md.

TRL computes its loss from the base model's hidden states and the weight of the output head, and never calls the
forward pass that adds the mapping losses: with the plain `SFTTrainer` they vanish without a word. Needs the extra
`trl`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fusionvl.model import FusionModel

try:
    from trl import SFTTrainer
except ImportError as error:
    raise ImportError("FusionSFTTrainer needs TRL: pip install 'fusionvl[trl]'") from error


class FusionSFTTrainer(SFTTrainer):
    """Supervised fine-tuning of a FUSION with TRL, on `prompt` and `completion`, or on `messages`.

    Arguments as for `SFTTrainer`. The processor goes in as `processing_class`; with `messages` set
    `assistant_only_loss=True` in the `SFTConfig`.

    Raises:
        ValueError: When the loss would also be taken on questions and on the placeholders of images.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not (self.completion_only_loss or self.args.assistant_only_loss):
            raise ValueError(
                "the loss would be taken on questions and image tokens, too: give the dataset columns prompt and "
                "completion, or set assistant_only_loss=True for messages"
            )

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss plus the weighted mapping losses of the same forward pass; both terms are logged."""
        with _mapping_losses(model) as terms:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        text_loss, vision_loss = terms[0]  # TRL runs a second forward pass for some metrics, without gradient
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["text_mapping_loss"].append(text_loss.item())
        metrics["vision_mapping_loss"].append(vision_loss.item())
        mapping_loss = self.model.config.mapping_loss_weight * (text_loss + vision_loss)
        if num_items_in_batch is not None:
            # Trainer leaves the mean over accumulation steps to a loss that knows the number of tokens; this term is
            # a mean over the batch at hand.
            mapping_loss = mapping_loss / self.current_gradient_accumulation_steps
        if return_outputs:
            return result[0] + mapping_loss, result[1]
        return result + mapping_loss


@contextmanager
def _mapping_losses(model: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Within the block every pass of the FUSION inside adds its two mapping losses to the list."""
    # Under PEFT and wrappers of distributed training the model is somewhere inside.
    fusion = next(module for module in model.modules() if isinstance(module, FusionModel))
    terms: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [
        fusion.register_forward_pre_hook(
            lambda _module, args, kwargs: (args, {**kwargs, "with_mapping_losses": True}), with_kwargs=True
        ),
        fusion.register_forward_hook(
            lambda _module, _args, output: terms.append((output.text_mapping_loss, output.vision_mapping_loss))
        ),
    ]
    try:
        yield terms
    finally:
        for hook in hooks:
            hook.remove()
