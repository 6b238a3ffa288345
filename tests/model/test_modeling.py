"""The whole model at tiny size, over decoder families: what must be equal is equal, what must matter matters."""

import copy

import pytest
import torch
from transformers import DynamicCache

from fusionvl.model import FusionForConditionalGeneration, FusionModel

ALONE_BAR = 1e-4


def difference(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@torch.no_grad()
def run(model, batch, **more):
    return model(**batch, **more)


def real_logits(output, batch, row):
    return output.logits[row][batch["attention_mask"][row].bool()]


class TestForward:
    def test_shapes_and_loss_terms(self, tiny, family):
        model = tiny.model(family, mapping_loss_weight=0.3)
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)
        output = run(model, batch)
        assert output.logits is None
        terms = output.text_mapping_loss + output.vision_mapping_loss
        assert output.loss.item() == pytest.approx((output.lm_loss + 0.3 * terms).item(), abs=1e-6)
        assert min(output.lm_loss, output.text_mapping_loss, output.vision_mapping_loss) > 0.01
        labels = batch.pop("labels")
        plain = run(model, batch)
        assert plain.loss is plain.lm_loss is plain.text_mapping_loss is None
        assert plain.logits.shape == (*labels.shape, 64)

    def test_the_head_is_given_rows(self, tiny, family):
        """Three dimensions cost it twenty times the time on a CPU, with frozen weights in bfloat16."""
        model, batch, seen = tiny.model(family), tiny.batch([tiny.row(0), tiny.row(1)]), []
        model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].ndim))
        every, last = run(model, batch).logits, run(model, batch, logits_to_keep=1).logits
        assert seen == [2, 2]
        assert difference(every[:, -1:], last) < 1e-5

    def test_loss_where_labelled_equals_cross_entropy_on_all_logits(self, tiny, family):
        model = tiny.model(family)
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1), tiny.row(2, image=False)], labels=True)
        output = run(model, batch, output_logits=True)
        expected = torch.nn.functional.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
        )
        assert output.lm_loss.item() == pytest.approx(expected.item(), abs=1e-5)
        without = run(model, {name: tensor for name, tensor in batch.items() if name != "labels"})
        assert difference(output.logits, without.logits) < 1e-6

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_a_row_alone_equals_the_row_in_a_padded_batch(self, tiny, family, side):
        model = tiny.model(family)
        rows = [tiny.row(0, turns=3, guide_length=9), tiny.row(1, image=False), tiny.row(2), tiny.row(3, turns=2)]
        batch = tiny.batch(rows, side)
        together = run(model, batch)
        for index, row in enumerate(rows):
            alone = run(model, tiny.batch([row])).logits[0]
            assert difference(real_logits(together, batch, index), alone) <= ALONE_BAR

    def test_vision_matters(self, tiny, family):
        """So that equality elsewhere means something."""
        model, batch = tiny.model(family), tiny.batch([tiny.row(0)])
        logits = run(model, batch).logits[0, -1]
        for other in ({"pixel_values": -batch["pixel_values"]}, {"guide_input_ids": 63 - batch["guide_input_ids"]}):
            assert difference(run(model, batch | other).logits[0, -1], logits) > 1e-2, other.keys()
        for view in range(5):
            pixels = batch["pixel_values"].clone()
            pixels[:, view] = 0.5
            assert difference(run(model, {**batch, "pixel_values": pixels}).logits[0, -1], logits) > 1e-3, view

    def test_interaction_layers_matter(self, tiny, family):
        model, batch = tiny.model(family), tiny.batch([tiny.row(0)])
        logits = run(model, batch).logits[0, -1]
        for layer in model.model.interaction_layers:
            changed = copy.deepcopy(layer.fc2.weight.data)
            layer.fc2.weight.data.zero_()
            assert difference(run(model, batch).logits[0, -1], logits) > 1e-2
            layer.fc2.weight.data.copy_(changed)

    def test_bfloat16_stays_close(self, tiny, family):
        model = tiny.model(family)
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)
        exact = run(model, batch, output_logits=True)
        rounded = run(
            model.to(torch.bfloat16), batch | {"pixel_values": batch["pixel_values"].bfloat16()}, output_logits=True
        )
        assert rounded.logits.dtype == torch.bfloat16
        assert rounded.lm_loss.dtype == torch.float32
        real = batch["attention_mask"].bool()
        error = (rounded.logits.float() - exact.logits)[real].abs().mean() / exact.logits[real].abs().mean()
        assert error < 0.05
        assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=0.03)

    def test_text_alone(self, tiny, family):
        model = tiny.model(family)
        batch = tiny.batch([tiny.row(0, image=False), tiny.row(1, turns=2, image=False)], labels=True)
        output = run(model, batch, output_logits=True)
        assert output.text_mapping_loss == output.vision_mapping_loss == 0
        assert output.loss == output.lm_loss
        decoder = model.model.language_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        real = batch["attention_mask"].bool()
        assert difference(output.logits[real], model.lm_head(decoder.last_hidden_state)[real]) < 1e-5
        batch.pop("mm_token_type_ids")
        assert difference(run(model, batch).loss, output.loss) < 1e-6

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_positions_count_real_tokens(self, tiny, side):
        """Rotary embeddings hide a shift, so look at the positions themselves."""
        model, batch = tiny.model(), tiny.batch([tiny.row(0, turns=2), tiny.row(1)], side)
        seen = []
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
        )
        run(model, batch)
        for positions, real in zip(seen[0], batch["attention_mask"].bool(), strict=True):
            assert positions[real].tolist() == list(range(int(real.sum())))

    def test_a_step_on_the_cache_goes_on_where_the_prompt_ended(self, tiny, family):
        model, batch = tiny.model(family), tiny.batch([tiny.row(0, turns=2), tiny.row(1)], "left")
        longer = {
            name: torch.nn.functional.pad(batch[name], (0, 1), value=1) for name in ("input_ids", "attention_mask")
        }
        longer["mm_token_type_ids"] = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, 1))
        whole = run(model, batch | longer).logits[:, -1]
        cache = run(model, batch, use_cache=True).past_key_values
        step = {"input_ids": longer["input_ids"][:, -1:], "attention_mask": longer["attention_mask"]}
        assert difference(run(model, step, past_key_values=cache).logits[:, -1], whole) <= ALONE_BAR

    def test_logits_to_keep(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0), tiny.row(1)], "left")
        whole = run(model, batch).logits
        assert difference(run(model, batch, logits_to_keep=2).logits, whole[:, -2:]) < 1e-6
        assert difference(run(model, batch, logits_to_keep=torch.tensor([3, 5])).logits, whole[:, [3, 5]]) < 1e-6

    def test_the_base_model_returns_hidden_states(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0)])
        output = run(model.model, batch, output_hidden_states=True)
        assert isinstance(model.model, FusionModel)
        assert output.last_hidden_state.shape == (*batch["input_ids"].shape, 32)
        assert len(output.hidden_states) == 5
        assert output.text_mapping_loss is None

    def test_hidden_states_are_those_after_the_interaction_layers(self, tiny):
        """What the next decoder layer reads is what is reported."""
        model, batch = tiny.model(), tiny.batch([tiny.row(0)])
        read = []
        model.model.language_model.layers[1].register_forward_pre_hook(lambda _, args: read.append(args[0]))
        reported = run(model, batch, output_hidden_states=True).hidden_states[1]
        assert difference(reported, read[0]) == 0

    def test_placeholder_ids_are_never_looked_up(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0)])
        logits = run(model, batch).logits
        for placeholder in (5, 10**9):
            ids = batch["input_ids"].clone()
            ids[(batch["mm_token_type_ids"] == 1) | (batch["mm_token_type_ids"] == 2)] = placeholder
            assert torch.equal(run(model, {**batch, "input_ids": ids}).logits, logits)


