"""Checkpoints of the authors: loading, refusing, saving in our layout, and the geometry of the real family."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from fusionvl.model import FusionConfig, FusionForConditionalGeneration, FusionModel
from fusionvl.model.released import convert_config, is_released
from fusionvl.processing import FusionProcessor
from fusionvl.processing.tokenizer_files import load_tokenizer

SO400M, GIANT = "google/siglip-so400m-patch14-384", "google/siglip2-giant-opt-patch16-384"


def released_config(model_type, tower=SO400M, **decoder):
    """The keys of a released config.json."""
    return {
        "architectures": ["FusionForCausalLM"],
        "image_aspect_ratio": "static_hd",
        "mm_hidden_size": 1152,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": True,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "model_type": model_type,
        "num_of_vision_sampler_layers": 10,
        "query_len": "4,16,36,64,144",
        "start_of_vision_sampler_layers": 0,
        "stride_of_vision_sampler_layers": 3,
        "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.48.1",
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": True,
        "use_cache": True,
        "use_mm_proj": True,
        "window_size": 3,
        **decoder,
    }


LLAMA_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_8B = {
    "vocab_size": 128258,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA_ROPE,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}
PHI_ROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
PHI_MINI = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": PHI_ROPE,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "pad_token_id": 32000,
    "sliding_window": 262144,
}


@pytest.fixture
def checkpoint(reference_dir, tmp_path):
    """A released checkpoint that a test may change."""
    return shutil.copytree(reference_dir / "checkpoints" / "llama-siglip", tmp_path / "released")


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


class TestLoading:
    def test_auto_classes(self, checkpoint):
        config = AutoConfig.from_pretrained(checkpoint)
        assert type(config) is FusionConfig
        model = AutoModelForImageTextToText.from_pretrained(checkpoint)
        assert type(model) is FusionForConditionalGeneration
        assert not model.training
        own = FusionForConditionalGeneration.from_pretrained(checkpoint)
        assert own.config.to_dict() == model.config.to_dict()
        for (name, ours), auto in zip(own.state_dict().items(), model.state_dict().values(), strict=True):
            assert torch.equal(ours, auto), name

    def test_every_released_weight_arrives(self, checkpoint):
        model = FusionForConditionalGeneration.from_pretrained(checkpoint)
        released = load_file(checkpoint / "model.safetensors")
        unused = [key for key in released if "post_layernorm" in key or ".head." in key]
        assert unused
        assert len(model.state_dict()) == len(released) - len(unused)
        tower = "model.vision_tower.vision_tower.vision_model."
        sampler = "model.vision_sampler_layers.2.layers.0."
        pairs = {
            "lm_head.weight": "lm_head.weight",
            "model.language_model.embed_tokens.weight": "model.embed_tokens.weight",
            "model.language_model.layers.7.mlp.up_proj.weight": "model.layers.7.mlp.up_proj.weight",
            "model.vision_tower.layers.25.mlp.fc1.bias": f"{tower}encoder.layers.25.mlp.fc1.bias",
            "model.vision_to_text.fc2.bias": "model.mm_projector.2.bias",
            "model.text_to_vision.fc1.weight": "model.aux_projector.0.weight",
            "model.interaction_layers.2.attention.k_norm.bias": f"{sampler}cross_attn.k_proj.0.bias",
            "model.interaction_layers.2.attention.v_proj.weight": f"{sampler}cross_attn.v_proj.1.weight",
            "model.interaction_layers.2.fc2.weight": f"{sampler}proj_out.linear_2.weight",
        }
        for ours, theirs in pairs.items():
            assert torch.equal(model.state_dict()[ours], released[theirs]), ours

    def test_released_config_means_released_behaviour(self, checkpoint):
        config = AutoConfig.from_pretrained(checkpoint)
        assert (config.early_guidance, config.mapping_targets) == ("released", "live")
        assert config.interaction_layer_indices == [0, 3, 6]
        assert (config.window_size, config.interaction_heads, config.image_token_grid) == (3, 16, None)
        assert (config.text_config.model_type, config.text_config.vocab_size) == ("llama", 260)
        assert (config.image_token_id, config.latent_token_id) == (260, 261)
        vision = config.vision_config
        assert (vision.hidden_size, vision.num_attention_heads, vision.num_hidden_layers) == (32, 2, 27)

    def test_heads_of_an_unknown_tower_can_be_given(self, checkpoint):
        model = FusionForConditionalGeneration.from_pretrained(checkpoint, vision_heads=4)
        assert model.config.vision_config.num_attention_heads == 4
        assert AutoConfig.from_pretrained(checkpoint, vision_heads=8).vision_config.num_attention_heads == 8

    def test_base_model_alone(self, checkpoint):
        base = FusionModel.from_pretrained(checkpoint)
        whole = FusionForConditionalGeneration.from_pretrained(checkpoint)
        for name, tensor in base.state_dict().items():
            assert torch.equal(tensor, whole.model.state_dict()[name]), name

    def test_dtype(self, checkpoint):
        model = FusionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}

    @pytest.mark.parametrize(
        "imports",
        [
            "import fusionvl.auto; from transformers import AutoConfig, AutoModelForImageTextToText",
            "from transformers import AutoConfig, AutoModelForImageTextToText; import fusionvl.auto",
        ],
    )
    def test_plain_import_registers_in_either_order(self, reference_dir, imports):
        code = (
            f"{imports}\nimport sys\nfolder = sys.argv[1]\n"
            "print(type(AutoConfig.from_pretrained(folder)).__name__,"
            " type(AutoModelForImageTextToText.from_pretrained(folder)).__name__)"
        )
        folder = str(reference_dir / "checkpoints" / "llama-siglip")
        out = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True, env=os.environ
        )
        assert out.stdout.split() == ["FusionConfig", "FusionForConditionalGeneration"]


class TestSaving:
    @pytest.mark.parametrize("name", ["llama-siglip", "phi-siglip"])
    def test_saves_our_layout_and_comes_back_equal(self, reference_dir, tmp_path, name):
        model = FusionForConditionalGeneration.from_pretrained(reference_dir / "checkpoints" / name)
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "fusionvl"
        assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(model.state_dict())
        again = FusionForConditionalGeneration.from_pretrained(tmp_path)
        assert again.config.to_diff_dict() == model.config.to_diff_dict()
        for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(before, after), name
        again.save_pretrained(tmp_path / "twice")
        assert sorted(load_file(tmp_path / "twice" / "model.safetensors")) == sorted(model.state_dict())


class TestAsOnTheHub:
    """A folder as people download it: shards, a SentencePiece tokenizer, foreign code beside the config."""

    @pytest.fixture
    def hub_folder(self, reference_dir, tmp_path):
        """The tiny Phi checkpoint, dressed as a released one; its foreign code leaves a mark if it runs."""
        folder = tmp_path / "hub"
        folder.mkdir()
        model = FusionForConditionalGeneration.from_pretrained(reference_dir / "checkpoints" / "phi-siglip")
        released = load_file(reference_dir / "checkpoints" / "phi-siglip" / "model.safetensors")
        names = sorted(released)
        shards = [names[index::3] for index in range(3)]
        weight_map = {}
        for number, shard in enumerate(shards, start=1):
            file = f"model-{number:05}-of-00003.safetensors"
            save_file({name: released[name] for name in shard}, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        config = json.loads((reference_dir / "checkpoints" / "phi-siglip" / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": "foreign.FusionConfig",
            "AutoModelForCausalLM": "foreign.FusionPhiForCausalLM",
            "AutoModelForImageTextToText": "foreign.FusionPhiForCausalLM",
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); raise RuntimeError('foreign code')")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 32000, "pad_token_id": 32000}))
        for path in (reference_dir / "tokenizers" / "phi").iterdir():
            shutil.copyfile(path, folder / path.name)
        yield folder, model
        assert not (tmp_path / "ran").exists()

    def test_loads_through_the_auto_classes(self, hub_folder):
        import fusionvl.auto  # noqa: F401 - registers the classes

        folder, whole = hub_folder
        model = AutoModelForImageTextToText.from_pretrained(folder)
        for (name, expected), (other, found) in zip(whole.named_parameters(), model.named_parameters(), strict=True):
            assert name == other
            assert torch.equal(expected, found)
        processor = AutoProcessor.from_pretrained(folder, patch_size=14)
        assert (processor.end_of_turn_id, processor.leading_space) == (32007, True)

    def test_answers_end_at_the_end_of_a_turn(self, hub_folder, tmp_path):
        """`generation_config.json` lists 32000 alone; `<|end|>` is 32007. It stays so when the model is saved."""
        folder, _ = hub_folder
        model = FusionForConditionalGeneration.from_pretrained(folder)
        assert model.generation_config.eos_token_id == [32000, 32007]
        model.save_pretrained(tmp_path / "ours")
        again = FusionForConditionalGeneration.from_pretrained(tmp_path / "ours")
        assert again.generation_config.eos_token_id == [32000, 32007]

    def test_the_end_of_a_turn_is_found_in_a_fast_tokenizer_too(self, hub_folder):
        folder, _ = hub_folder
        load_tokenizer(folder, {}).save_pretrained(folder)
        assert "added_tokens_decoder" not in json.loads((folder / "tokenizer_config.json").read_text())
        model = FusionForConditionalGeneration.from_pretrained(folder)
        assert model.generation_config.eos_token_id == [32000, 32007]

    def test_without_a_tokenizer_the_listed_ends_stay(self, hub_folder):
        folder, _ = hub_folder
        for name in ("tokenizer_config.json", "tokenizer.model"):
            (folder / name).unlink()
        assert FusionForConditionalGeneration.from_pretrained(folder).generation_config.eos_token_id == [32000]

    def test_generation_stops_there(self, hub_folder):
        """A head that says nothing but the end of turn, after two tokens. The tiny vocabulary is widened for it."""
        folder, _ = hub_folder
        model = FusionForConditionalGeneration.from_pretrained(folder)
        model.resize_token_embeddings(32064)
        calls = []

        def say_the_end(_module, _args, logits):
            calls.append(1)
            logits = torch.zeros_like(logits)
            logits[..., 32007 if len(calls) > 2 else 5] = 1.0
            return logits

        model.lm_head.register_forward_hook(say_the_end)
        ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
        assert model.generate(ids, max_new_tokens=9, do_sample=False)[:, 3:].tolist() == [[5, 5, 32007]] * 2

    @pytest.mark.parametrize("tower", ["/data/models/siglip-so400m-patch14-384/", f"someone/{GIANT.split('/')[1]}"])
    def test_a_tower_named_by_a_path_is_known_to_model_and_processor(self, hub_folder, tower):
        folder, _ = hub_folder
        config = json.loads((folder / "config.json").read_text()) | {"mm_vision_tower": tower}
        (folder / "config.json").write_text(json.dumps(config))
        patch = AutoConfig.from_pretrained(folder).vision_config.patch_size
        processor = FusionProcessor.from_pretrained(folder)
        assert processor.patch_size == patch == (14 if "so400m" in tower else 16)


class TestRefusals:
    def test_missing_key(self, checkpoint):
        edit_tensors(checkpoint, lambda tensors: tensors.pop("model.aux_projector.2.bias"))
        with pytest.raises(ValueError, match=r"1 missing keys \['model.text_to_vision.fc2.bias'\]"):
            FusionForConditionalGeneration.from_pretrained(checkpoint)

    def test_missing_head(self, checkpoint):
        edit_tensors(checkpoint, lambda tensors: tensors.pop("lm_head.weight"))
        with pytest.raises(ValueError, match=r"lm_head\.weight"):
            FusionForConditionalGeneration.from_pretrained(checkpoint)

    def test_unexpected_key(self, checkpoint):
        edit_tensors(checkpoint, lambda tensors: tensors.update({"model.surprise.weight": torch.zeros(2)}))
        with pytest.raises(ValueError, match=r"1 unexpected keys \['model.surprise.weight'\]"):
            FusionForConditionalGeneration.from_pretrained(checkpoint)

    def test_unexpected_key_in_our_layout(self, tiny, tmp_path):
        tiny.model().save_pretrained(tmp_path)
        edit_tensors(tmp_path, lambda tensors: tensors.update({"model.surprise.weight": torch.zeros(2)}))
        with pytest.raises(ValueError, match=r"model\.surprise\.weight"):
            FusionForConditionalGeneration.from_pretrained(tmp_path)

    def test_missing_key_in_our_layout(self, tiny, tmp_path):
        tiny.model().save_pretrained(tmp_path)
        edit_tensors(tmp_path, lambda tensors: tensors.pop("model.interaction_layers.1.fc2.weight"))
        with pytest.raises(ValueError, match=r"model\.interaction_layers\.1\.fc2\.weight"):
            FusionForConditionalGeneration.from_pretrained(tmp_path)

    def test_interaction_layers_beyond_the_config(self, checkpoint):
        edit_config(checkpoint, num_of_vision_sampler_layers=2)
        with pytest.raises(ValueError, match="unexpected keys"):
            FusionForConditionalGeneration.from_pretrained(checkpoint)

    def test_pickle(self, checkpoint):
        tensors = load_file(checkpoint / "model.safetensors")
        (checkpoint / "model.safetensors").unlink()
        torch.save(tensors, checkpoint / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"pickle \(pytorch_model.bin\)"):
            FusionForConditionalGeneration.from_pretrained(checkpoint)

    def test_unknown_tower_without_its_checkpoint(self):
        with pytest.raises(ValueError, match="Unknown vision tower 'someone/tower'"):
            convert_config(released_config("fusion_llama", tower="someone/tower", **LLAMA_8B))

    def test_unknown_tower_without_tensors(self, checkpoint):
        (checkpoint / "model.safetensors").unlink()
        with pytest.raises(ValueError, match="holds no vision tower"):
            AutoConfig.from_pretrained(checkpoint)


class TestConvertConfig:
    @pytest.mark.parametrize(
        ("tower", "width", "mlp", "layers", "patch", "tokens"),
        [(SO400M, 1152, 4304, 27, 14, 729), (GIANT, 1536, 6144, 40, 16, 576)],
    )
    def test_known_towers_need_no_download(self, tower, width, mlp, layers, patch, tokens):
        config = convert_config(released_config("fusion_llama", tower=tower, **LLAMA_8B))
        vision = config.vision_config
        assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) == (width, mlp, layers)
        assert (vision.patch_size, vision.image_size, vision.num_attention_heads) == (patch, 384, 16)
        assert (vision.layer_norm_eps, vision.hidden_act) == (1e-6, "gelu_pytorch_tanh")
        assert config.num_image_tokens == tokens
        assert config.interaction_layer_indices == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]

    @pytest.mark.parametrize(("model_type", "decoder"), [("fusion_qwen", "qwen2"), ("fusion_mistral", "mistral")])
    def test_other_decoders(self, model_type, decoder):
        geometry = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 28}
        geometry |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 1e6}
        config = convert_config(released_config(model_type, **geometry))
        assert config.text_config.model_type == decoder
        assert {key: getattr(config.text_config, key) for key in geometry if key != "rope_theta"} == {
            key: value for key, value in geometry.items() if key != "rope_theta"
        }
        assert config.text_config.rope_parameters["rope_theta"] == 1e6
        with torch.device("meta"):
            model = FusionForConditionalGeneration(config)
        assert type(model.model.language_model).__name__ == {"qwen2": "Qwen2Model", "mistral": "MistralModel"}[decoder]

    def test_llama_3_rope_survives_conversion_and_saving(self, tmp_path):
        config = convert_config(released_config("fusion_llama", **LLAMA_8B))
        expected = LLAMA_ROPE | {"rope_theta": 500000.0}
        assert config.text_config.rope_parameters == expected
        assert config.text_config.eos_token_id == [128001, 128008, 128009]
        config.save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters == expected

    def test_phi_rope_survives_conversion(self):
        rope = convert_config(released_config("fusion_phi", **PHI_MINI)).text_config.rope_parameters
        assert (rope["rope_type"], rope["rope_theta"]) == ("longrope", 10000.0)
        assert (rope["short_factor"], rope["long_factor"]) == (PHI_ROPE["short_factor"], PHI_ROPE["long_factor"])

    def test_llama_3_rope_reaches_the_decoder(self):
        small = LLAMA_8B | {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
        small |= {"intermediate_size": 64, "vocab_size": 96, "num_hidden_layers": 28}
        frequencies = {}
        for name, scaling in {"plain": None, "scaled": LLAMA_ROPE}.items():
            config = convert_config(released_config("fusion_llama", **small | {"rope_scaling": scaling}))
            config.text_config.num_hidden_layers = 1
            frequencies[name] = AutoModel.from_config(config.text_config).rotary_emb.inv_freq.float()
        ratio = frequencies["plain"] / frequencies["scaled"]
        assert ratio[0] == 1
        assert ratio[-1] == pytest.approx(8, rel=0.02)

    def test_bfloat16_is_kept(self):
        config = convert_config(released_config("fusion_llama", **LLAMA_8B))
        assert config.dtype == torch.bfloat16
        assert config.text_config.dtype == torch.bfloat16

    def test_ours_is_not_released(self, tiny):
        assert not is_released(tiny.config().to_dict())
        assert is_released(released_config("fusion_phi"))


@pytest.mark.parametrize(
    ("model_type", "tower", "decoder", "billions"),
    [
        ("fusion_llama", SO400M, LLAMA_8B, 9.975),
        ("fusion_llama", GIANT, LLAMA_8B, 10.69),
        ("fusion_phi", SO400M, PHI_MINI, 5.09),
        ("fusion_phi", GIANT, PHI_MINI, 5.81),
    ],
)
def test_parameter_counts(model_type, tower, decoder, billions):
    config = convert_config(released_config(model_type, tower=tower, **decoder))
    with torch.device("meta"):
        model = FusionForConditionalGeneration(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(billions * 1e9, rel=0.002)
