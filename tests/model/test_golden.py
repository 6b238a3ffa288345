"""Parity with what the released code computed (tests/reference), within the bars of the design page."""

import math

import pytest
import torch
from golden import CASES, CHECKPOINTS, Golden, expand

FEATURES = ("guided_features", "patch_embeddings", "reconstructed_patches", "global_features")
LOGITS_BAR, LOSS_BAR, FEATURES_BAR = 2e-4, 1e-5, 5e-5


@pytest.fixture(scope="module", params=CHECKPOINTS)
def golden(request, reference_dir):
    return Golden(reference_dir, request.param)


def largest_difference(golden, name, logits, attention_mask):
    """Over the positions that are kept; they count real tokens, so they are the same on either side of the padding."""
    case = golden.case(name)
    assert list(logits.shape) == golden.full_set[f"{name}.logits"]["shape"]
    rows = [row[real] for row, real in zip(logits, attention_mask.bool(), strict=True)]
    computed = torch.stack([rows[row][position] for row, position in case["logits_positions"].tolist()])
    assert computed.shape == case["logits"].shape
    return (computed - case["logits"]).abs().max().item()


def logits_error(golden, name, side="right"):
    """Largest difference at the positions that are kept, and that of the loss."""
    inputs = golden.inputs(name, side)
    with torch.no_grad():
        output = golden.model(**inputs, output_logits=True)
    error = largest_difference(golden, name, output.logits, inputs["attention_mask"])
    return error, abs(output.loss.item() - golden.case(name)["loss"].item())


@pytest.mark.parametrize("name", CASES)
def test_kept_logits_are_those_that_matter(golden, name):
    case, inputs = golden.case(name), golden.inputs(name)
    kept = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
    kept[tuple(case["logits_positions"].T)] = True
    real = inputs["attention_mask"].bool()
    answers, latents = inputs["labels"] != -100, inputs["mm_token_type_ids"] == 2
    assert len(case["logits"]) == len(case["logits_positions"]) == kept.sum()
    assert answers.any(dim=1).all()
    assert latents.sum(dim=1).min() >= CASES[name]
    assert kept[answers].all()
    assert kept[answers.roll(-1, dims=1)].all(), "the answers are predicted there"
    assert kept[latents].all()
    assert kept[:, ::8].equal(real[:, ::8])
    assert not kept[~real].any()