class TestMappingLosses:
    def test_against_the_definition(self, tiny):
        model = tiny.model().model
        rows = [tiny.row(0, guide_length=3), tiny.row(1, guide_length=7)]
        batch = tiny.batch(rows)
        output = run(model, batch, with_mapping_losses=True)
        text, vision = [], []
        with torch.no_grad():
            for row in rows:
                images = model.encode_images(row["pixels"][None], row["guide"][None])
                embeddings = model.get_input_embeddings()(row["guide"])
                text += [
                    1 - torch.cosine_similarity(a, b, 0) for a, b in zip(images.guide[0], embeddings, strict=True)
                ]
                back = model.text_to_vision(images.patches)[0]
                h0 = model.vision_tower.embeddings(row["pixels"][-1:])[0]
                vision += [1 - torch.cosine_similarity(a, b, 0) for a, b in zip(back, h0, strict=True)]
        assert len(text) == 3 + 8
        assert len(vision) == 2 * 36
        assert output.text_mapping_loss.item() == pytest.approx((sum(text) / len(text)).item(), abs=1e-5)
        assert output.vision_mapping_loss.item() == pytest.approx((sum(vision) / len(vision)).item(), abs=1e-5)

    @pytest.mark.parametrize("targets", ["live", "detached"])
    def test_targets(self, tiny, targets):
        """With the encoder's input cut off, only the comparison itself reaches the guide's embeddings."""
        model = tiny.model(mapping_targets=targets).model
        batch = tiny.batch([tiny.row(0)])
        images = model.encode_images(batch["pixel_values"], batch["guide_input_ids"])
        images = copy.copy(images)
        object.__setattr__(images, "guide", images.guide.detach())
        object.__setattr__(images, "patches", images.patches.detach())
        text, vision = model.mapping_losses(images, None)
        weights = {
            "text": model.get_input_embeddings().weight,
            "vision": model.vision_tower.embeddings.patch_embedding.weight,
        }
        for name, loss in {"text": text, "vision": vision}.items():
            if targets == "live":
                assert torch.autograd.grad(loss, weights[name], retain_graph=True)[0].abs().max() > 0
            else:
                assert not loss.requires_grad or torch.autograd.grad(
                    loss, weights[name], allow_unused=True, retain_graph=True
                ) == (None,)


