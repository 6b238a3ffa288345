"""What the inference benchmark times: questions to FUSION, to its original-style twin and to transformers' LLaVA.

Prompts are made directly as tensors, shaped like a chat of short questions; ids and pixels are random. Knows models
and prompts; prints nothing.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from geometry import EarlyGuidance, Geometry, Placement, build_fusion, build_llava
from measure import MethodClock, Stages, TokenClock, now
from original_style import original_style, with_early_guidance
from transformers import PreTrainedModel

from fusionvl import FusionForConditionalGeneration
from fusionvl.model.token_layout import IMAGE, LATENT, QUESTION_END, TEXT

GUIDE_TOKENS_PER_TURN = 16
TEXT_TOKENS = 60  # of a chat of one question: system prompt, headers and the question
ANSWER_TOKENS = 12  # of an earlier turn
TURNS = 8
VIEWS = 5

FUSION_METHODS = ("encode_images", "get_global_features", "get_patch_states")
LLAVA_METHODS = ("get_image_features",)

ORIGINAL = "original-style, any question"
ORIGINAL_TURN = f"original-style, turn {TURNS}"
LLAVA_BASE = "LLaVA, base view"
LLAVA_FIVE = "LLaVA, five views"
MODES: tuple[EarlyGuidance, ...] = ("released", "masked")

Inputs = dict[str, Any]


def first(mode: EarlyGuidance) -> str:
    """Name of a first question about an image."""
    return f"{mode}, first question"


def second(mode: EarlyGuidance) -> str:
    """Name of a second question about the same image."""
    return f"{mode}, second question"


def later_turn(mode: EarlyGuidance) -> str:
    """Name of a later turn of a conversation about an image."""
    return f"{mode}, turn {TURNS}"


@dataclass(frozen=True)
class Subject:
    """One kind of question to one model.

    Attributes:
        model: What answers.
        prepare: Does what earlier questions have done already; not timed.
        question: Makes the inputs of `generate`; what it computes is timed.
        vision_methods: Methods of `model.model` that encode images.
    """

    model: PreTrainedModel
    prepare: Callable[[], object]
    question: Callable[[], Inputs]
    vision_methods: Sequence[str]


@torch.inference_mode()
def ask(subject: Subject, new_tokens: int) -> Stages:
    """Ask once, greedily, and time the stages of the answer."""
    subject.prepare()
    device = subject.model.device
    vision, tokens = MethodClock(device), TokenClock(device)
    with vision.watching(subject.model.model, subject.vision_methods):
        start = now(device)
        subject.model.generate(**subject.question(), streamer=tokens, max_new_tokens=new_tokens, do_sample=False)
    first, *further = tokens.times
    token = (further[-1] - first) / len(further) if further else None
    return Stages(vision.time, first - start, token)


def fusion_subjects(geometry: Geometry, ours: EarlyGuidance, place: Placement) -> dict[str, Subject]:
    """Questions to FUSION under both early guidances, and to the original-style twin of `ours`; one set of weights."""
    model = build_fusion(geometry, ours, place)
    one_turn = fusion_prompt(geometry, place, turns=1, seed=0)
    other_turn = fusion_prompt(geometry, place, turns=1, seed=1)
    conversation = fusion_prompt(geometry, place, turns=TURNS, seed=2)
    subjects = {}
    for mode in MODES:
        twin = model if mode == ours else with_early_guidance(model, mode)
        known = functools.cache(functools.partial(image_features, twin, one_turn))
        subjects[first(mode)] = asked_anew(twin, one_turn)
        subjects[second(mode)] = asked_again(twin, other_turn, known)
        if mode == ours:
            subjects[later_turn(mode)] = asked_again(twin, conversation, known)
    original = original_style(model)
    subjects[ORIGINAL] = Subject(original, _nothing, lambda: one_turn, FUSION_METHODS)
    subjects[ORIGINAL_TURN] = Subject(original, _nothing, lambda: conversation, FUSION_METHODS)
    return subjects


def llava_subjects(geometry: Geometry, place: Placement) -> dict[str, Subject]:
    """Questions to transformers' LLaVA, which encodes its views for each of them."""
    model = build_llava(geometry, place)
    base, five = llava_prompt(geometry, place, views=1), llava_prompt(geometry, place, views=VIEWS)
    return {
        LLAVA_BASE: Subject(model, _nothing, lambda: base, LLAVA_METHODS),
        LLAVA_FIVE: Subject(model, _nothing, lambda: five, LLAVA_METHODS),
    }


