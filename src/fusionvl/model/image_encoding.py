"""Text-guided unified vision encoding, from pixels to image tokens (paper, section 3.1).

What a model does with images before its decoder runs, the same under transformers and in vLLM. Knows pixels, guides
and the two mappings between the spaces; knows no prompt and no decoder.

Shapes: N images, G guide tokens, g patches a side, d vision width, D decoder width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fusionvl.model.configuration import FusionConfig
from fusionvl.model.model_outputs import EncodedImages
from fusionvl.model.projectors import MappingMLP
from fusionvl.model.vision_encoder import GuidedVisionEncoder, PatchStates


@dataclass(frozen=True)
class ImageFeatures:
    """Features of N images that no question changes.

    Attributes:
        global_features: (N, 2g, 2g, D), None for a model that needs no tiles.
        patch_states: None for a model whose patches see the guide from the start.
    """

    global_features: torch.Tensor | None
    patch_states: PatchStates | None

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        map_bytes = 0 if self.global_features is None else self.global_features.nbytes
        return map_bytes + (0 if self.patch_states is None else self.patch_states.num_bytes)

    def select(self, image: int) -> "ImageFeatures":
        """A copy of those of one image, as a batch of one: keeping it keeps no other image's."""
        maps, states = self.global_features, self.patch_states
        return ImageFeatures(
            None if maps is None else maps[[image]], None if states is None else states.select([image])
        )

    @staticmethod
    def cat(features: Sequence["ImageFeatures"]) -> "ImageFeatures":
        """Those of several images as one batch; the model decides which there are, so all have them or none has."""
        maps = [found.global_features for found in features if found.global_features is not None]
        states = [found.patch_states for found in features if found.patch_states is not None]
        return ImageFeatures(torch.cat(maps) if maps else None, PatchStates.cat(states) if states else None)


class ImageEncodingMixin:
    """Encodes images, for a class that has the parts named here."""

    config: FusionConfig
    vision_tower: GuidedVisionEncoder
    vision_to_text: MappingMLP
    text_to_vision: MappingMLP

    def get_input_embeddings(self) -> Any:
        """The decoder's embeddings, which guides are looked up in."""
        raise NotImplementedError

    def shared_features(self, pixel_values: torch.Tensor) -> ImageFeatures:
        """What every question about the images (N, 5, 3, H, W) can share."""
        return ImageFeatures(
            self.get_global_features(pixel_values) if self.config.uses_tiles else None,
            self.get_patch_states(pixel_values) if self.config.early_guidance == "masked" else None,
        )

    def get_global_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode the four tiles without guide, map them to the decoder's width and stitch them into one map.

        They depend on the image alone: compute them once, pass them to `forward` or `generate` as `global_features`.

        Args:
            pixel_values: (N, 5, 3, H, W) as from the processor.

        Returns:
            (N, 2g, 2g, D), row by row.
        """
        if pixel_values.shape[1] != 5:
            raise ValueError(f"Global features need four tiles and the base view, got {pixel_values.shape[1]} views")
        tiles = self.vision_to_text(self.vision_tower(pixel_values[:, :4].flatten(0, 1)).patches)
        side = self.config.patch_grid
        tiles = tiles.view(-1, 2, 2, side, side, tiles.shape[-1])  # (N, tile row, tile column, g, g, D)
        return tiles.transpose(2, 3).reshape(-1, 2 * side, 2 * side, tiles.shape[-1])

    def get_patch_states(self, pixel_values: torch.Tensor) -> PatchStates:
        """Encode the base view of (N, views, 3, H, W) as far as it does not depend on the question.

        With `masked` early guidance only; pass the result to `forward` or `generate` as `patch_states`.
        """
        return self.vision_tower.encode_patches(pixel_values[:, -1])

    def encode_images(
        self,
        pixel_values: torch.Tensor,
        guide_input_ids: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        global_features: torch.Tensor | None = None,
        patch_states: PatchStates | None = None,
        with_global_map: bool = True,
    ) -> EncodedImages:
        """Encode N images under the guidance of their questions.

        Args:
            pixel_values: (N, 5, 3, H, W), or (N, 1, 3, H, W) with the base view alone when `global_features` is given.
            guide_input_ids: (N, G) the tokenised guide texts, right padded.
            guide_attention_mask: (N, G).
            global_features: (N, 2g, 2g, D) from `get_global_features`.
            patch_states: From `get_patch_states`.
            with_global_map: Whether the features of the tiles are needed.

        Raises:
            ValueError: When guides or features are not of as many images as `pixel_values`.
        """
        states = None if patch_states is None else patch_states.embeddings
        given = {"guide_input_ids": guide_input_ids, "global_features": global_features, "patch_states": states}
        for name, tensor in given.items():
            if tensor is not None and tensor.shape[0] != pixel_values.shape[0]:
                raise ValueError(
                    f"{name} are of {tensor.shape[0]} images, pixel_values of {pixel_values.shape[0]} images"
                )
        guide = guide_embeddings = None
        if self.config.use_guidance and guide_input_ids is not None and guide_input_ids.shape[1] > 0:
            guide_embeddings = self.get_input_embeddings()(guide_input_ids)
            guide = self.text_to_vision(guide_embeddings)
        view = self.vision_tower(pixel_values[:, -1], guide, guide_attention_mask, patch_states)
        if with_global_map and global_features is None:
            global_features = self.get_global_features(pixel_values)
        return EncodedImages(
            patch_embeddings=view.patch_embeddings,
            patches=self.vision_to_text(view.patches),
            guide_embeddings=guide_embeddings,
            guide=None if guide is None else self.vision_to_text(view.guide),
            global_map=global_features if with_global_map else None,
        )

    def image_tokens(self, images: EncodedImages) -> torch.Tensor:
        """Turn features into image tokens (N, T, D).

        They are the patches of the base view; FUSION-L interpolates these to a smaller grid, `tile_tokens` appends
        the global map row by row.
        """
        patches = images.patches
        if self.config.tile_tokens and images.global_map is not None:
            return torch.cat([patches, images.global_map.flatten(1, 2).to(patches.dtype)], dim=1)
        if self.config.image_token_grid is None:
            return patches
        side, grid = self.config.patch_grid, self.config.image_token_grid
        planes = patches.transpose(1, 2).unflatten(2, (side, side))
        planes = nn.functional.interpolate(planes, size=(grid, grid), mode="bilinear", align_corners=False)
        return planes.flatten(2).transpose(1, 2)
