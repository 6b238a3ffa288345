"""Other ways into the model than ids and pixels: embeddings, features alone."""

import pytest
import torch


@torch.no_grad()
def run(model, batch, **more):
    return model(**batch, **more)


class TestWaysIn:
    """What transformers' own models offer, too."""

    def test_embeddings_in_place_of_ids(self, tiny, family):
        model, batch = tiny.model(family), tiny.batch([tiny.row(0), tiny.row(1, image=False)], labels=True)
        expected = run(model, batch, output_logits=True)
        text = batch["input_ids"].masked_fill(batch["mm_token_type_ids"] % 3 != 0, 0)
        batch["inputs_embeds"] = model.get_input_embeddings()(text)
        batch.pop("input_ids")
        found = run(model, batch, output_logits=True)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.loss, expected.loss)

    @pytest.mark.parametrize("fusion", [{}, {"image_token_grid": 4}, {"tile_tokens": True}])
    def test_image_features(self, tiny, fusion):
        model, batch = tiny.model(**fusion), tiny.batch([tiny.row(0), tiny.row(1)])
        pixels, guide = batch["pixel_values"], {n: batch[n] for n in ("guide_input_ids", "guide_attention_mask")}
        with torch.no_grad():
            features = model.get_image_features(pixels, **guide)
            unguided = model.get_image_features(pixels)
        assert features.pooler_output.shape == (2, model.config.num_image_tokens, 32)
        assert features.last_hidden_state.shape == (2, 36, 32)
        assert (features.pooler_output - unguided.pooler_output).abs().max() > 1e-2
        is_patches = not fusion
        assert torch.equal(features.pooler_output, features.last_hidden_state) == is_patches