class TestGradients:
    @staticmethod
    def gradients(model, batch):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    @pytest.mark.parametrize("settings", [None, {"use_reentrant": False}], ids=["default", "not reentrant"])
    def test_gradient_checkpointing_changes_nothing(self, tiny, family, settings):
        model = tiny.model(family).train()
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1, image=False), tiny.row(2)], labels=True)
        loss, plain = self.gradients(model, batch)
        model.gradient_checkpointing_enable(settings)
        assert model.model.language_model.layers[0].gradient_checkpointing
        checkpointed_loss, checkpointed = self.gradients(model, batch)
        assert difference(loss, checkpointed_loss) <= 1e-6
        assert plain.keys() == checkpointed.keys()
        for name in plain:
            assert difference(plain[name], checkpointed[name]) <= 1e-6, name

    def test_reentrant_checkpointing_does_not_lose_gradients_silently(self, tiny):
        """The interaction context is a keyword argument, which reentrant checkpointing does not follow."""
        model = tiny.model().train()
        model.gradient_checkpointing_enable({"use_reentrant": True})
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            model(**tiny.batch([tiny.row(0)], labels=True)).loss.backward()

    def test_every_part_learns(self, tiny, family):
        model = tiny.model(family)
        _, gradients = self.gradients(model, tiny.batch([tiny.row(0, turns=2)], labels=True))
        for name, parameter in model.named_parameters():
            assert name in gradients, name
            if not name.endswith("k_proj.bias"):  # a key bias moves all scores of a query alike
                assert gradients[name].abs().max() > 0, name
            assert torch.isfinite(gradients[name]).all(), name
            assert parameter.requires_grad

    def test_step_zero_of_a_fresh_model_reaches_the_interaction_layers(self, tiny):
        torch.manual_seed(0)
        model = FusionForConditionalGeneration(tiny.config())
        self.gradients(model, tiny.batch([tiny.row(0)], labels=True))
        assert all(layer.fc2.weight.grad.abs().max() > 0 for layer in model.model.interaction_layers)


