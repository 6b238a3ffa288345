"""`FusionConfig`: every number of the architecture as a named field.

Knows two sub-configs (a SigLIP-shaped encoder and any transformers decoder) and FUSION's own fields; knows nothing of
tokenizers, prompts or training.
"""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

EarlyGuidance = Literal["masked", "released"]
MappingTargets = Literal["live", "detached"]
VIEWS_PER_IMAGE = 5  # four tiles and the base view


@strict
class FusionConfig(PreTrainedConfig):
    """Configuration of a FUSION model (arXiv 2504.09925, sections 3.1-3.3).

    Args:
        vision_config: A `SiglipVisionConfig` (or its dict). The last of its layers is not used.
        text_config: The config of any decoder that `AutoModel` builds (Llama, Phi3, Qwen2, Qwen3, Mistral, ...).
        image_token_id: Placeholder id of image tokens; may lie outside the decoder's vocabulary.
        latent_token_id: Placeholder id of latent tokens; may lie outside the decoder's vocabulary.
        use_guidance: Whether the guide text enters the vision encoder (off: no guide tokens, text mapping loss 0).
        early_guidance: How the guide acts in the first half of the encoder. `masked` is the paper's intention: patches
            are blind to the guide. `released` reproduces the published weights: patches see the guide, and each
            guide row receives the mean of all values.
        num_interaction_layers: How many decoder layers are followed by an interaction layer (0: none, no latents).
        interaction_start: Index of the first decoder layer that is followed by one.
        interaction_stride: Decoder layers from one interaction layer to the next.
        interaction_heads: Attention heads of an interaction layer; must divide the decoder's width.
        interaction_norm_eps: Epsilon of the interaction layers' LayerNorms.
        window_size: Side of the square window of the global map that one latent token looks at.
        image_token_grid: Side of the grid the image tokens are interpolated to (FUSION-L: 16), or None: as encoded.
        tile_tokens: Whether the features of the four tiles are image tokens, too, behind those of the base view: the
            way of LLaVA-NeXT, for comparison. FUSION is without.
        mapping_loss_weight: Weight of the dual-supervised mapping loss (the paper's lambda).
        mapping_targets: Whether gradients flow into the embeddings that the mapping loss compares with (`live`, as
            released) or not (`detached`, safer from scratch).
        tie_word_embeddings: Whether the output head shares the decoder's input embeddings.

    Raises:
        ValueError: On settings that cannot be built, with the numbers at fault.
    """

    model_type = "fusionvl"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="siglip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: Any = None  # given as a config or its dict, always read as a config
    text_config: Any = None
    image_token_id: Any = None
    latent_token_id: Any = None
    use_guidance: bool = True
    early_guidance: EarlyGuidance = "masked"
    num_interaction_layers: int = 10
    interaction_start: int = 0
    interaction_stride: int = 3
    interaction_heads: int = 16
    interaction_norm_eps: float = 1e-5
    window_size: int = 3
    image_token_grid: int | None = None
    tile_tokens: bool = False
    mapping_loss_weight: float = 0.1
    mapping_targets: MappingTargets = "detached"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the placeholder ids and refuse geometries that cannot be built."""
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size
        if self.latent_token_id is None:
            self.latent_token_id = self.image_token_id + 1
        if self.vision_config.model_type != "siglip_vision_model":
            raise ValueError(
                f"FUSION needs a SigLIP-shaped vision encoder (model_type siglip_vision_model), "
                f"not {self.vision_config.model_type!r}"
            )
        if self.num_vision_layers < 2:
            raise ValueError(
                f"The vision encoder uses all but its last layer in two halves: it needs at least 3 layers, "
                f"not {self.vision_config.num_hidden_layers}"
            )
        if self.patch_grid < 1:
            raise ValueError(
                f"A view of {self.vision_config.image_size} px holds no patch of {self.vision_config.patch_size} px"
            )
        if self.tile_tokens and self.image_token_grid is not None:
            raise ValueError(
                f"tile_tokens feeds every patch to the decoder, image_token_grid = {self.image_token_grid} fewer: "
                f"choose one of them"
            )
        self._check_interaction_layers()

    def _check_interaction_layers(self) -> None:
        if self.num_interaction_layers == 0:
            return
        width, depth = self.text_config.hidden_size, self.text_config.num_hidden_layers
        if width % self.interaction_heads:
            raise ValueError(
                f"The decoder's width {width} is not divisible by interaction_heads = {self.interaction_heads}"
            )
        if self.interaction_layer_indices[-1] >= depth:
            raise ValueError(
                f"Interaction layers would follow decoder layers {self.interaction_layer_indices}, but there are only "
                f"{depth}: lower num_interaction_layers, interaction_start or interaction_stride"
            )

    @property
    def interaction_layer_indices(self) -> list[int]:
        """Indices of the decoder layers whose output an interaction layer acts on."""
        return [self.interaction_start + i * self.interaction_stride for i in range(self.num_interaction_layers)]

    @property
    def num_vision_layers(self) -> int:
        """Encoder layers in use: all but the last (reference, section 3)."""
        return self.vision_config.num_hidden_layers - 1

    @property
    def patch_grid(self) -> int:
        """Patches along one side of a view."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Image tokens a picture takes in the decoder's input."""
        views = VIEWS_PER_IMAGE if self.tile_tokens else 1
        return views * (self.image_token_grid or self.patch_grid) ** 2

    @property
    def uses_tiles(self) -> bool:
        """Whether the features of the tiles are needed: by latent tokens, or as image tokens."""
        return self.uses_latents or self.tile_tokens

    @property
    def uses_latents(self) -> bool:
        """Whether prompts hold latent tokens."""
        return self.num_interaction_layers > 0