def test_kept_features_are_of_every_row_and_column_and_of_the_whole_guide(golden):
    case, grid = golden.case("encoder"), math.isqrt(golden.model.config.num_image_tokens)
    assert grid**2 == golden.model.config.num_image_tokens
    for name in FEATURES:
        positions = case[f"{name}_positions"]
        side = 2 * grid if name == "global_features" else grid
        patches = positions[positions < side**2]
        assert set((patches // side).tolist()) == set((patches % side).tolist()) == set(range(side))
    guide = set(range(grid**2, grid**2 + case["instructs"].shape[1]))
    assert guide
    assert guide <= set(case["guided_features_positions"].tolist())


def test_the_reference_stays_small(reference_dir):
    assert sum(path.stat().st_size for path in reference_dir.rglob("*") if path.is_file()) < 20e6


@pytest.mark.parametrize("name", CASES)
def test_logits_and_loss(golden, name):
    logits, loss = logits_error(golden, name)
    assert logits <= LOGITS_BAR
    assert loss <= LOSS_BAR


def test_rows_padded_on_the_left_have_the_same_logits(golden):
    logits, loss = logits_error(golden, "padded_batch.latent4", side="left")
    assert golden.inputs("padded_batch.latent4", "left")["attention_mask"][:, 0].min() == 0
    assert logits <= LOGITS_BAR
    assert loss <= LOSS_BAR


def test_guide_padding_of_any_length_changes_no_logit(golden):
    inputs = golden.inputs("one_turn.latent4")
    guide = inputs["guide_input_ids"]
    padded = torch.nn.functional.pad(guide, (0, 7), value=5)
    mask = torch.nn.functional.pad(torch.ones_like(guide), (0, 7))
    with torch.no_grad():
        output = golden.model(**inputs | {"guide_input_ids": padded}, guide_attention_mask=mask, output_logits=True)
    error = largest_difference(golden, "one_turn.latent4", output.logits, inputs["attention_mask"])
    assert error <= LOGITS_BAR
    assert abs(output.loss - golden.case("one_turn.latent4")["loss"]) <= LOSS_BAR


def test_encoder(golden):
    expected = golden.case("encoder")
    with torch.no_grad():
        images = golden.model.model.encode_images(golden.pixels[:1], expected["instructs"])
        reconstructed = golden.model.model.text_to_vision(images.patches)
    patches = golden.model.config.num_image_tokens
    computed = {
        "guided_features": torch.cat([images.patches, images.guide], dim=1),
        "patch_embeddings": images.patch_embeddings,
        "reconstructed_patches": reconstructed,
        "global_features": images.global_map.flatten(1, 2),
    }
    assert computed.keys() == set(FEATURES)
    assert computed["guided_features"].shape[1] == patches + expected["instructs"].shape[1]
    for name, features in computed.items():
        assert list(features.shape) == golden.full_set[f"encoder.{name}"]["shape"], name
        kept = features[:, expected[f"{name}_positions"]]
        assert kept.shape == expected[name].shape, name
        assert (kept - expected[name]).abs().max() <= FEATURES_BAR, name


@pytest.mark.parametrize("name", ["generate_one_turn", "generate_two_turns"])
def test_greedy_tokens(golden, name):
    case = golden.case(name)
    inputs = expand(golden.model.config, case, num_latents=4)
    sequences = golden.model.generate(
        **inputs,
        pixel_values=golden.pixels[1:],
        guide_input_ids=case["instructs"],
        max_new_tokens=16,
        min_new_tokens=16,
        do_sample=False,
    )
    assert sequences[0, inputs["input_ids"].shape[1] :].tolist() == case["output_ids"][0].tolist()


@pytest.fixture(scope="module")
def llama_golden(reference_dir):
    return Golden(reference_dir, "llama-siglip")


class TestTheToleranceMeansSomething:
    """Slips that are easy to make must be further away than the bar."""

    def test_tanh_gelu_fails(self, llama_golden, monkeypatch):
        gelu = torch.nn.functional.gelu
        monkeypatch.setattr(torch.nn.functional, "gelu", lambda x, approximate="none": gelu(x, approximate="tanh"))
        assert logits_error(llama_golden, "one_turn.latent4")[0] > LOGITS_BAR

    def test_eight_interaction_heads_fail(self, llama_golden, monkeypatch):
        for layer in llama_golden.model.model.interaction_layers:
            assert layer.attention.num_heads == 16
            monkeypatch.setattr(layer.attention, "num_heads", 8)
        assert logits_error(llama_golden, "one_turn.latent4")[0] > LOGITS_BAR

    def test_the_papers_masked_early_guidance_fails(self, llama_golden, monkeypatch):
        monkeypatch.setattr(llama_golden.model.model.vision_tower, "early_guidance", "masked")
        assert logits_error(llama_golden, "one_turn.latent4")[0] > LOGITS_BAR

    def test_a_wrong_split_of_the_layers_fails(self, llama_golden, monkeypatch):
        monkeypatch.setattr(llama_golden.model.model.vision_tower, "half", 12)
        assert logits_error(llama_golden, "one_turn.latent4")[0] > LOGITS_BAR

    def test_a_question_end_off_by_one_fails(self, llama_golden, monkeypatch):
        inputs = llama_golden.inputs("one_turn.latent4")
        types = inputs["mm_token_type_ids"]
        position = (types == 3).nonzero()[0, 1]
        types[0, position], types[0, position - 1] = 0, 3
        monkeypatch.setattr(llama_golden, "inputs", lambda *_: inputs)
        assert logits_error(llama_golden, "one_turn.latent4")[0] > LOGITS_BAR

    def test_untouched_it_passes(self, llama_golden):
        assert logits_error(llama_golden, "one_turn.latent4")[0] <= LOGITS_BAR
