"""Rows of different lengths in one step: logits as of the whole sequence anew, whoever joins or leaves."""

import random

import pytest
import torch
from transformers import DynamicCache

from fusionvl.engine.decoding_batch import DecodingBatch, longest_sequence
from fusionvl.engine.slot_cache import BLOCK

SLIDING = {
    "mistral": {"sliding_window": 7},
    "phi3": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
}


class Rows:
    """A batch beside the plain token lists of its rows."""

    def __init__(self, model, seed=0):
        self.model, self.batch, self.rows = model, DecodingBatch(model), []
        self.random = random.Random(seed)

    def join(self, length):
        tokens = [self.random.randrange(3, 64) for _ in range(length)]
        output = self.model(torch.tensor([tokens]), past_key_values=DynamicCache(), use_cache=True)
        self.batch.join(output.past_key_values)
        self.rows.append(tokens)

    def leave(self, row):
        self.batch.leave(row)
        self.rows[row] = self.rows[-1]
        self.rows.pop()

    def step(self):
        """Largest difference to running every row alone and anew."""
        tokens = [self.random.randrange(3, 64) for _ in self.rows]
        logits = self.batch.step(tokens)
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
        alone = torch.stack([self.model(torch.tensor([row])).logits[0, -1] for row in self.rows])
        return float((logits - alone).abs().max())


@torch.inference_mode()
def random_life(rows):
    worst = rows.join(5) or 0.0
    for _ in range(25):
        if len(rows.rows) < 5 and rows.random.random() < 0.5:
            rows.join(rows.random.randrange(1, 40))
        if len(rows.rows) > 1 and rows.random.random() < 0.3:
            rows.leave(rows.random.randrange(len(rows.rows)))
        worst = max(worst, rows.step())
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_of_rows_that_come_and_go(tiny, family, attention):
    model = tiny.model(family)
    model.set_attn_implementation(attention)
    assert random_life(Rows(model)) < 2e-5


@pytest.mark.parametrize("family", SLIDING)
def test_decoders_that_look_through_a_window(tiny, family, monkeypatch):
    monkeypatch.setitem(tiny.decoders, family, {**tiny.decoders[family], **SLIDING[family]})
    from fusionvl.model import FusionForConditionalGeneration

    config = tiny.config(family)
    model = tiny.randomise(FusionForConditionalGeneration(config)).eval()
    rows = Rows(model)
    assert random_life(rows) < 2e-5
    full = tiny.model(family)
    with torch.inference_mode():
        tokens = torch.randint(3, 64, (1, 30))
        assert (model(tokens).logits - full(tokens).logits).abs().max() > 1e-2, "the window matters"


@torch.inference_mode()
def test_memory_grows_by_need_and_becomes_what_is_needed(tiny):
    rows = Rows(tiny.model())
    assert rows.batch.num_bytes == 0
    rows.join(10)
    one = rows.batch.num_bytes
    config = rows.model.config.text_config
    assert one == 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * BLOCK * 4
    rows.join(BLOCK - 1)
    assert rows.batch.num_bytes == 2 * one
    rows.step()
    assert rows.batch.num_bytes == 2 * one, "the last column of the block"
    rows.step()
    assert rows.batch.num_bytes == 4 * one, "a second block for two rows"
    rows.leave(1)
    rows.join(2 * BLOCK - 1)
    assert rows.batch.num_bytes == 4 * one, "what is held suffices"
    rows.leave(0)
    rows.step()
    rows.step()
    assert rows.batch.num_bytes == 3 * one, "three blocks for the one row that is left"
    rows.leave(0)
    assert len(rows.batch) == 0
    rows.join(5)
    assert rows.step() < 2e-5
    rows.batch.clear()
    assert rows.batch.num_bytes == 0


@torch.inference_mode()
def test_a_failed_step_leaves_the_rows_as_they_were(tiny, monkeypatch):
    rows = Rows(tiny.model())
    rows.join(4)
    rows.join(9)
    hook = rows.model.model.language_model.layers[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rows.batch.step([5, 6])
    hook.remove()
    assert rows.step() < 2e-5


def test_attention_without_masks_is_refused(tiny):
    model = tiny.model()
    model.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'flash_attention_2': load the model with sdpa or eager"):
        DecodingBatch(model)


def test_unknown_kinds_of_attention_are_refused(tiny):
    model = tiny.model("qwen2")
    model.config.text_config.layer_types = ["full_attention", "chunked_attention"] * 2
    with pytest.raises(ValueError, match=r"the decoder \(qwen2\) also has chunked_attention"):
        DecodingBatch(model)


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default"}, 256),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 64),
        ({"rope_type": "dynamic"}, 256),
        ({"rope_type": "llama3", "original_max_position_embeddings": 64}, 256),
    ],
)
def test_rows_stay_where_rotary_embeddings_do_not_change(tiny, rope, expected):
    config = tiny.config().text_config
    config.rope_parameters = rope
    assert longest_sequence(config) == expected
