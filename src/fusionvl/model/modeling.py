"""The FUSION model, read top to bottom like the paper's overview figure.

`FusionModel` joins the parts: guided vision encoding, image and latent tokens in the prompt, interaction layers
between decoder layers. `FusionForConditionalGeneration` adds the output head and the training objective. Knows
tensors as the processor makes them (see `docs/shapes.md`); knows nothing of text, files or templates.

Shapes: B rows, S tokens, N images (at most one a row, in row order), G guide tokens, g patches a side, d vision width,
D decoder width.
"""

import functools
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fusionvl.model.configuration import FusionConfig
from fusionvl.model.generation import FusionGenerationMixin
from fusionvl.model.image_encoding import ImageEncodingMixin, ImageFeatures
from fusionvl.model.interaction import (
    InteractionContext,
    InteractionLayer,
    InteractionRecord,
    ZeroInitialisedLinear,
    pool_latents,
    pool_windows,
)
from fusionvl.model.losses import cosine_mapping_loss, next_token_loss, select_labelled
from fusionvl.model.model_outputs import CACHE, EncodedImages, FusionCausalLMOutput, FusionModelOutput
from fusionvl.model.projectors import MappingMLP
from fusionvl.model.released import ReleasedLoadingMixin
from fusionvl.model.token_layout import IMAGE, LATENT, TokenLayout, read_layout
from fusionvl.model.vision_encoder import GuidedVisionEncoder, PatchStates


class FusionPreTrainedModel(ReleasedLoadingMixin, PreTrainedModel):
    """What both FUSION classes share: configuration, loading and initialisation."""

    config: FusionConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch given; a Trainer averages over accumulation steps
    _skip_keys_device_placement = ("past_key_values", "cache")
    _supports_sdpa = True
    # The encoder's layer sums stay on one device, and so does it.
    _no_split_modules = ("GuidedVisionEncoder", "InteractionLayer")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroInitialisedLinear):
            init.zeros_(module.weight)


