"""What the training benchmark times: steps of FUSION, of its original-style twin and of transformers' LLaVA.

Batches are made directly as tensors, as in `subjects.py`, each row with an answer to learn. All subjects of one model
share its weights and its optimizer. Knows models, batches and clocks; prints nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from geometry import EarlyGuidance, Geometry, Placement, build_fusion, build_llava
from measure import Time, now
from original_style import original_style, share_weights
from subjects import VIEWS, fusion_prompt, llava_prompt
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fusionvl.model.encoder_attention import ENCODER_ATTENTION
from fusionvl.model.losses import IGNORED

OURS = "ours"
OURS_CHECKPOINTED = "ours, checkpointing"
ORIGINAL = "original-style"
LLAVA_BASE = "LLaVA, base view"
LLAVA_FIVE = "LLaVA, five views"
OF_LLAVA = (LLAVA_BASE, LLAVA_FIVE)

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StepTimes:
    """Times of one training step."""

    forward: Time
    backward: Time
    optimizer: Time

    @property
    def whole(self) -> Time:
        """From batch to updated weights."""
        return self.forward + self.backward + self.optimizer


@contextmanager
def torchs_attention() -> Iterator[None]:
    """Within the block the encoder's attention is torch's in both directions."""
    ours, ENCODER_ATTENTION["sdpa"] = ENCODER_ATTENTION["sdpa"], sdpa_attention_forward
    try:
        yield
    finally:
        ENCODER_ATTENTION["sdpa"] = ours


@dataclass(frozen=True)
class Subject:
    """One way to take a training step.

    Attributes:
        model: What learns; its weights stay in float32.
        optimizer: Of its weights.
        batch: The same for every step.
        compute_dtype: Of matrix products; bfloat16 through autocast.
        setting: Holds during the forward pass.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    batch: Batch
    compute_dtype: torch.dtype
    setting: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def tokens(self) -> int:
        """Positions of the decoder in one step."""
        return self.batch["input_ids"].numel()

    def loss(self) -> torch.Tensor:
        """The training objective, with a graph for the backward pass."""
        mixed = self.compute_dtype != torch.float32
        with self.setting(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=mixed):
            return self.model(**self.batch, use_cache=False).loss

    def step(self) -> StepTimes:
        """Forward, backward, update; each timed."""
        device = self.model.device
        self.model.train()
        started = now(device)
        loss = self.loss()
        forward = now(device)
        loss.backward()
        backward = now(device)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepTimes(forward - started, backward - forward, now(device) - backward)

    def loss_and_gradient(self) -> tuple[float, torch.Tensor]:
        """Of one batch, the gradient of all weights as one vector; the weights stay."""
        loss = self.loss()
        loss.backward()
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        self.optimizer.zero_grad()
        return float(loss.detach()), whole


def fusion_subjects(
    geometry: Geometry, guidance: EarlyGuidance, place: Placement, rows: int, answer_tokens: int
) -> dict[str, Subject]:
    """Steps of FUSION in our procedure, with and without checkpointing, and in the original-style procedure."""
    model = build_fusion(geometry, guidance, in_float32(place))
    optimizer = optimizer_of(model)
    prompts = [fusion_prompt(geometry, in_float32(place), turns=1, seed=row) for row in range(rows)]
    batch = with_answers(prompts, geometry, answer_tokens)

    twins = {OURS: model, OURS_CHECKPOINTED: checkpointed(model), ORIGINAL: original_style(model)}
    return {name: Subject(twin, optimizer, batch, place.dtype) for name, twin in twins.items()}


def llava_subjects(geometry: Geometry, place: Placement, rows: int, answer_tokens: int) -> dict[str, Subject]:
    """Steps of transformers' LLaVA on one view an image or on as many views as FUSION has."""
    model = build_llava(geometry, in_float32(place))
    optimizer = optimizer_of(model)
    base, five = (
        with_answers([llava_prompt(geometry, in_float32(place), views)] * rows, geometry, answer_tokens)
        for views in (1, VIEWS)
    )
    return {
        LLAVA_BASE: Subject(model, optimizer, base, place.dtype),
        LLAVA_FIVE: Subject(model, optimizer, five, place.dtype),
    }


def in_float32(place: Placement) -> Placement:
    """Weights and pixels as they are kept in training."""
    return Placement(place.device, torch.float32, place.attention)


def optimizer_of(model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW as in training, so slow that the weights hardly move while they are timed."""
    return torch.optim.AdamW(model.parameters(), lr=1e-8)


def checkpointed(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights under gradient checkpointing."""
    twin = share_weights(model)
    twin.activation_checkpointing_enable()
    return twin


def with_answers(prompts: list[Batch], geometry: Geometry, answer_tokens: int) -> Batch:
    """One batch of all prompts, each followed by an answer that is labelled."""
    batch = {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0]}
    ids = batch["input_ids"]
    generator = torch.Generator().manual_seed(len(prompts))
    answers = torch.randint(3, geometry.vocabulary - 1, (len(ids), answer_tokens), generator=generator).to(ids.device)
    batch["input_ids"] = torch.cat([ids, answers], dim=1)
    batch["labels"] = torch.cat([torch.full_like(ids, IGNORED), answers], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    if "mm_token_type_ids" in batch:
        batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(answers)], dim=1)
    return batch