def named_subjects(
    names: Sequence[str], geometry: Geometry, ours: EarlyGuidance, place: Placement
) -> dict[str, Subject]:
    """The named subjects, all of one model, so that no other model is in memory."""
    of_llava = names[0] in (LLAVA_BASE, LLAVA_FIVE)
    known = llava_subjects(geometry, place) if of_llava else fusion_subjects(geometry, ours, place)
    return {name: known[name] for name in names}


def asked_anew(model: FusionForConditionalGeneration, prompt: Inputs) -> Subject:
    """A first question: features of the image are computed on the way, as `FusionEngine` does."""
    return Subject(model, _nothing, lambda: with_features(prompt, image_features(model, prompt)), FUSION_METHODS)


def asked_again(model: FusionForConditionalGeneration, prompt: Inputs, known: Callable[[], Inputs]) -> Subject:
    """A further question: `FusionEngine` has the features of the image in its cache."""
    return Subject(model, known, lambda: with_features(prompt, known()), FUSION_METHODS)


def image_features(model: FusionForConditionalGeneration, prompt: Inputs) -> Inputs:
    """What the model computes from the image alone."""
    features: Inputs = {"global_features": model.get_global_features(prompt["pixel_values"])}
    if model.config.early_guidance == "masked":
        features["patch_states"] = model.get_patch_states(prompt["pixel_values"])
    return features


def with_features(prompt: Inputs, features: Inputs) -> Inputs:
    """The prompt with known features in place of the tiles."""
    return {**prompt, **features, "pixel_values": prompt["pixel_values"][:, -1:]}


def _nothing() -> None:
    """A question that finds nothing prepared."""


def fusion_prompt(geometry: Geometry, place: Placement, turns: int, seed: int) -> Inputs:
    """What the processor makes of a conversation about one image; the pixels are the same for every seed."""
    runs = [(TEXT, 24), (IMAGE, geometry.patches), (TEXT, 2)]
    for turn in range(turns):
        runs += [(LATENT, geometry.num_latents), (TEXT, TEXT_TOKENS - 27), (QUESTION_END, 1)]
        if turn < turns - 1:
            runs += [(TEXT, ANSWER_TOKENS)]
    types = torch.tensor([kind for kind, length in runs for _ in range(length)])[None]
    generator = torch.Generator().manual_seed(seed)
    guide = _random_ids(geometry, GUIDE_TOKENS_PER_TURN * turns, generator)
    prompt = {
        "input_ids": _random_ids(geometry, types.shape[1], generator),
        "attention_mask": torch.ones_like(types),
        "mm_token_type_ids": types,
        "guide_input_ids": guide,
        "guide_attention_mask": torch.ones_like(guide),
    }
    return {
        **{name: tensor.to(place.device) for name, tensor in prompt.items()},
        "pixel_values": _random_views(geometry, place, VIEWS)[None],
    }


def llava_prompt(geometry: Geometry, place: Placement, views: int) -> Inputs:
    """The same chat for LLaVA: each view's patches stand in the prompt."""
    image_id, generator = geometry.vocabulary - 1, torch.Generator().manual_seed(0)
    text = _random_ids(geometry, TEXT_TOKENS, generator)
    image = torch.full((1, views * geometry.patches), image_id)
    ids = torch.cat([text[:, :24], image, text[:, 24:]], dim=1).to(place.device)
    pixel_values = _random_views(geometry, place, views)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixel_values}


def _random_ids(geometry: Geometry, length: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(3, geometry.vocabulary - 1, (1, length), generator=generator)  # the last one is LLaVA's image


def _random_views(geometry: Geometry, place: Placement, views: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((views, 3, geometry.image_size, geometry.image_size), generator=generator) * 2 - 1
    return pixels.to(place.device, place.dtype)