class FusionModel(FusionPreTrainedModel, ImageEncodingMixin):
    """FUSION without an output head."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        vision_width, width = config.vision_config.hidden_size, config.text_config.hidden_size
        self.vision_tower = GuidedVisionEncoder(config.vision_config, config.early_guidance)
        self.vision_to_text = MappingMLP(3 * vision_width, width)
        self.text_to_vision = MappingMLP(width, vision_width)
        self.interaction_layers = nn.ModuleList(
            [InteractionLayer(config) for _ in range(config.num_interaction_layers)]
        )
        self.language_model = AutoModel.from_config(config.text_config)
        for index, layer_index in enumerate(config.interaction_layer_indices):
            self.language_model.layers[layer_index].register_forward_hook(
                functools.partial(self._interact, index), with_kwargs=True
            )
        self.post_init()

    def _interact(
        self, index: int, _layer: nn.Module, _args: Any, kwargs: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        """Run after a decoder layer; the context is an argument of the call, so no state stays on the model.

        The interaction layer may lie on another device than the decoder layer.
        """
        context = kwargs.get("interaction_context")
        return None if context is None else self.interaction_layers[index](output, context).to(output.device)

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        guide_input_ids: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Image tokens of N images, guided where a guide is given; transformers' name for it.

        Args:
            pixel_values: (N, 5, 3, H, W).
            guide_input_ids: (N, G), or None: without guidance.
            guide_attention_mask: (N, G), 1 where a guide token is real; None: all are.

        Returns:
            `pooler_output` (N, T, D), what the decoder reads; `last_hidden_state` (N, g * g, D), the features of the
            base view's patches, which differ from it in FUSION-L and with `tile_tokens`.
        """
        images = self.encode_images(
            pixel_values, guide_input_ids, guide_attention_mask, with_global_map=self.config.tile_tokens
        )
        return BaseModelOutputWithPooling(last_hidden_state=images.patches, pooler_output=self.image_tokens(images))

    def mapping_losses(
        self, images: EncodedImages, guide_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Dual-supervised mapping losses (paper, section 3.3): text and vision term, both float32 scalars.

        Text: guide embeddings against the same tokens after text-to-vision, encoder and vision-to-text. Vision: patch
        embeddings against the encoded patches after vision-to-text and text-to-vision.
        """
        detach = self.config.mapping_targets == "detached"
        if images.guide is None or images.guide_embeddings is None:
            text_loss = images.patches.new_zeros((), dtype=torch.float32)
        else:
            text_loss = cosine_mapping_loss(images.guide, images.guide_embeddings, guide_attention_mask, detach)
        reconstructed = self.text_to_vision(images.patches)
        return text_loss, cosine_mapping_loss(reconstructed, images.patch_embeddings, None, detach)

    def read_layout(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
    ) -> TokenLayout | None:
        """Check a batch and find images, latent tokens and question ends in it, from tensors on any device.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S).
            mm_token_type_ids: (B, S); None: all text.
            guide_attention_mask: (N, G).

        Returns:
            The layout; None where all is text.

        Raises:
            ValueError: When the counts of tokens do not match, an id lies outside the vocabulary, or the context is
                too long; with the numbers.
        """
        if input_ids is not None:
            self._check_length(input_ids, attention_mask)
            self._check_vocabulary(input_ids, mm_token_type_ids)
        if mm_token_type_ids is None:
            return None
        return read_layout(mm_token_type_ids, self.config.num_image_tokens, guide_attention_mask)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        guide_input_ids: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        global_features: torch.Tensor | None = None,
        patch_states: PatchStates | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        token_layout: TokenLayout | None = None,
        with_mapping_losses: bool = False,
        blank_image: bool = False,
        interaction_records: list[InteractionRecord] | None = None,
        **kwargs: Any,
    ) -> FusionModelOutput:
        """Run the model on what the processor made (see `docs/shapes.md` for every argument).

        Args:
            input_ids: (B, S); ids at image and latent positions are placeholders and never looked up.
            attention_mask: (B, S).
            mm_token_type_ids: (B, S); None: all text.
            pixel_values: (N, 5, 3, H, W), or the base view alone with `global_features`.
            guide_input_ids: (N, G).
            guide_attention_mask: (N, G).
            global_features: (N, 2g, 2g, D), optional, from `get_global_features`.
            patch_states: Optional, from `get_patch_states`.
            position_ids: (B, S); None: consecutive over the real tokens of each row.
            past_key_values: The decoder's cache.
            cache: The same by its newer name.
            inputs_embeds: (B, S, D) in place of `input_ids`; image and latent positions are written over.
            token_layout: From `read_layout`, on the model's device; None: it is read from `mm_token_type_ids`.
            with_mapping_losses: Whether to compute the mapping losses.
            blank_image: Whether `pixel_values` hold one image that no row is about. It runs through every layer and
                changes nothing, mapping losses included: processes that train together must all run all layers.
            interaction_records: A list to which each interaction layer appends what it did; None: nothing is kept.
            **kwargs: Passed to the decoder (`use_cache`, `output_hidden_states`, ...).

        Raises:
            ValueError: When images, tokens and questions do not match, or the context is too long; with the counts.
        """
        cache = past_key_values if cache is None else cache
        layout = token_layout
        # A single token that nothing is said about is a decoding step, which looks at no value.
        if layout is None and (mm_token_type_ids is not None or (input_ids is not None and input_ids.shape[1] > 1)):
            layout = self.read_layout(input_ids, attention_mask, mm_token_type_ids, guide_attention_mask)
        self._check_images(layout, pixel_values, cache, blank_image)
        if blank_image and layout is not None:
            layout = layout.with_room_for_latents(int(self.config.uses_latents))
        inputs_embeds = self._embeddings(input_ids, inputs_embeds, mm_token_type_ids)
        text_loss = vision_loss = None
        if with_mapping_losses:
            text_loss = vision_loss = inputs_embeds.new_zeros((), dtype=torch.float32)
        context = None
        if layout is not None and pixel_values is not None:
            guide_mask = guide_attention_mask if layout.has_padded_guides else None
            images = self.encode_images(
                pixel_values, guide_input_ids, guide_mask, global_features, patch_states,
                with_global_map=layout.num_latents > 0 or self.config.tile_tokens,
            )  # fmt: skip
            inputs_embeds, context = self._place_images(inputs_embeds, layout, images, interaction_records)
            if with_mapping_losses:
                weight = 0.0 if blank_image else 1.0
                text_loss, vision_loss = (weight * loss for loss in self.mapping_losses(images, guide_mask))
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            interaction_context=context,
            **{CACHE: cache},
            **kwargs,
        )
        return FusionModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **{CACHE: getattr(outputs, CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            text_mapping_loss=text_loss,
            vision_mapping_loss=vision_loss,
        )

    def _embeddings(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        mm_token_type_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """(B, S, D), given or looked up; what stands at image and latent positions is written over later."""
        if inputs_embeds is not None and input_ids is None:
            return inputs_embeds
        if inputs_embeds is not None or input_ids is None:
            raise ValueError("FUSION needs either input_ids or inputs_embeds")
        if mm_token_type_ids is not None:
            input_ids = input_ids.masked_fill(_is_placeholder(mm_token_type_ids), 0)
        return self.get_input_embeddings()(input_ids)

    def _check_vocabulary(self, input_ids: torch.Tensor, mm_token_type_ids: torch.Tensor | None) -> None:
        text = input_ids
        if mm_token_type_ids is not None:
            text = input_ids.masked_fill(_is_placeholder(mm_token_type_ids), 0)
        vocabulary = self.get_input_embeddings().num_embeddings
        if text.numel() and int(text.max()) >= vocabulary:
            raise ValueError(
                f"input_ids hold {int(text.max())}, outside the vocabulary of {vocabulary}, at a position that "
                f"mm_token_type_ids calls text: pass the processor's mm_token_type_ids along with its input_ids"
            )

    def _place_images(
        self,
        inputs_embeds: torch.Tensor,
        layout: TokenLayout,
        images: EncodedImages,
        records: list[InteractionRecord] | None,
    ) -> tuple[torch.Tensor, InteractionContext | None]:
        """Write image tokens and initial latent tokens over their placeholders; build the interaction context."""
        flat, width = inputs_embeds.flatten(0, 1), inputs_embeds.shape[-1]
        layout = layout.to(flat.device)
        tokens = self.image_tokens(images)[: layout.num_images].reshape(-1, width).to(flat)
        flat = flat.index_copy(0, layout.image_positions.flatten(), tokens)
        context = None
        if layout.num_latents > 0 and images.global_map is not None:
            global_map = images.global_map.to(flat)
            latents = pool_latents(global_map, layout.latent_side)[layout.image_of_question]
            flat = flat.index_copy(0, layout.latent_positions.flatten(), latents.reshape(-1, width))
            context = InteractionContext(
                windows=pool_windows(global_map, layout.latent_side, self.config.window_size),
                image_of_question=layout.image_of_question,
                latent_positions=layout.latent_positions,
                question_ends=layout.question_ends,
                records=records,
            )
        return flat.view_as(inputs_embeds), context

    def _check_length(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
        limit = self.config.text_config.max_position_embeddings
        if input_ids.shape[1] <= limit:
            return
        longest = input_ids.shape[1] if attention_mask is None else int(attention_mask.sum(-1).max())
        if longest > limit:
            raise ValueError(
                f"The sequence has {longest} tokens, the decoder's context holds {limit}: shorten the conversation, "
                f"or use fewer latent tokens"
            )

    def _check_images(
        self, layout: TokenLayout | None, pixel_values: torch.Tensor | None, cache: Cache | None, blank_image: bool
    ) -> None:
        rows = 0 if layout is None else layout.num_images
        images = 0 if pixel_values is None else pixel_values.shape[0]
        if images != (1 if blank_image else rows) or (blank_image and (rows or layout is None)):
            blank = ", said to be a blank one beside text alone" if blank_image else ""
            raise ValueError(
                f"Image features and image tokens do not match: {rows} rows hold image tokens, "
                f"pixel_values hold {images} images{blank}"
            )
        if layout is not None and layout.num_latents > 0 and not self.config.uses_latents:
            raise ValueError(
                f"The prompt holds {layout.num_latents} latent tokens for each question, the model has no interaction "
                f"layers to read them: use num_latents=0"
            )
        if rows and cache is not None and cache.get_seq_length() > 0:
            raise ValueError(
                "Latent tokens depend on their whole question: run a new turn as a new prefill, without old cache"
            )


def _is_placeholder(mm_token_type_ids: torch.Tensor) -> torch.Tensor:
    return (mm_token_type_ids == IMAGE) | (mm_token_type_ids == LATENT)


class FusionForConditionalGeneration(FusionPreTrainedModel, FusionGenerationMixin):
    """FUSION with an output head: answers questions about images and computes the training objective."""

    _tied_weights_keys: dict[str, str] = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.model = FusionModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The output head."""
        return self.lm_head

    def get_global_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """See `FusionModel.get_global_features`."""
        return self.model.get_global_features(pixel_values)

    def get_patch_states(self, pixel_values: torch.Tensor) -> PatchStates:
        """See `FusionModel.get_patch_states`."""
        return self.model.get_patch_states(pixel_values)

    def shared_features(self, pixel_values: torch.Tensor) -> ImageFeatures:
        """See `ImageEncodingMixin.shared_features`."""
        return self.model.shared_features(pixel_values)

    def get_image_features(self, pixel_values: torch.Tensor, **guide: torch.Tensor) -> BaseModelOutputWithPooling:
        """See `FusionModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **guide)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        guide_input_ids: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        global_features: torch.Tensor | None = None,
        patch_states: PatchStates | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        token_layout: TokenLayout | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_logits: bool = False,
        **kwargs: Any,
    ) -> FusionCausalLMOutput:
        """Run the model; see `FusionModel.forward` for the arguments not named here.

        Args:
            labels: (B, S), -100 where nothing is to be predicted. With labels the loss and its terms are returned.
            logits_to_keep: Without labels, how many last positions get logits (0: all), or their indices.
            output_logits: With labels, whether to return the logits of all positions, too.
        """
        kwargs.pop("return_dict", None)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=mm_token_type_ids,
            pixel_values=pixel_values,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            global_features=global_features,
            patch_states=patch_states,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            token_layout=token_layout,
            with_mapping_losses=labels is not None,
            **kwargs,
        )
        loss = lm_loss = logits = None
        if labels is not None:
            lm_loss = self._lm_loss(outputs.last_hidden_state, labels)
            mapping = outputs.text_mapping_loss.to(lm_loss.device) + outputs.vision_mapping_loss.to(lm_loss.device)
            loss = lm_loss + self.config.mapping_loss_weight * mapping
        if labels is None or output_logits:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            hidden_states = outputs.last_hidden_state[:, kept]
            # As rows: torch on CPUs is many times slower for a slice of three dimensions with frozen bfloat16 weights.
            logits = self.lm_head(hidden_states.flatten(0, 1)).unflatten(0, hidden_states.shape[:2])
        return FusionCausalLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE: getattr(outputs, CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            lm_loss=lm_loss,
            text_mapping_loss=outputs.text_mapping_loss,
            vision_mapping_loss=outputs.vision_mapping_loss,
        )

    def _lm_loss(self, hidden_states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        selected, targets = select_labelled(hidden_states, labels.to(hidden_states.device))
        return next_token_loss(self.lm_head, selected, targets, self.config.text_config.vocab_size)
