"""CARD: latent tokens, their windows, and one round of evidence gathering, against the plainest computation."""

import copy
import math

import pytest
import torch

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.interaction import InteractionContext, InteractionLayer, pool_latents, pool_windows


def numbered_map(side, images=1):
    """(N, side, side, 2): each position holds its row and its column."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns], dim=-1).float().expand(images, side, side, 2)


def cell(index, cells, size):
    """The positions that adaptive pooling puts into one of `cells` cells."""
    return slice(index * size // cells, math.ceil((index + 1) * size / cells))


def naive_windows(global_map, side, window):
    windows = torch.zeros(global_map.shape[0], side * side, window * window, global_map.shape[-1])
    size = global_map.shape[1]
    for image in range(global_map.shape[0]):
        for latent in range(side * side):
            for place in range(window * window):
                row = latent // side * window + place // window
                column = latent % side * window + place % window
                block = global_map[image, cell(row, side * window, size), cell(column, side * window, size)]
                windows[image, latent, place] = block.flatten(0, 1).max(dim=0).values
    return windows


class TestPooling:
    def test_windows_are_row_major(self):
        windows = pool_windows(numbered_map(12), side=2, window_size=3)
        assert windows.shape == (1, 4, 9, 2)
        # 12 -> 6 positions a side, the maximum of 2 x 2: odd rows and columns remain.
        assert windows[0, 1].tolist() == [[r, c] for r in (1, 3, 5) for c in (7, 9, 11)]
        assert windows[0, 2].tolist() == [[r, c] for r in (7, 9, 11) for c in (1, 3, 5)]

    @pytest.mark.parametrize(("size", "side", "window"), [(12, 4, 3), (12, 2, 3), (8, 2, 3), (9, 3, 2), (54, 12, 3)])
    def test_windows_against_a_loop(self, size, side, window):
        global_map = torch.randn(2, size, size, 3)
        assert torch.equal(pool_windows(global_map, side, window), naive_windows(global_map, side, window))

    def test_latents_are_row_major_maxima(self):
        assert pool_latents(numbered_map(12), 2)[0].tolist() == [[5, 5], [5, 11], [11, 5], [11, 11]]
        global_map = torch.randn(2, 10, 10, 3)
        latents = pool_latents(global_map, 4)
        for latent in range(16):
            block = global_map[:, cell(latent // 4, 4, 10), cell(latent % 4, 4, 10)]
            assert torch.equal(latents[:, latent], block.flatten(1, 2).max(dim=1).values)

    def test_a_window_holds_its_latent(self):
        """Where the cells nest, the maximum of a latent's window is its initial value."""
        global_map = torch.randn(1, 12, 12, 5)
        assert torch.equal(pool_windows(global_map, 2, 3).max(dim=2).values, pool_latents(global_map, 2))

    def test_windows_larger_than_the_map(self):
        with pytest.raises(ValueError, match=r"25 latent tokens with 3x3 windows need .* 15 positions .* has 12"):
            pool_windows(torch.zeros(1, 12, 12, 2), side=5, window_size=3)
        assert pool_windows(torch.zeros(1, 12, 12, 2), side=4, window_size=3).shape == (1, 16, 9, 2)


def naive_update(layer, latent, question_end, window):
    """One latent token, as the reference writes it."""
    attention, heads = layer.attention, layer.attention.num_heads
    query = layer.input_proj.weight @ torch.cat([question_end, latent])
    context = window @ layer.context_proj.weight.T
    q = attention.q_proj.weight @ attention.q_norm(query)
    k = attention.k_norm(context) @ attention.k_proj.weight.T
    v = attention.v_norm(context) @ attention.v_proj.weight.T
    width = q.numel() // heads
    heard = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = (k[:, part] @ q[part] / math.sqrt(width)).softmax(0)
        heard.append(weights @ v[:, part])
    query = layer.norm(query + attention.o_proj.weight @ torch.cat(heard))
    hidden = layer.fc1.weight @ query
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return latent + layer.fc2.weight @ hidden


