"""TUNE: who sees whom in which half of the encoder, and which hidden states enter which mean."""

import pytest
import torch
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from fusionvl.model.vision_encoder import GuidedVisionEncoder, PatchStates

PATCHES, WIDTH = 36, 16
BOTH = pytest.mark.parametrize("early_guidance", ["masked", "released"])


def build(tiny, early_guidance, num_layers=5):
    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        image_size=24,
        patch_size=4,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    return tiny.randomise(GuidedVisionEncoder(config, early_guidance)).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, bar=1e-5):
    return a.shape == b.shape and (a - b).abs().max() <= bar


def slow_forward(encoder, pixels, guide):
    """The reference's words for one image, literally: whole score matrices, and every hidden state is kept."""
    patches = encoder.embeddings(pixels)
    hidden = torch.cat([patches, guide], dim=1)
    num_patches, total = patches.shape[1], hidden.shape[1]
    half = len(encoder.layers) // 2
    states = [hidden]
    for index, layer in enumerate(encoder.layers):
        attention, normed = layer.self_attn, layer.layer_norm1(hidden)
        heads, head_width = attention.num_heads, WIDTH // attention.num_heads
        q, k, v = (
            projection(normed)[0].view(total, heads, head_width).transpose(0, 1)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scores = q @ k.transpose(1, 2) / head_width**0.5
        if index < half and encoder.early_guidance == "masked":
            scores[:, :num_patches, num_patches:] = -torch.inf
        if index < half and encoder.early_guidance == "released":
            scores[:, num_patches:] = 0  # flat: the mean of all values
        attended = (scores.softmax(-1) @ v).transpose(0, 1).reshape(1, total, WIDTH)
        hidden = hidden + attention.out_proj(attended)
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        states.append(hidden)
    return states


def features_of(states, half):
    first, second = torch.stack(states[:half]).mean(0), torch.stack(states[half : 2 * half]).mean(0)
    return torch.cat([states[-1], first, second], dim=-1)


@BOTH
@pytest.mark.parametrize("num_layers", [5, 6, 7])  # 4, 5 and 6 in use: even and odd
def test_features_against_a_slow_computation(tiny, early_guidance, num_layers):
    encoder = build(tiny, early_guidance, num_layers)
    used = num_layers - 1
    assert len(encoder.layers) == used
    pixels, guide = draw(1, 3, 24, 24), draw(1, 5, WIDTH)
    view = encoder(pixels, guide)
    states = slow_forward(encoder, pixels, guide)
    assert len(states) == used + 1
    expected = features_of(states, used // 2)
    assert close(view.patches, expected[:, :PATCHES])
    assert close(view.guide, expected[:, PATCHES:])
    assert torch.equal(view.patch_embeddings, states[0][:, :PATCHES])


@pytest.mark.parametrize(
    ("num_layers", "first", "second"),
    [(5, [0, 1], [2, 3]), (6, [0, 1], [2, 3]), (28, range(13), range(13, 26)), (41, range(20), range(20, 40))],
)
def test_which_hidden_states_enter_which_mean_without_guide(tiny, num_layers, first, second):
    """Through transformers' own layers on the same weights; 6 layers: h4 is in no mean."""
    encoder = build(tiny, "masked", num_layers)
    hidden = encoder.embeddings(pixels := draw(2, 3, 24, 24))
    states = [hidden]
    for ours in encoder.layers:
        layer = SiglipEncoderLayer(encoder.config)
        layer.load_state_dict(ours.state_dict())
        hidden = layer(hidden, attention_mask=None)
        states.append(hidden)
    means = [torch.stack([states[index] for index in indices]).mean(0) for indices in (first, second)]
    view = encoder(pixels)
    assert close(view.patches, torch.cat([states[-1], *means], dim=-1), 5e-5)
    assert view.guide.shape == (2, 0, 3 * WIDTH)


def test_released_depths_split_as_the_reference_says(tiny):
    # so400m: 26 used, h0..h12 | h13..h25; giant-opt: 39 used, h0..h18 | h19..h37, h38 in no mean
    assert (build(tiny, "released", 27).half, build(tiny, "released", 40).half) == (13, 19)


class TestMasked:
    def test_patches_do_not_see_the_guide_in_the_first_half(self, tiny):
        encoder = build(tiny, "masked")
        pixels = draw(1, 3, 24, 24)
        firsts = []
        for seed in (1, 2):
            features = encoder(pixels, draw(1, 5, WIDTH, seed=seed)).patches
            firsts.append(features[..., WIDTH : 2 * WIDTH])
            last = features[..., :WIDTH]
        assert torch.equal(*firsts)
        assert not close(last, encoder(pixels, draw(1, 5, WIDTH, seed=1)).patches[..., :WIDTH], 1e-3)

    def test_guide_sees_patches_in_the_first_half(self, tiny):
        encoder = build(tiny, "masked")
        guide = draw(1, 5, WIDTH)
        early = [encoder(draw(1, 3, 24, 24, seed=seed), guide).guide[..., WIDTH : 2 * WIDTH] for seed in (1, 2)]
        assert not close(*early, 1e-3)

    @pytest.mark.parametrize("guide_length", [0, 1, 5])
    @pytest.mark.parametrize("num_layers", [5, 6])
    def test_patch_states_change_nothing(self, tiny, guide_length, num_layers):
        encoder = build(tiny, "masked", num_layers)
        pixels, guide = draw(2, 3, 24, 24), draw(2, guide_length, WIDTH)
        mask = torch.ones(2, guide_length)
        mask[1, 2:] = 0
        states = encoder.encode_patches(pixels)
        whole, shared = encoder(pixels, guide, mask), encoder(None, guide, mask, patch_states=states)
        real = mask.bool()
        assert close(whole.patches, shared.patches)
        assert guide_length == 0 or close(whole.guide[real], shared.guide[real])
        assert torch.equal(whole.patch_embeddings, shared.patch_embeddings)

    def test_patch_states_are_the_first_half(self, tiny):
        encoder = build(tiny, "masked")
        pixels = draw(1, 3, 24, 24)
        states = encoder.encode_patches(pixels)
        hidden = slow_forward(encoder, pixels, draw(1, 3, WIDTH))
        assert len(states.keys_values) == encoder.half == 2
        assert close(states.hidden_states, hidden[2][:, :PATCHES])
        assert close(states.layer_sum, (hidden[0] + hidden[1])[:, :PATCHES])

    def test_patch_states_repeat_select_join_and_count(self, tiny):
        encoder = build(tiny, "masked")
        a, b = (encoder.encode_patches(draw(1, 3, 24, 24, seed=seed)) for seed in (1, 2))
        joined = PatchStates.cat([a, b])
        assert torch.equal(joined.select([1]).hidden_states, b.hidden_states)
        assert torch.equal(joined.select([1, 0, 1]).keys_values[0][1][2:], b.keys_values[0][1])
        assert torch.equal(joined.repeat_interleave(2).embeddings, joined.embeddings[[0, 0, 1, 1]])
        floats = PATCHES * WIDTH * (3 + 2 * encoder.half)
        assert a.num_bytes == 4 * floats
        assert joined.num_bytes == 8 * floats


class TestReleased:
    def test_patches_depend_on_the_guide_from_the_first_layer_on(self, tiny):
        encoder = build(tiny, "released")
        pixels = draw(1, 3, 24, 24)
        early = [encoder(pixels, draw(1, 5, WIDTH, seed=s)).patches[..., WIDTH : 2 * WIDTH] for s in (1, 2)]
        assert not close(*early, 1e-3)

    def test_early_guide_rows_all_get_the_mean_of_the_real_values(self, tiny):
        encoder = build(tiny, "released")
        layer = encoder.layers[0]
        patches, guide = draw(1, PATCHES, WIDTH), draw(1, 5, WIDTH, seed=1)
        bias = torch.zeros(1, 1, 1, PATCHES + 5)
        bias[..., -2:] = torch.finfo(torch.float32).min
        _, new_guide = layer(patches, bias, guide, "released")
        values = layer.self_attn.v_proj(layer.layer_norm1(torch.cat([patches, guide[:, :3]], dim=1)))
        after_attention = guide + layer.self_attn.out_proj(values.mean(dim=1, keepdim=True))
        assert close(new_guide, after_attention + layer.mlp(layer.layer_norm2(after_attention)))

    def test_there_are_no_patch_states(self, tiny):
        with pytest.raises(ValueError, match="depend on the question with early_guidance='released'"):
            build(tiny, "released").encode_patches(draw(1, 3, 24, 24))


@BOTH
def test_guide_padding_changes_nothing(tiny, early_guidance):
    encoder = build(tiny, early_guidance)
    pixels, guide = draw(3, 3, 24, 24), draw(3, 9, WIDTH)
    lengths = [9, 4, 1]
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    together = encoder(pixels, guide, mask)
    for row, length in enumerate(lengths):
        alone = encoder(pixels[row : row + 1], guide[row : row + 1, :length])
        assert close(together.patches[row], alone.patches[0])
        assert close(together.guide[row, :length], alone.guide[0])
    guide[mask == 0] = 100.0
    assert torch.equal(encoder(pixels, guide, mask).patches, together.patches)
    unmasked = encoder(pixels, guide)
    assert not close(unmasked.patches[1], together.patches[1], 1e-3), "the mask must be what makes the difference"


@BOTH
def test_a_row_without_any_real_guide_token_equals_no_guide(tiny, early_guidance):
    encoder = build(tiny, early_guidance)
    pixels, guide = draw(2, 3, 24, 24), draw(2, 4, WIDTH)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    view = encoder(pixels, guide, mask)
    assert close(view.patches[1], encoder(pixels[1:]).patches[0])
    assert torch.isfinite(view.guide).all()


@BOTH
def test_an_empty_guide_is_no_guide(tiny, early_guidance):
    encoder = build(tiny, early_guidance)
    pixels = draw(2, 3, 24, 24)
    without, empty = encoder(pixels), encoder(pixels, draw(2, 0, WIDTH), torch.ones(2, 0))
    assert torch.equal(without.patches, empty.patches)
    assert empty.guide.shape == without.guide.shape == (2, 0, 3 * WIDTH)


@BOTH
def test_eager_attention_equals_sdpa(tiny, early_guidance):
    encoder = build(tiny, early_guidance)
    pixels, guide = draw(2, 3, 24, 24), draw(2, 4, WIDTH)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    sdpa = encoder(pixels, guide, mask)
    encoder.set_attn_implementation("eager")
    eager = encoder(pixels, guide, mask)
    assert close(sdpa.patches, eager.patches)
    assert close(sdpa.guide[mask.bool()], eager.guide[mask.bool()])
