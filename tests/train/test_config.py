"""Recipes: what a file and the command line say, and what cannot be trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fusionvl.data.replacement import FaultPolicy
from fusionvl.train.config import LearningRates, MixtureData, ModelFromCheckpoint, ModelFromParts, dump_recipe
from fusionvl.train.encoder_recipe import is_encoder_recipe, load_encoder_recipe
from fusionvl.train.recipe_loading import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
# Those of ablations are of another kind, and tests/ablation loads them.
OF_SEVERAL_MODELS = {FOLDER / "fusion.yaml", FOLDER / "finetune.yaml"}
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("ablation*.yaml")) - OF_SEVERAL_MODELS)
PAPER_MODELS = {
    "3b": ("microsoft/Phi-3.5-mini-instruct", "google/siglip-so400m-patch14-384"),
    "8b": ("meta-llama/Llama-3.1-8B-Instruct", "google/siglip-so400m-patch14-384"),
    "x_3b": ("microsoft/Phi-3.5-mini-instruct", "google/siglip2-giant-opt-patch16-384"),
    "x_8b": ("meta-llama/Llama-3.1-8B-Instruct", "google/siglip2-giant-opt-patch16-384"),
}
PARTS = {"kind": "parts", "decoder": "a/b", "vision": "c/d", "chat_template": "chatml"}


@pytest.fixture
def path(tmp_path, recipe_text):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path):
    load = load_encoder_recipe if is_encoder_recipe(path) else load_recipe
    assert load(path).name == path.stem


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_the_numbers_of_the_paper(name):
    recipe = load_recipe(FOLDER / "fusion.yaml", model=name)
    assert recipe.name == f"fusion_{name}"
    assert (recipe.model.decoder, recipe.model.vision) == PAPER_MODELS[name]
    assert recipe.model.chat_template == ("phi_3" if "3b" in name else "llama_3")
    assert recipe.held_out is not None
    stages = recipe.stages
    assert [stage.name for stage in stages] == ["1", "1.5", "2"]
    assert [stage.batch_size * stage.gradient_accumulation for stage in stages] == [256, 128, 128]
    assert [stage.learning_rates.decoder for stage in stages] == [2e-5, 2e-5, 1e-5]
    assert [stage.learning_rates.vision_tower for stage in stages] == [2e-5, 2e-6, 1e-6]
    assert [stage.max_length for stage in stages] == [2048, 4096, 4096]
    assert all(stage.warmup_ratio == 0.03 and stage.weight_decay == 0 and stage.epochs == 1 for stage in stages)
    assert all(stage.num_latents == [4, 16, 36, 64, 144] for stage in stages)


@pytest.mark.parametrize("name", ["x_3b", "8b"])
def test_fine_tuning_starts_from_a_released_model_with_lora(name):
    recipe = load_recipe(FOLDER / "finetune.yaml", model=name)
    assert isinstance(recipe.model, ModelFromCheckpoint)
    assert recipe.model.checkpoint.startswith("starriver030515/FUSION-")
    assert recipe.stages[0].lora is not None
    assert recipe.held_out is not None
    everything = load_recipe(FOLDER / "finetune.yaml", ["stages.lora=null"], model=name)
    assert everything.stages[0].lora is None


def test_a_recipe_of_several_models_needs_the_name_of_one():
    for name in (None, "70b"):
        with pytest.raises(ValueError, match=r"fusion\.yaml: describes several models: choose .* --model 3b \| 8b"):
            load_recipe(FOLDER / "fusion.yaml", model=name)
    with pytest.raises(ValueError, match=r"nano\.yaml: describes one model: leave out --model 8b"):
        load_recipe(FOLDER / "nano.yaml", model="8b")


def test_numbers_without_a_dot_are_numbers(path):
    path.write_text(path.read_text().replace("decoder: 0.001", "decoder: 2e-5"))
    assert load_recipe(path).stages[0].learning_rates == LearningRates(1e-3, 1e-3, 1e-3, 2e-5)


def test_a_dumped_recipe_reads_back(path, recipe):
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_epochs_are_counted_in_steps(recipe):
    stage = replace(recipe.stages[0], max_steps=None, epochs=1, batch_size=8, gradient_accumulation=32)
    assert stage.steps(10_000_000) == 39063, "the last step is filled up: no row is left out"
    assert stage.steps(3) == 1
    assert recipe.stages[0].steps(10_000_000) == 4


class TestOverrides:
    def test_win_over_the_file_and_are_told(self, path, caplog):
        caplog.set_level("INFO", logger="fusionvl")
        recipe = load_recipe(path, ["seed=7", "log_every=2"])
        assert (recipe.seed, recipe.log_every, recipe.name) == (7, 2, "tiny")
        assert caplog.messages == ["seed: not in the file -> 7", "log_every: 1 -> 2"]

    def test_of_all_stages(self, path):
        recipe = load_recipe(path, ["stages.max_steps=9", "stages.learning_rates.decoder=2e-5"])
        assert [stage.max_steps for stage in recipe.stages] == [9, 9]
        assert [stage.learning_rates.decoder for stage in recipe.stages] == [2e-5, 2e-5]

    def test_of_one_stage_by_its_name(self, path, caplog):
        caplog.set_level("INFO", logger="fusionvl")
        path.write_text(path.read_text().replace("name: '2'", "name: '1.5'"))
        recipe = load_recipe(path, ["stages.1.5.max_steps=9", "stages.1.lora.rank=8"])
        assert [stage.max_steps for stage in recipe.stages] == [4, 9]
        assert [stage.lora and stage.lora.rank for stage in recipe.stages] == [8, None]
        assert caplog.messages == ["stages.1.5.max_steps: 4 -> 9", "stages.1.lora.rank: not in the file -> 8"]

    def test_of_a_stage_whose_values_the_file_refers_to_twice(self, path):
        values = yaml.safe_load(path.read_text())
        values["stages"][1] = values["stages"][0] | {"name": "2"}
        path.write_text(yaml.safe_dump(values))
        assert "*id" in path.read_text()
        recipe = load_recipe(path, ["stages.2.learning_rates.decoder=0.5"])
        assert [stage.learning_rates.decoder for stage in recipe.stages] == [1e-3, 0.5]

    @pytest.mark.parametrize(
        ("override", "reason"),
        [
            ("stages.3.max_steps=9", "there is no stage of that name, only 1, 2"),
            ("stages.max_stepz=9", "max_stepz"),
            ("stages.lora.ranks=9", "ranks"),
            ("stages.lora.base=int4", "base"),
            ("sede=9", "sede"),
            ("seed=[", "is not YAML"),
            ("seed", "no KEY=VALUE"),
        ],
    )
    def test_that_cannot_be_are_named_with_the_file(self, path, override, reason):
        with pytest.raises(ValueError, match=rf"recipe\.yaml: (?s:.*){reason}"):
            load_recipe(path, [override])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("max_steps: 4", "max_stepz: 4", "max_stepz"),
        ("batch_size: 2", "batch_size: two", "batch_size"),
        ("precision: float32", "precision: float8", "precision"),
        ("name: tiny", "name: tiny\nsaev_every: 3", "saev_every"),
        ("name: '2'", "name: '1'", "a name of its own"),
    ],
)
def test_mistakes_are_named_with_the_file(path, recipe_text, old, new, named):
    assert old in recipe_text
    path.write_text(recipe_text.replace(old, new))
    with pytest.raises(ValueError, match=rf"recipe\.yaml: (?s:.*){named}"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("stages.learning_rates.decoder=.inf", r"Stage 1: learning_rates\.decoder is inf"),
        ("stages.learning_rates.decoder=1e300", "nothing is trained at more than"),
        ("stages.2.learning_rates.mapping=-1", r"Stage 2: learning_rates\.mapping is -1\.0"),
        ("stages.learning_rates.mapping=.nan", r"learning_rates\.mapping is nan"),
        ("stages.learning_rates={vision_tower: 0, mapping: 0, interaction_layers: 0, decoder: 0}", "nothing would be"),
        ("stages.1.max_steps=0", "Stage 1: max_steps is 0"),
        ("stages.1.epochs=1", "Stage 1: give either max_steps or epochs"),
        ("stages.1.max_steps=null", "Stage 1: give either max_steps or epochs"),
        ("stages.1.batch_size=0", "batch_size is 0"),
        ("stages.1.num_latents=[]", "num_latents is"),
        ("stages.1.num_latents=[0, 4]", "mixes 0"),
        ("stages.1.lora={rank: 0}", r"lora\.rank is 0"),
        ("stages=[]", "stages is empty"),
        ("save_every=0", "save_every is 0"),
        ("log_every=0", "log_every is 0"),
        ("log_every=3", r"save_every \(2\) must be a multiple of log_every \(3\)"),
        ("model.vocab_size=0", r"model\.vocab_size is 0"),
        ("model.vision.patch_size=0", r"model\.vision\.patch_size is 0"),
        ("model.vision.patch_size=7", r"image_size \(32\) is no multiple of patch_size \(7\)"),
        ("model.vision.image_size=1000000", "image_size is 1000000 pixels"),
        ("model.vision.num_attention_heads=3", r"hidden_size \(16\) is no multiple of num_attention_heads \(3\)"),
        ("model.vision.patch=4", "SiglipVisionConfig has no field 'patch'"),
        ("model.decoder.model_type=lama", r"model\.decoder\.model_type is 'lama'"),
        ("model.decoder.model_type=siglip", "knows no such language model"),
        ("model.decoder.hidden=4", "LlamaConfig has no field 'hidden'"),
        ("model.decoder.hidden_size=0", r"model\.decoder\.hidden_size is 0"),
        ("model.decoder.num_attention_heads=0", r"model\.decoder\.num_attention_heads is 0"),
        ("model.decoder.num_attention_heads=3", r"model\.decoder: The hidden size \(32\) is not a multiple"),
        ("model.decoder.vocab_size=9", "no field 'vocab_size' to set"),
        ("model.fusion.early_guidance=maskd", r"model\.fusion: .*expected one of \('masked', 'released'\)"),
        ("model.fusion.interaction_stride=0", r"model\.fusion\.interaction_stride is 0"),
        ("model.fusion.interaction_heads=5", "not divisible by interaction_heads = 5"),
    ],
)
def test_what_cannot_train_is_refused_with_file_and_key(path, override, reason):
    with pytest.raises(ValueError, match=rf"recipe\.yaml: (?s:.*)({reason})"):
        load_recipe(path, [override])


def test_adapters_of_a_frozen_part_are_refused(path):
    changes = ["stages.learning_rates.decoder=0", "stages.1.lora={}"]
    with pytest.raises(
        ValueError, match=r"Stage 1: adapters learn at the rate of their part, and that of decoder is 0"
    ):
        load_recipe(path, changes)


@pytest.mark.parametrize(
    ("text", "reason"), [("- a", "a mapping of keys"), ("a: [", "not YAML"), (None, "There is no recipe")]
)
def test_what_is_no_recipe(tmp_path, text, reason):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        load_recipe(path)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (PARTS, ModelFromParts),
        ({**PARTS, "vision": {"hidden_size": 16, "num_attention_heads": 2}, "gguf_file": "x.gguf"}, ModelFromParts),
        ({"kind": "checkpoint", "checkpoint": "runs/nano/model"}, ModelFromCheckpoint),
    ],
)
def test_other_starting_points(path, model, kind):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "model": model}))
    recipe = load_recipe(path)
    assert isinstance(recipe.model, kind)
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({**PARTS, "decodr": "a/b"}, "decodr"),
        ({key: PARTS[key] for key in ("kind", "vision", "chat_template")}, "decoder"),
        ({**PARTS, "vision": 3}, "vision"),
        ({**PARTS, "kind": "party"}, "party"),
        ({**PARTS, "fusion": {"early_guidance": "maskd"}}, "'masked', 'released'"),
        ({**PARTS, "fusion": {"interaction_heads": 0}}, "interaction_heads is 0"),
        ({"kind": "checkpoint", "folder": "x"}, "folder"),
    ],
)
def test_mistakes_in_a_starting_point_are_named(path, model, named):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "model": model}))
    with pytest.raises(ValueError, match=rf"recipe\.yaml: (?s:.*){named}"):
        load_recipe(path)


def test_mixtures_are_data(path):
    content = yaml.safe_load(path.read_text())
    content["stages"][0]["data"] = {"path": "a.yaml", "faults": {"max_corrupt_ratio": 0.5}}
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path)
    assert recipe.stages[0].data == MixtureData("a.yaml", faults=FaultPolicy(max_corrupt_ratio=0.5))
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"path": "a.yaml", "datasets": [{"kind": "easy-vqa"}]},
        {"path": "a.yaml", "max_turns": 2},
        {"path": "a.yaml", "faults": {"ratio": 1}},
    ],
)
def test_mistakes_in_data_are_named(path, data):
    content = yaml.safe_load(path.read_text())
    content["stages"][0]["data"] = data
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"recipe\.yaml"):
        load_recipe(path)