@pytest.fixture
def layer(tiny):
    return tiny.randomise(InteractionLayer(tiny.config())).double().eval()


def make_context(seed=0):
    """Two rows of 12 tokens; three questions, two of them in the second row; two images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 12, 32, generator=generator).double(), InteractionContext(
        windows=torch.randn(2, 4, 9, 32, generator=generator).double(),
        image_of_question=torch.tensor([0, 1, 1]),
        latent_positions=torch.tensor([[1, 2, 3, 4], [12, 13, 14, 15], [18, 19, 20, 21]]),
        question_ends=torch.tensor([7, 17, 23]),
    )


class TestInteractionLayer:
    def test_against_one_latent_at_a_time(self, layer):
        hidden, context = make_context()
        with torch.no_grad():
            output = layer(hidden, context)
            flat, expected = hidden.flatten(0, 1), hidden.flatten(0, 1).clone()
            for question in range(3):
                for place, position in enumerate(context.latent_positions[question]):
                    window = context.windows[context.image_of_question[question], place]
                    end = flat[context.question_ends[question]]
                    expected[position] = naive_update(layer, flat[position], end, window)
        assert (output.flatten(0, 1) - expected).abs().max() < 1e-6  # the softmax is in float32
        assert (output - hidden).abs().max() > 0.1

    def test_only_latent_positions_change(self, layer):
        hidden, context = make_context()
        before = hidden.clone()
        output = layer(hidden, context)
        changed = (output != hidden).any(-1).flatten().nonzero().flatten().tolist()
        assert changed == sorted(context.latent_positions.flatten().tolist())
        assert torch.equal(hidden, before), "the input is left alone"

    def test_each_question_hears_its_own_end_only(self, layer):
        hidden, context = make_context()
        other = hidden.clone()
        other[1, 5] += 1.0  # the end of the first question of the second row
        changed = (layer(other, context) - layer(hidden, context)).abs().sum(-1).flatten() > 1e-9
        assert changed.nonzero().flatten().tolist() == [12, 13, 14, 15, 17]

    def test_each_latent_sees_its_own_window_only(self, layer):
        hidden, context = make_context()
        windows = context.windows.clone()
        windows[1, 2, 5] += 1.0
        other = InteractionContext(windows, context.image_of_question, context.latent_positions, context.question_ends)
        changed = (layer(hidden, other) - layer(hidden, context)).abs().sum(-1).flatten() > 1e-9
        assert changed.nonzero().flatten().tolist() == [14, 20]  # the third latent of both questions on image 1

    def test_windows_are_projected_once_an_image(self, layer, count_calls):
        hidden, context = make_context()
        calls = {name: count_calls(module) for name, module in layer.named_modules() if name.endswith("_proj")}
        layer(hidden, context)
        for name in ("context_proj", "attention.k_proj", "attention.v_proj"):
            assert calls[name] == [((2, 4, 9, 32),)], name  # two images, not three questions
        assert calls["input_proj"] == [((3, 4, 64),)]


def test_fresh_interaction_layers_add_nothing(tiny):
    """Step 0 equals the base decoder: fc2 starts at zero."""
    torch.manual_seed(0)
    model = FusionForConditionalGeneration(tiny.config()).eval()
    assert all(layer.fc2.weight.abs().max() == 0 for layer in model.model.interaction_layers)
    assert all(layer.fc1.weight.abs().max() > 0 for layer in model.model.interaction_layers)
    without = copy.deepcopy(model)
    for layer in without.model.language_model.layers:
        layer._forward_hooks.clear()
    batch = tiny.batch([tiny.row(0)])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, without(**batch).logits)
        tiny.randomise(model.model.interaction_layers)
        assert not torch.allclose(model(**batch).logits, without(**batch).logits, atol=1e-4)
