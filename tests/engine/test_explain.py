"""Looking inside: attention as it was, drawn where it was; the guide's effect; nothing left behind on the model."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from fusionvl import cli
from fusionvl.engine.explain import explain, guidance_shift, window_position_spans
from fusionvl.engine.explain_drawing import COLOURS, GAP, PANEL, SCALE, TITLE, heat_map
from fusionvl.model.interaction import pool_windows

QUESTION = "How many cups are there?"


def look(engine, picture, question=QUESTION, **settings):
    return explain(engine, picture, question, max_new_tokens=3, **settings)


def test_shapes_and_sums(engine, picture):
    seen = look(engine, picture)
    assert [layer.decoder_layer for layer in seen.layers] == engine.model.config.interaction_layer_indices == [0, 2]
    for layer in seen.layers:
        assert layer.attention.shape == (2, 2, 3, 3)
        np.testing.assert_allclose(layer.attention.sum((2, 3)), 1, rtol=1e-5)
        assert np.ptp(layer.attention) > 0.01
        assert layer.update.shape == (2, 2)
        assert (layer.update > 0).all()
    assert seen.guidance_shift.shape == (6, 6)
    assert seen.missing == []
    assert seen.answer == engine.ask(picture, QUESTION, max_new_tokens=3)
    assert seen.image.size == picture.size


def test_a_window_lies_on_the_grid_where_its_latent_token_does(engine, picture):
    layer = look(engine, picture).layers[0]
    np.testing.assert_array_equal(layer.attention_grid[3:6, 0:3], layer.attention[1, 0])
    np.testing.assert_array_equal(layer.attention_grid[0:3, 3:6], layer.attention[0, 1])


def test_recording_changes_no_number(engine, picture):
    row = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]}
    inputs = engine.processor.apply_chat_template([row], tokenize=True, return_dict=True, add_generation_prompt=True)
    records = []
    with torch.no_grad():
        assert torch.equal(engine.model(**inputs).logits, engine.model(**inputs, interaction_records=records).logits)
    assert len(records) == 2


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_positions_lie_where_pooling_took_them_from(tiny, side):
    """The map holds its own coordinates: pooling tells the last of each cell, and of minus them the first."""
    config = tiny.config()
    size = 2 * config.patch_grid
    rows = torch.arange(size).float()[:, None].expand(size, size)
    numbered = torch.stack([rows, -rows, rows.T, -rows.T], dim=-1)[None]
    windows = pool_windows(numbered, side, 3)[0].view(side, side, 3, 3, 4).permute(0, 2, 1, 3, 4).flatten(0, 1)
    spans = window_position_spans(config, side)
    for place, (start, end) in enumerate(spans):
        last_row, first_row, last_column, first_column = windows[place].flatten(0, 1)[place].tolist()
        assert (start * size, end * size) == pytest.approx((-first_row, last_row + 1))
        assert (start * size, end * size) == pytest.approx((-first_column, last_column + 1))
    even = size % (3 * side) == 0
    assert (spans[0, 0], spans[-1, 1]) == (0, 1)
    assert (spans[1:, 0] == spans[:-1, 1]).all() if even else (spans[1:, 0] <= spans[:-1, 1]).all()


@pytest.mark.parametrize("size", [(60, 40), (7, 201), (1, 1)])
@pytest.mark.parametrize("side", [2, 3])
def test_the_overlay_covers_the_picture_exactly(tiny, size, side):
    spans = window_position_spans(tiny.config(), side)
    values = heat_map(np.full((3 * side, 3 * side), 0.25), spans, size)
    assert values.shape == size[::-1]
    assert (values == 0.25).all()


def test_a_patch_that_does_not_divide_the_view_leaves_what_is_not_seen_uncovered(tiny):
    """Views of 26 px with patches of 4 px: two pixels of each tile are never read."""
    config = tiny.config(vision={"image_size": 26})
    spans = window_position_spans(config, 4)
    assert spans[-1, 1] == 50 / 52
    values = heat_map(np.ones((12, 12)), spans, (52, 52))
    unseen = np.isin(np.arange(52), [24, 25, 50, 51])
    np.testing.assert_array_equal(np.isnan(values), unseen[:, None] | unseen[None])


def test_overlapping_positions_share_a_pixel():
    spans = np.array([[0.0, 0.75], [0.25, 1.0]])
    np.testing.assert_array_equal(heat_map(np.array([[0.0, 4.0], [0.0, 4.0]]), spans, (4, 1))[0], [0, 2, 2, 4])


@pytest.fixture
def rigged(make_engine, monkeypatch):
    """An engine whose latent tokens each look at one marked position, another one in each window."""
    engine = make_engine()
    model, marks = engine.model.model, [(0, 0), (1, 2), (2, 1), (2, 2)]
    global_map = torch.zeros(1, 12, 12, 32)
    global_map[..., 1] = 1.0
    for latent, (row, column) in enumerate(marks):
        top, left = 2 * (3 * (latent // 2) + row), 2 * (3 * (latent % 2) + column)
        global_map[:, top : top + 2, left : left + 2, :2] = torch.tensor([1.0, 0.0])
    monkeypatch.setattr(model, "get_global_features", lambda pixel_values: global_map)
    with torch.no_grad():
        for layer in model.interaction_layers:
            attention = layer.attention
            first_of_heads = torch.arange(0, 32, 32 // attention.num_heads)
            layer.context_proj.weight.copy_(torch.eye(32))
            for norm in (attention.q_norm, attention.k_norm):
                norm.weight.fill_(float(norm is attention.k_norm))
                norm.bias.zero_()
            attention.q_norm.bias[first_of_heads] = 1.0  # every query is the same and asks for feature 0
            attention.q_proj.weight.copy_(torch.eye(32))
            attention.k_proj.weight.zero_()
            attention.k_proj.weight[first_of_heads, 0] = 1000.0
    return engine, marks


def test_attention_is_drawn_where_it_was(rigged):
    engine, marks = rigged
    white = Image.new("RGB", (60, 60), "white")
    seen = look(engine, white)
    for layer in seen.layers:
        grid = np.zeros((6, 6))
        for latent, (row, column) in enumerate(marks):
            grid[3 * (latent // 2) + row, 3 * (latent % 2) + column] = 1.0
        np.testing.assert_allclose(layer.attention_grid, grid, atol=1e-6)
    page = np.asarray(seen.draw()).astype(int)
    top = page.shape[0] - 2 * (TITLE + PANEL + SCALE + GAP) + TITLE
    for number, layer in enumerate(seen.layers):
        left = GAP + (number + 1) * (PANEL + GAP)
        for place in np.ndindex(6, 6):
            y, x = ((np.array(place) + 0.5) * PANEL / 6).astype(int)
            expected = COLOURS[-1 if layer.attention_grid[place] > 0.5 else 0]
            assert abs(page[top + y, left + x] - expected).max() <= 1, (number, place)


def test_an_update_of_zero_is_shown_as_zero(engine, picture):
    with torch.no_grad():
        for layer in engine.model.model.interaction_layers:
            layer.fc2.weight.zero_()
    seen = look(engine, picture)
    assert all((layer.update == 0).all() for layer in seen.layers)
    assert seen.draw().size[0] > 2 * PANEL


@pytest.mark.parametrize("early_guidance", ["masked", "released"])
def test_the_guidance_shift_is_that_of_the_guide(make_engine, early_guidance):
    model = make_engine(early_guidance=early_guidance).model
    pixels, ids = torch.rand(1, 5, 3, 24, 24), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert guidance_shift(model, pixels, ids[:, :0], ids[:, :0]).max() == 0
        assert guidance_shift(model, pixels, ids, torch.zeros_like(ids)).max() < 1e-9
        shift = guidance_shift(model, pixels, ids, torch.ones_like(ids))
        assert shift.min() > 1e-7
        patches = [
            model.model.encode_images(pixels, guide, with_global_map=False).patches[0, 8] for guide in (ids, None)
        ]
    expected = 1 - patches[0] @ patches[1] / patches[0].norm() / patches[1].norm()
    assert math.isclose(shift[1, 2], expected, abs_tol=1e-6)


def test_models_without_a_part_say_so(make_engine, picture):
    plain = look(make_engine(num_interaction_layers=0, use_guidance=False), picture)
    assert (plain.layers, plain.guidance_shift) == ([], None)
    assert len(plain.missing) == 2
    plain.draw()
    json.dumps(plain.to_dict(), allow_nan=False)
    unguided = look(make_engine(use_guidance=False), picture)
    assert len(unguided.layers) == 2
    assert "no guide" in unguided.missing[0]
    no_latents = look(make_engine(), picture, num_latents=0)
    assert no_latents.layers == []
    assert "no latent tokens" in no_latents.missing[0]


def test_the_json_form(engine, picture):
    seen = look(engine, picture)
    told = json.loads(json.dumps(seen.to_dict(), allow_nan=False))
    assert told["layers"][1]["decoder_layer"] == 2
    np.testing.assert_allclose(told["layers"][1]["attention"], seen.layers[1].attention_grid)
    assert len(told["position_spans"]) == len(told["layers"][0]["attention"]) == 6
    assert len(told["latent_spans"]) == len(told["layers"][0]["update"]) == 2
    assert len(told["patch_spans"]) == len(told["guidance_shift"]) == 6
    assert told["latent_spans"] == [[0.0, 0.5], [0.5, 1.0]]
    assert told["image_size"] == [60, 40]


def test_threads_share_an_engine(engine, picture, other_picture):
    pairs = [(picture, QUESTION), (other_picture, "What colour is the circle?")] * 3
    alone = [look(engine, *pair).to_dict() for pair in pairs[:2]]
    with ThreadPoolExecutor(2) as pool:
        together = [seen.to_dict() for seen in pool.map(lambda pair: look(engine, *pair), pairs)]
    assert alone[0] != alone[1]
    assert together == alone * 3


def test_the_command_writes_a_picture(tmp_path, picture, capsys):
    picture.save(tmp_path / "picture.png")
    output = tmp_path / "seen.png"
    assert cli.main(["explain", str(tmp_path / "picture.png"), QUESTION, "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    with Image.open(output) as page:
        assert page.width > 3 * PANEL


@pytest.mark.parametrize(
    ("image", "settings", "reason"),
    [
        ("missing.png", [], "no such file"),
        (__file__, [], "image"),
        ("{picture}", ["--output", "explain.jpg"], "must end in .png"),
        ("{picture}", ["--output", "nowhere/explain.png"], "no folder nowhere"),
        ("{picture}", ["--num-latents", "5"], "perfect square"),
    ],
)
def test_mistakes_end_with_code_2(tmp_path, monkeypatch, picture, capsys, image, settings, reason):
    monkeypatch.chdir(tmp_path)
    picture.save("picture.png")
    assert cli.main(["explain", image.format(picture="picture.png"), QUESTION, *settings]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "explain.png").exists()
