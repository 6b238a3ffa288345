import json

import pytest

from fusionvl.processing import FusionProcessor

from .conftest import tiny_tokenizer


@pytest.fixture
def released_folder(reference_dir, tmp_path):
    """Writes a folder as released: a config and tokenizer files, nothing about images."""

    def write(template="llama_3", **changes):
        tiny_tokenizer(template).save_pretrained(tmp_path)
        config = json.loads((reference_dir / "checkpoints" / "llama-siglip" / "config.json").read_text())
        config |= {"mm_vision_tower": "google/siglip-so400m-patch14-384", "query_len": "4,16,36,64,144"}
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        return tmp_path

    return write


def test_a_released_folder_becomes_a_processor(released_folder):
    folder = released_folder()
    processor = FusionProcessor.from_pretrained(folder)
    assert (processor.image_processor.side, processor.patch_size, processor.num_latents) == (384, 14, 64)
    assert processor.num_image_tokens == 729
    assert "<|start_header_id|>" in processor.chat_template
    processor.save_pretrained(folder / "ours")
    assert FusionProcessor.from_pretrained(folder / "ours").num_image_tokens == 729


@pytest.mark.parametrize(("model_type", "template"), [("fusion_phi", "phi_3"), ("fusion_qwen", "chatml")])
def test_other_members_of_the_family(released_folder, model_type, template):
    tower = "google/siglip2-giant-opt-patch16-384"
    folder = released_folder(template, model_type=model_type, mm_vision_tower=tower, query_len="4,16")
    processor = FusionProcessor.from_pretrained(folder, image_token_grid=16)
    assert (processor.patch_size, processor.num_latents, processor.num_image_tokens) == (16, 16, 256)


def test_unknown_tower_needs_a_patch_size(released_folder):
    folder = released_folder(mm_vision_tower="tower-siglip", query_len="4")
    with pytest.raises(ValueError, match=r"'tower-siglip' is not known.*pass patch_size="):
        FusionProcessor.from_pretrained(folder)
    processor = FusionProcessor.from_pretrained(folder, patch_size=16)
    assert (processor.num_image_tokens, processor.num_latents) == (576, 4)


def test_mistral_needs_a_chat_template(released_folder):
    folder = released_folder(model_type="fusion_mistral")
    with pytest.raises(ValueError, match="pass chat_template="):
        FusionProcessor.from_pretrained(folder)
    assert FusionProcessor.from_pretrained(folder, chat_template="llama_3").num_latents == 64
