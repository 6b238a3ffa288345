"""Stage 0: SigLIP's own objective, exact resumption, and a result that transformers and FUSION open."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from micro_model import MICRO_MODEL
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, SiglipModel, SiglipProcessor

from fusionvl.cli import main
from fusionvl.train import encoder_pretraining
from fusionvl.train.base_weights import TOWER
from fusionvl.train.captioned_pictures import CaptionCollator, Captioned, Steps, normalized, recolored
from fusionvl.train.config import ModelFromParts, ModelFromScratch
from fusionvl.train.encoder_pretraining import (
    caption_features,
    found_captions,
    kept_patches,
    picture_features,
    pretrain,
    sigmoid_loss,
)
from fusionvl.train.encoder_recipe import TrainedEncoder, is_encoder_recipe, load_encoder_recipe
from fusionvl.train.geometry import siglip_config_of
from fusionvl.train.metrics import METRICS, StageLog
from fusionvl.train.parts import build_from_parts
from fusionvl.train.scratch import build_from_scratch, train_tokenizer

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 8}  # fmt: skip
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 220), "white": (250, 250, 250)}


def write_pictures(folder, seed, count=32):
    """Squares of four colours on gray, captioned, as a LLaVA JSON; returns its path."""
    folder.mkdir(exist_ok=True)
    draws, rows = np.random.default_rng(seed), []
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        pixels = np.full((40, 40, 3), 120, dtype=np.uint8)
        x, y = draws.integers(0, 16, 2)
        pixels[y : y + 24, x : x + 24] = COLOURS[name]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"a {name} square"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    seen, unseen = (write_pictures(folder / name, seed) for seed, name in enumerate(("seen", "unseen")))
    path = folder / "encoder.yaml"
    recipe = {
        "name": "tiny-encoder",
        "encoder": {"vision": VISION, "text": TEXT, "vocab_size": 280},
        "data": {"datasets": [{"json_path": str(seen)}]},
        "held_out": [{"name": "unseen", "pictures": 32, "data": {"datasets": [{"json_path": str(unseen)}]}}],
        "max_steps": 40,
        "batch_size": 16,
        "learning_rate": 3.0e-3,
        "recolored": 0.1,
        "dropped_patches": 0.25,
        "precision": "float32",
        "save_every": 40,
        "evaluate_every": 10,
        "log_every": 5,
        "report_to": [],
        "data_workers": 0,
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """They take most of the time of so small a run; that of `trained` is drawn."""
    monkeypatch.setattr(StageLog, "draw", lambda self: None)


@pytest.fixture
def recipe(recipe_path):
    return load_encoder_recipe(recipe_path)


@pytest.fixture(scope="module")
def trained(recipe_path, tmp_path_factory):
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert pretrain(load_encoder_recipe(recipe_path), folder) == folder / "model"
    return folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def values_of(folder, name):
    return [row[name] for row in rows_of(folder) if name in row]


def weights_of(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def siglip():
    torch.manual_seed(0)
    return SiglipModel(siglip_config_of(VISION, TEXT, 300)).eval()


# The objective


def test_the_loss_is_siglips_own_where_all_captions_differ(siglip):
    pixels, ids = torch.rand(5, 3, 32, 32) * 2 - 1, torch.randint(0, 300, (5, 8))
    with torch.no_grad():
        siglip.logit_scale.fill_(2.0)
        siglip.logit_bias.fill_(-3.0)
        theirs = siglip(input_ids=ids, pixel_values=pixels, return_loss=True)
        features = picture_features(siglip, pixels), caption_features(siglip, ids)
        logits = features[0] @ features[1].T * siglip.logit_scale.exp() + siglip.logit_bias
    torch.testing.assert_close(logits, theirs.logits_per_image)
    torch.testing.assert_close(sigmoid_loss(logits, torch.arange(5)), theirs.loss)


def test_equal_captions_are_one(siglip):
    tokenizer = train_tokenizer(["a red square", "a blue square"], 280)
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    batch = CaptionCollator(tokenizer, 8)([Captioned(pixels, f"a {it} square", it) for it in ("red", "blue", "red")])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["caption"].tolist() == [0, 1, 0]
    assert batch["rows"] == ["red", "blue", "red"]
    assert batch["pixel_values"].shape == (3, 3, 4, 4)
    logits = torch.tensor([[5.0, -5.0], [-5.0, 5.0], [5.0, -5.0]])
    belongs = torch.nn.functional.softplus(torch.tensor(-5.0))  # -log sigmoid(5), for each of the six pairs
    torch.testing.assert_close(sigmoid_loss(logits, batch["caption"]), 2 * belongs)
    assert sigmoid_loss(logits, torch.tensor([1, 0, 1])) > 9


def test_a_share_of_the_patches_is_dropped_and_the_others_keep_their_places(siglip):
    generator = torch.Generator().manual_seed(0)
    kept = kept_patches(50, siglip.config.vision_config, 0.75, generator)
    assert kept.shape == (50, 4)
    assert {len(set(row)) for row in kept.tolist()} == {4}
    assert set(kept.flatten().tolist()) == set(range(16))
    assert kept_patches(50, siglip.config.vision_config, 0.0, generator) is None
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        whole, shuffled, first = (
            picture_features(siglip, pixels, which)
            for which in (None, torch.randperm(16).expand(2, -1), torch.arange(8).expand(2, -1))
        )
        changed = pixels.clone()
        changed[:, :, 16:] = 0
        torch.testing.assert_close(shuffled, whole)
        torch.testing.assert_close(picture_features(siglip, changed, torch.arange(8).expand(2, -1)), first)
    assert not torch.allclose(first, whole, atol=1e-4)


def test_recoloring_keeps_shape_and_range_and_gray_and_follows_from_the_generator():
    pixels = normalized(torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8))
    changed = [recolored(pixels, 0.5, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert changed[0].shape == pixels.shape
    assert changed[0].abs().max() <= 1
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
    same = (changed[0] == pixels).flatten(1).all(1)
    assert 8 < same.sum() < 32
    gray = torch.full((4, 3, 2, 2), 0.2)
    channels = recolored(gray, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(channels, channels[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(recolored(pixels, 0.0, torch.Generator()), pixels)


def test_what_a_step_sees_follows_from_its_number():
    assert list(Steps(5, 3, first_step=3)) == list(Steps(5, 3))[3:] == [[9, 10, 11], [12, 13, 14]]
    assert len(Steps(5, 3, first_step=3)) == 2


def test_a_picture_finds_its_caption_among_all(siglip):
    ids = torch.arange(24).view(3, 8)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        nearest = (picture_features(siglip, normalized(pixels)) @ caption_features(siglip, ids).T).argmax(1)
    batch = {"input_ids": ids, "pixel_values": pixels, "caption": nearest.clone()}
    assert found_captions(siglip.train(), batch) == 1
    assert siglip.training
    batch["caption"][:2] = (nearest[:2] + 1) % 3
    assert found_captions(siglip, batch) == pytest.approx(4 / 6)


# A run


def test_a_run_learns_and_is_plotted(trained):
    losses, accuracy = values_of(trained, "contrastive_loss"), values_of(trained, "held_out_accuracy/unseen")
    assert len(losses) == 8
    assert losses[-1] < 0.5 * losses[0]
    assert len(accuracy) == 4
    assert accuracy[-1] > 0.9
    rates = values_of(trained, "learning_rate")
    assert rates[0] > rates[-1] > 0
    assert list(trained.glob("*.png"))
    assert (trained / "recipe.yaml").is_file()


class KilledError(Exception):
    pass


def test_a_run_that_is_killed_goes_on_to_the_same_weights_and_log(recipe, tmp_path, monkeypatch):
    recipe = replace(recipe, max_steps=6, batch_size=4, save_every=2, log_every=1, evaluate_every=3)
    pretrain(recipe, tmp_path / "whole")
    take = encoder_pretraining._Loop._take
    for killed_at in (1, 4, 6):  # before a checkpoint, behind one, in the last step

        def killed(self, step, batch, killed_at=killed_at):
            if step == killed_at:
                raise KilledError
            return take(self, step, batch)

        with monkeypatch.context() as patch:
            patch.setattr(encoder_pretraining._Loop, "_take", killed)
            with pytest.raises(KilledError):
                pretrain(recipe, tmp_path / "killed")
    pretrain(recipe, tmp_path / "killed")
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


def test_the_same_command_twice_trains_once(trained, recipe, monkeypatch):
    before = weights_of(trained)
    monkeypatch.setattr(encoder_pretraining._Loop, "_take", lambda *_: pytest.fail("a step was taken"))
    assert pretrain(recipe, trained) == trained / "model"
    assert weights_of(trained) == before


def test_a_folder_of_another_recipe_or_of_other_data_is_refused(trained, recipe, tmp_path):
    with pytest.raises(ValueError, match=r"holds a run of other settings \(learning_rate: 0.003 there, 0.1 here\)"):
        pretrain(replace(recipe, learning_rate=0.1), trained)
    path = write_pictures(tmp_path / "pictures", seed=2)
    recipe = replace(recipe, data=replace(recipe.data, datasets=[{"json_path": str(path)}]), max_steps=1, held_out=[])
    pretrain(recipe, tmp_path / "run")
    path.write_text(path.read_text().replace("white", "pale"))
    with pytest.raises(ValueError, match=r"data_fingerprint: .* choose another --output"):
        pretrain(recipe, tmp_path / "run")


def test_a_run_that_never_began_leaves_its_folder_to_the_corrected_recipe(recipe, tmp_path):
    wrong = replace(recipe, encoder=replace(recipe.encoder, vision={**VISION, "patch_size": 7}))
    with pytest.raises(ValueError, match=r"encoder.vision: image_size \(32\) is no multiple of patch_size \(7\)"):
        pretrain(wrong, tmp_path)
    bad = [replace(recipe.held_out[0], data=recipe.data, name="seen"), recipe.held_out[0]]
    short = replace(
        recipe, max_steps=1, held_out=bad, encoder=replace(recipe.encoder, vision={**VISION, "num_hidden_layers": 2})
    )
    pretrain(short, tmp_path)
    assert len(values_of(tmp_path, "held_out_accuracy/seen")) == 1


# The result


def test_the_result_opens_with_transformers_and_finds_captions(trained, recipe_path, capfd):
    folder = trained / "model"
    processor = SiglipProcessor.from_pretrained(folder)
    captions = [f"a {name} square" for name in COLOURS]
    pictures = [Image.open(recipe_path.parent / "unseen" / f"{number}.png") for number in range(4)]
    inputs = processor(text=captions, images=pictures, padding="max_length", max_length=8, return_tensors="pt")
    model = SiglipModel.from_pretrained(folder).eval()
    assert type(AutoModel.from_pretrained(folder)) is SiglipModel
    with torch.no_grad():
        assert model(**inputs).logits_per_image.argmax(1).tolist() == [0, 1, 2, 3]
    assert "nitialized" not in capfd.readouterr().err


def test_a_fusion_starts_from_the_encoder(trained, tmp_path, capfd):
    folder = trained / "model"
    capfd.readouterr()
    spec = ModelFromScratch(**{**MICRO_MODEL, "vision": str(folder)})
    scratch, processor = build_from_scratch(spec, ["a red square"], num_latents=4, seed=0)
    decoder = tmp_path / "decoder"
    tokenizer = train_tokenizer(["a red square"], 300)
    fields = {name: value for name, value in MICRO_MODEL["decoder"].items() if name != "model_type"}
    AutoModelForCausalLM.from_config(LlamaConfig(**fields, vocab_size=len(tokenizer))).save_pretrained(decoder)
    tokenizer.save_pretrained(decoder)
    parts = ModelFromParts(
        decoder=str(decoder), vision=str(folder), chat_template="chatml", fusion=MICRO_MODEL["fusion"]
    )
    joined, _ = build_from_parts(parts, num_latents=4, seed=0)
    learned = load_file(folder / "model.safetensors")
    for model in (scratch, joined):
        weights = {name: it for name, it in model.state_dict().items() if name.startswith(TOWER)}
        assert len(weights) > 30
        for name, weight in weights.items():
            inner = name.removeprefix(TOWER)
            its = learned[f"vision_model.{inner if inner.startswith('embeddings') else f'encoder.{inner}'}"]
            assert torch.equal(weight, its), name
    assert processor.image_processor.size["height"] == VISION["image_size"]
    assert "[transformers]" not in capfd.readouterr().err


def test_a_run_may_start_from_an_encoder(trained, recipe_path, recipe, tmp_path, capfd):
    capfd.readouterr()
    values = yaml.safe_load(recipe_path.read_text()) | {"max_steps": 1, "learning_rate": 1e-9}
    values["encoder"] = {"checkpoint": str(trained / "model")}
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main(["train", str(path), "--output", str(tmp_path / "more")]) == 0
    assert (
        values_of(tmp_path / "more", "held_out_accuracy/unseen") == values_of(trained, "held_out_accuracy/unseen")[-1:]
    )
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (trained, tmp_path / "more"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-6, rtol=0)
    told = capfd.readouterr()
    assert f"The trained encoder is in {tmp_path / 'more' / 'model'}: model.vision=" in told.out
    assert "[transformers]" not in told.out + told.err


# Refusals


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("encoder.vision.hidden_sise=32", "encoder.vision: SiglipVisionConfig has no field 'hidden_sise' to set"),
        ("encoder.text.vocab_size=32", "encoder.text: SiglipTextConfig has no field 'vocab_size' to set"),
        ("encoder.vision.patch_size=5", "image_size (32) is no multiple of patch_size (5)"),
        ("encoder.vision.num_attention_heads=3", "hidden_size (32) is no multiple of num_attention_heads (3)"),
        ("encoder.text.hidden_size=16", "pictures and captions are compared at one width"),
        ("encoder.text.projection_size=16", "pictures and captions are compared at one width"),
        ("encoder.vision.num_hidden_layers=0", "encoder.vision.num_hidden_layers is 0, and must be at least 1"),
        ("encoder.vocab_size=10", "encoder.vocab_size is 10, and a tokenizer has at least 260"),
        (
            "encoder={vision: {hidden_size: 18, num_attention_heads: 2}, text: {}}",
            "hidden_size (18) is no multiple of 4",
        ),
        ("batch_size=1", "batch_size"),
        ("max_steps=0", "max_steps"),
        ("learning_rate=0", "nothing would be learned"),
        ("learning_rate=-1", "learning_rate"),
        ("learning_rate=.nan", "learning_rate"),
        ("recolored=1.5", "recolored is 1.5, a share of the pictures: it must be at most 1"),
        ("dropped_patches=1", "must be below 1"),
        ("learning_rate=101", "learning_rate is 101.0, and nothing is trained at more than 100"),
        ("adam_beta2=1", "adam_beta2"),
        ("save_every=7", "save_every (7) must be a multiple of log_every (5)"),
        ("held_out=[{name: a, pictures: 1, data: {datasets: [{kind: easy-vqa}]}}]", "held_out a: pictures"),
        ("stages=[]", "stages"),
        ("optimizer=sgd", "sgd"),
    ],
)
def test_recipes_that_cannot_be_are_one_sentence(recipe_path, tmp_path, capsys, override, reason):
    assert main(["train", str(recipe_path), override, "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert "Traceback" not in told
    assert not list(tmp_path.glob("run/model*"))


@pytest.mark.parametrize("option", [["--stage", "0"], ["--model", "/nowhere"]])
def test_stage_and_model_are_not_for_an_encoder(recipe_path, capsys, option):
    assert main(["train", str(recipe_path), *option]) == 2
    assert "describes one encoder and one stage: leave out --model and --stage" in capsys.readouterr().err


def test_an_output_below_a_file_is_refused(recipe_path, capsys):
    assert main(["train", str(recipe_path), "--output", str(recipe_path / "run")]) == 2
    assert "encoder.yaml is a file. Choose another --output" in capsys.readouterr().err


def test_several_processes_are_refused(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="Stage 0 trains in one process: start it without torchrun"):
        pretrain(recipe, tmp_path)


def test_a_sample_without_a_picture_is_named(recipe, tmp_path):
    path = write_pictures(tmp_path / "pictures", seed=0)
    rows = json.loads(path.read_text())
    for row in rows:
        del row["image"]
        row["conversations"][0]["value"] = "What is it?"
    path.write_text(json.dumps(rows))
    data = replace(recipe.data, datasets=[{"json_path": str(path)}])
    with pytest.raises(
        ValueError, match=r"sample '\d+' has no picture, and stage 0 learns from pictures with captions"
    ):
        pretrain(replace(recipe, data=data), tmp_path / "run")


def test_a_fusion_is_no_encoder_to_go_on_from(recipe, tmp_path):
    model, processor = build_from_scratch(ModelFromScratch(**MICRO_MODEL), ["a red square"], num_latents=4, seed=0)
    model.save_pretrained(tmp_path / "fusion")
    processor.save_pretrained(tmp_path / "fusion")
    with pytest.raises(ValueError, match="fusion is a fusionvl model: stage 0 trains a whole SigLIP"):
        pretrain(replace(recipe, encoder=TrainedEncoder(str(tmp_path / "fusion"))), tmp_path / "run")
    with pytest.raises(ValueError, match="There is no folder /nowhere"):
        pretrain(replace(recipe, encoder=TrainedEncoder("/nowhere")), tmp_path / "run")


def test_which_recipes_are_of_an_encoder(recipe_path, tmp_path):
    assert is_encoder_recipe(recipe_path)
    assert is_encoder_recipe("recipes/encoder.yaml")
    assert not is_encoder_recipe("recipes/nano.yaml")
    assert not is_encoder_recipe(tmp_path / "missing.yaml")
    assert load_encoder_recipe("recipes/encoder.yaml").encoder.vocab_size == 768
    (tmp_path / "broken.yaml").write_text("{")
    assert not is_encoder_recipe(tmp_path / "broken.yaml")