class TestAblations:
    def test_without_guidance_the_guide_is_irrelevant(self, tiny):
        model = tiny.model(use_guidance=False)
        batch = tiny.batch([tiny.row(0)], labels=True)
        output = run(model, batch, output_logits=True)
        assert output.text_mapping_loss == 0
        assert output.vision_mapping_loss > 0.01
        other = batch | {"guide_input_ids": batch["guide_input_ids"].flip(-1)}
        bare = {name: tensor for name, tensor in batch.items() if not name.startswith("guide")}
        for inputs in (other, bare):
            assert torch.equal(run(model, inputs, output_logits=True).logits, output.logits)

    def test_a_missing_guide_is_an_empty_one(self, tiny):
        model = tiny.model()
        batch = tiny.batch([tiny.row(0)], labels=True)
        bare = {name: tensor for name, tensor in batch.items() if not name.startswith("guide")}
        empty = {**bare, "guide_input_ids": torch.zeros(1, 0).long(), "guide_attention_mask": torch.zeros(1, 0).long()}
        output = run(model, bare)
        assert output.text_mapping_loss == 0
        assert torch.equal(run(model, empty).loss, output.loss)

    def test_without_interaction_there_are_no_latents(self, tiny, count_calls):
        model = tiny.model(num_interaction_layers=0)
        assert not model.config.uses_latents
        assert len(model.model.interaction_layers) == 0
        calls = count_calls(model.model.vision_tower)
        batch = tiny.batch([tiny.row(0, num_latents=0), tiny.row(1, num_latents=0)], labels=True)
        assert torch.isfinite(run(model, batch).loss)
        assert [call[0][0] for call in calls] == [2], "base views only, no tiles"

    def test_fusion_l_interpolates_the_image_tokens_alone(self, tiny):
        small, plain = tiny.model(image_token_grid=4), tiny.model()
        assert small.config.num_image_tokens == 16
        pixels = tiny.row(0)["pixels"][None]
        with torch.no_grad():
            images = small.model.encode_images(pixels)
            assert torch.equal(images.patches, plain.model.encode_images(pixels).patches)
            assert images.global_map.shape == (1, 12, 12, 32)
            tokens = small.model.image_tokens(images)
        grid = images.patches.view(6, 6, 32)
        for row in range(4):
            for column in range(4):
                y, x = (row + 0.5) * 6 / 4 - 0.5, (column + 0.5) * 6 / 4 - 0.5  # centres line up
                top, left, dy, dx = int(y), int(x), y - int(y), x - int(x)
                expected = (1 - dy) * ((1 - dx) * grid[top, left] + dx * grid[top, left + 1])
                expected += dy * ((1 - dx) * grid[top + 1, left] + dx * grid[top + 1, left + 1])
                assert difference(tokens[0, row * 4 + column], expected) < 1e-5
        batch = tiny.batch([tiny.row(0, num_image_tokens=16)], labels=True)
        whole = tiny.batch([tiny.row(0)], labels=True)
        a, b = run(small, batch), run(plain, whole)
        assert difference(a.vision_mapping_loss, b.vision_mapping_loss) < 1e-6, "compared before the interpolation"
        assert difference(a.lm_loss, b.lm_loss) > 1e-4

    @pytest.mark.parametrize("interactions", [0, 2])
    def test_tile_tokens_reach_the_decoder(self, tiny, interactions):
        """The way of LLaVA-NeXT: base view, then the map row by row, all of it in the decoder's input."""
        model = tiny.model(tile_tokens=True, num_interaction_layers=interactions)
        assert model.config.num_image_tokens == 5 * 36
        batch = tiny.batch([tiny.row(0, num_image_tokens=180, num_latents=4 if interactions else 0)])
        given = {}
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: given.update(kwargs), with_kwargs=True
        )
        logits = run(model, batch).logits
        images = batch["mm_token_type_ids"][0] == 1
        with torch.no_grad():
            patches = model.model.encode_images(
                batch["pixel_values"], batch["guide_input_ids"], batch["guide_attention_mask"]
            ).patches
            global_map = model.get_global_features(batch["pixel_values"])
        assert difference(given["inputs_embeds"][0, images][:36], patches[0]) < 1e-6
        assert difference(given["inputs_embeds"][0, images][36:], global_map[0].reshape(144, 32)) < 1e-6
        batch["pixel_values"] = batch["pixel_values"].clone()
        batch["pixel_values"][:, 3] *= -1  # the bottom right tile alone
        assert difference(run(model, batch).logits, logits) > 1e-2

    def test_without_tile_tokens_and_latents_the_tiles_are_irrelevant(self, tiny):
        model, batch = tiny.model(num_interaction_layers=0), tiny.batch([tiny.row(0, num_latents=0)])
        logits = run(model, batch).logits
        batch["pixel_values"][:, :4] *= -1
        assert torch.equal(run(model, batch).logits, logits)

    def test_early_guidance_makes_a_difference(self, tiny):
        batch = tiny.batch([tiny.row(0)])
        masked, released = (run(tiny.model(early_guidance=kind), batch).logits for kind in ("masked", "released"))
        assert difference(masked, released) > 1e-2


