"""The starting point of a run: a model and its processor, from scratch, from parts or from a checkpoint.

Knows recipes; what each kind of start takes is in `scratch.py` and `parts.py`.
"""

import torch

from fusionvl.data.extras import locate
from fusionvl.engine.loading import load_model, load_processor
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor
from fusionvl.processing.released import DEFAULT_NUM_LATENTS
from fusionvl.train.config import ModelFromParts, ModelFromScratch, Recipe
from fusionvl.train.dataset import texts_of
from fusionvl.train.parts import build_from_parts
from fusionvl.train.scratch import build_from_scratch


def starting_point(recipe: Recipe) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """Build or load what the first stage starts from, in float32.

    Raises:
        ValueError: When it cannot be built or loaded; with the reason.
    """
    spec = recipe.model
    if isinstance(spec, ModelFromScratch):
        data = [spec.tokenizer_data] if spec.tokenizer_data else [stage.data for stage in recipe.stages]
        texts = texts_of(data, recipe.seed)
        return build_from_scratch(spec, texts, _default_num_latents(recipe), recipe.seed)
    if isinstance(spec, ModelFromParts):
        return build_from_parts(spec, _default_num_latents(recipe), recipe.seed)
    checkpoint = locate(spec.checkpoint)
    return load_model(checkpoint, torch.float32), load_processor(checkpoint)


def _default_num_latents(recipe: Recipe) -> int:
    """What the processor uses unless told otherwise: the paper's usual count where the last stage trains it."""
    counts = recipe.stages[-1].num_latents
    return DEFAULT_NUM_LATENTS if DEFAULT_NUM_LATENTS in counts else max(counts)
