"""FUSION in vLLM: our encoder and interaction layers around a decoder of vLLM's own.

Quantisation, tensor parallelism and graphs of the decoder are vLLM's; encoder, mappings and interaction layers are
those of `fusionvl.model`, a copy on each device. Knows vLLM's calls and their order; knows no prompts as text.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors
from vllm.utils.cache import LRUCache

from fusionvl.model.configuration import FusionConfig
from fusionvl.model.image_encoding import ImageEncodingMixin, ImageFeatures
from fusionvl.model.interaction import InteractionContext, InteractionLayer
from fusionvl.model.projectors import MappingMLP
from fusionvl.model.released import our_key
from fusionvl.model.vision_encoder import GuidedVisionEncoder
from fusionvl.vllm.image_rows import pack_rows, place_rows
from fusionvl.vllm.processor import FusionDummyInputs, FusionMultiModalProcessor, FusionProcessingInfo
from fusionvl.vllm.required_settings import DECODERS

CACHE_BYTES = 2**28
"""Bound on what is kept of pictures for further questions about them."""
PATCHES_AT_ONCE = 4096
"""Bound on what is encoded together: one large picture, which vLLM measures memory with, or several small ones."""

_UNUSED = re.compile("|".join(GuidedVisionEncoder._keys_to_ignore_on_load_unexpected))


@MULTIMODAL_REGISTRY.register_processor(
    FusionMultiModalProcessor, info=FusionProcessingInfo, dummy_inputs=FusionDummyInputs
)
class FusionInVllm(nn.Module, ImageEncodingMixin, SupportsMultiModal):
    """Answers questions about pictures inside vLLM."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
            "model.": "",
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: FusionConfig = vllm_config.model_config.hf_config
        self.config = config
        vision_width, width = config.vision_config.hidden_size, config.text_config.hidden_size
        with self._mark_tower_model(vllm_config, "image"):  # type: ignore[operator]
            self.vision_tower = GuidedVisionEncoder(config.vision_config, config.early_guidance)
            self.vision_to_text = MappingMLP(3 * vision_width, width)
            self.text_to_vision = MappingMLP(width, vision_width)
        self.interaction_layers = nn.ModuleList(
            [InteractionLayer(config) for _ in range(config.num_interaction_layers)]
        )
        config.text_config.tie_word_embeddings = config.tie_word_embeddings
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=[DECODERS[config.text_config.model_type]],
            )
        self._features: LRUCache[bytes, ImageFeatures] = LRUCache(CACHE_BYTES, getsizeof=lambda kept: kept.num_bytes)
        # Set by `embed_input_ids`, taken by the `forward` that vLLM calls next.
        self._context: InteractionContext | None = None

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """None: our renderer puts the picture in its place."""
        return None

    def get_input_embeddings(self) -> Any:
        """The decoder's, which guides are looked up in."""
        return self.language_model.model.embed_tokens

    def embed_multimodal(self, **kwargs: Any) -> list[torch.Tensor]:
        """Encode pictures under the guidance of their questions; see `FusionMultiModalProcessor` for the arguments.

        Returns:
            Rows of each picture (`image_rows`).
        """
        pictures = [name.numpy().tobytes() for name in kwargs["picture"]]
        features = self._features_of(pictures, kwargs["pixel_values"])
        items = list(
            zip(kwargs["pixel_values"], kwargs["guide_input_ids"], kwargs["row_types"], features, strict=True)
        )
        at_once = max(1, PATCHES_AT_ONCE // self.config.patch_grid**2)
        return [
            rows for first in range(0, len(items), at_once) for rows in self._rows_of(items[first : first + at_once])
        ]

    def _rows_of(
        self, items: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, ImageFeatures]]
    ) -> list[torch.Tensor]:
        """Rows of a few pictures with their questions, encoded together."""
        pixels, guides, row_types, features = zip(*items, strict=True)
        shared = ImageFeatures.cat(features)
        images = self.encode_images(
            torch.stack([views[-1:] for views in pixels]),
            pad_sequence(list(guides), batch_first=True),
            pad_sequence([torch.ones_like(guide) for guide in guides], batch_first=True) if len(items) > 1 else None,
            shared.global_features,
            shared.patch_states,
            with_global_map=shared.global_features is not None,
        )
        maps = [None] * len(items) if images.global_map is None else images.global_map
        return [
            pack_rows(types, tokens, global_map, self.config.window_size)
            for types, tokens, global_map in zip(row_types, self.image_tokens(images), maps, strict=True)
        ]

    def _features_of(self, pictures: list[bytes], pixel_values: Sequence[torch.Tensor]) -> list[ImageFeatures]:
        """What does not depend on a question, remembered or computed, pictures that are not known yet together."""
        found = {picture: self._features[picture] for picture in set(pictures) if picture in self._features}
        new = {picture: pixels for picture, pixels in zip(pictures, pixel_values, strict=True) if picture not in found}
        at_once = max(1, PATCHES_AT_ONCE // (4 * self.config.patch_grid**2))
        for first in range(0, len(new), at_once):
            names = list(new)[first : first + at_once]
            together = self.shared_features(torch.stack([new[name] for name in names]))
            for index, name in enumerate(names):
                found[name] = together.select(index)
                if found[name].num_bytes <= CACHE_BYTES:
                    self._features[name] = found[name]
        return [found[picture] for picture in pictures]

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings of a batch (S, D), image and initial latent tokens in their places."""
        embeddings = self.language_model.embed_input_ids(input_ids)
        self._context = None
        if multimodal_embeddings is None or is_multimodal is None or not len(multimodal_embeddings):
            return embeddings
        positions = is_multimodal.nonzero().flatten().to(embeddings.device)
        placed = place_rows(list(multimodal_embeddings), positions, embeddings.shape[-1], self.config.window_size)
        self._context = placed.context
        return embeddings.index_copy(0, placed.positions, placed.embeddings.to(embeddings))

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states of a batch (S, D): with prompts about pictures layer by layer, else as vLLM compiles it."""
        context, self._context = self._context, None
        if context is None:
            return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)
        assert inputs_embeds is not None
        return self._forward_with_interactions(positions, inputs_embeds, context)

    def _forward_with_interactions(
        self, positions: torch.Tensor, hidden: torch.Tensor, context: InteractionContext
    ) -> torch.Tensor:
        """The decoder's own layers, which hand on an output and the residual it is yet to be added to."""
        decoder = self.language_model.model
        interactions = dict(zip(self.config.interaction_layer_indices, self.interaction_layers, strict=True))
        residual: torch.Tensor | None = None
        for index, layer in enumerate(decoder.layers):
            hidden, residual = layer(positions, hidden, residual)
            if index in interactions:
                state = hidden if residual is None else hidden + residual
                hidden, residual = interactions[index](state[None], context)[0], None
        if residual is None:
            return decoder.norm(hidden)
        return decoder.norm(hidden, residual)[0]

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits (S, V)."""
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint in our layout or the released one."""
        renamed = ((our_key(name), tensor) for name, tensor in weights if not _UNUSED.search(name))
        return AutoWeightsLoader(self).load_weights(renamed, mapper=self.hf_to_vllm_mapper)