class TestSharedFeatures:
    def test_global_features(self, tiny, family):
        model = tiny.model(family)
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)])
        whole = run(model, batch).logits
        with torch.no_grad():
            features = model.get_global_features(batch["pixel_values"])
        assert features.shape == (2, 12, 12, 32)
        batch["pixel_values"] = batch["pixel_values"][:, -1:]
        assert difference(run(model, batch, global_features=features).logits, whole) <= 1e-5
        assert difference(run(model, batch, global_features=features.flip(1)).logits, whole) > 1e-2

    def test_patch_states(self, tiny, family):
        model = tiny.model(family)
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)])
        whole = run(model, batch).logits
        with torch.no_grad():
            states = model.get_patch_states(batch["pixel_values"])
            features = model.get_global_features(batch["pixel_values"])
        assert difference(run(model, batch, patch_states=states).logits, whole) <= 1e-5
        batch["pixel_values"] = batch["pixel_values"][:, -1:]
        both = run(model, batch, patch_states=states, global_features=features)
        assert difference(both.logits, whole) <= 1e-5

    def test_the_map_is_stitched_row_by_row(self, tiny):
        model = tiny.model().model
        pixels = tiny.row(0)["pixels"][None]
        with torch.no_grad():
            features = model.get_global_features(pixels)[0]
            for tile, (top, left) in enumerate([(0, 0), (0, 6), (6, 0), (6, 6)]):
                alone = model.vision_to_text(model.vision_tower(pixels[:, tile]).patches)
                assert difference(features[top : top + 6, left : left + 6], alone.view(6, 6, 32)) < 1e-5

    def test_all_tiles_in_one_encoder_batch(self, tiny, count_calls):
        model = tiny.model()
        calls = count_calls(model.model.vision_tower)
        run(model, tiny.batch([tiny.row(0, turns=3), tiny.row(1, image=False), tiny.row(2)]))
        assert sorted(call[0] for call in calls) == [(2, 3, 24, 24), (8, 3, 24, 24)]

    def test_windows_are_projected_once_an_image(self, tiny, count_calls):
        model = tiny.model()
        calls = [count_calls(layer.context_proj) for layer in model.model.interaction_layers]
        run(model, tiny.batch([tiny.row(0, turns=3), tiny.row(1, turns=2)]))
        assert calls == [[((2, 4, 9, 32),)], [((2, 4, 9, 32),)]]  # two images, five questions


class TestRefusals:
    @pytest.mark.parametrize(
        ("images", "message"),
        [(0, "1 rows hold image tokens, pixel_values hold 0"), (2, "1 rows hold image tokens, pixel_values hold 2")],
    )
    def test_wrong_number_of_images(self, tiny, images, message):
        batch = tiny.batch([tiny.row(0), tiny.row(1, image=False)])
        pixels = batch.pop("pixel_values")
        if images:
            batch["pixel_values"] = pixels.expand(images, -1, -1, -1, -1)
        with pytest.raises(ValueError, match=f"Image features and image tokens do not match: {message}"):
            run(tiny.model(), batch)

    def test_images_for_text(self, tiny):
        batch = tiny.batch([tiny.row(0, image=False)])
        with pytest.raises(ValueError, match="0 rows hold image tokens, pixel_values hold 1"):
            run(tiny.model(), batch, pixel_values=tiny.row(0)["pixels"][None])

    def test_image_tokens_of_another_model(self, tiny):
        with pytest.raises(ValueError, match="do not match: row 0 holds 36 image tokens, the model makes 16"):
            run(tiny.model(image_token_grid=4), tiny.batch([tiny.row(0)]))

    @pytest.mark.parametrize("name", ["guide_input_ids", "global_features", "patch_states"])
    def test_features_of_another_number_of_images(self, tiny, name):
        """One too many would be taken for another row's, silently."""
        model = tiny.model()
        batch = tiny.batch([tiny.row(0), tiny.row(1)])
        pixels = torch.cat([batch["pixel_values"], batch["pixel_values"][:1]])
        with torch.no_grad():
            extra = {
                "guide_input_ids": batch["guide_input_ids"][[0, 1, 0]],
                "global_features": model.get_global_features(pixels),
                "patch_states": model.get_patch_states(pixels),
            }
        batch.pop("guide_attention_mask")
        batch[name] = extra[name]
        with pytest.raises(ValueError, match=f"{name} are of 3 images, pixel_values of 2 images"):
            run(model, batch)

    def test_tiles_are_needed(self, tiny):
        batch = tiny.batch([tiny.row(0)])
        batch["pixel_values"] = batch["pixel_values"][:, -1:]
        with pytest.raises(ValueError, match="four tiles and the base view, got 1"):
            run(tiny.model(), batch)

    def test_context_too_long(self, tiny):
        model = tiny.model()
        limit = model.config.text_config.max_position_embeddings
        fitting = {"input_ids": torch.full((1, limit), 5)}
        assert run(model, fitting).logits.shape[1] == limit
        with pytest.raises(ValueError, match=f"The sequence has {limit + 1} tokens, .* holds {limit}"):
            run(model, {"input_ids": torch.full((1, limit + 1), 5)})

    def test_padding_does_not_count_as_context(self, tiny):
        model = tiny.model()
        limit = model.config.text_config.max_position_embeddings
        ids = torch.full((1, limit + 5), 5)
        mask = torch.ones_like(ids)
        mask[:, :10] = 0
        padded = run(model, {"input_ids": ids, "attention_mask": mask}).logits[0, 10:]
        assert difference(padded, run(model, {"input_ids": ids[:, 10:]}).logits[0]) <= ALONE_BAR

    def test_placeholders_without_types(self, tiny):
        batch = tiny.batch([tiny.row(0)])
        batch.pop("mm_token_type_ids")
        batch.pop("pixel_values")
        with pytest.raises(ValueError, match="outside the vocabulary of 64"):
            run(tiny.model(), batch)

    def test_neither_ids_nor_embeddings_or_both(self, tiny):
        batch = tiny.batch([tiny.row(0)])
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            run(tiny.model(), batch, inputs_embeds=torch.zeros(1, 3, 32))
        batch.pop("input_ids")
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            run(tiny.model(), batch)

    def test_a_second_question_on_an_old_cache(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0)])
        cache = DynamicCache(config=model.config.text_config)
        run(model, batch, past_key_values=cache)
        with pytest.raises(ValueError, match="run a new turn as a new prefill"):
            run(model, batch, past_key_values=cache)

    def test_too_many_latents_for_the_map(self, tiny):
        with pytest.raises(ValueError, match="25 latent tokens"):
            run(tiny.model(), tiny.batch([tiny.row(0, num_latents=25)]))

    @pytest.mark.parametrize(
        ("fusion", "message"),
        [
            ({"interaction_heads": 5}, "width 32 is not divisible by interaction_heads = 5"),
            ({"num_interaction_layers": 3}, r"decoder layers \[0, 2, 4\], but there are only 4"),
            ({"vision": {"num_hidden_layers": 2}}, "at least 3 layers, not 2"),
            ({"vision": {"patch_size": 25}}, "holds no patch"),
            ({"tile_tokens": True, "image_token_grid": 4}, "image_token_grid = 4 fewer"),
        ],
    )
    def test_geometries_that_cannot_be_built(self, tiny, fusion, message):
        with pytest.raises(ValueError, match=message):
            tiny.config(**fusion)
