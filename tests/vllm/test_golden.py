"""vLLM gives the tokens that the released code gave (tests/reference), from checkpoints in the released layout."""

import json
import math
import shutil

import pytest
import torch
from golden import CHECKPOINTS, Golden, expand
from safetensors.torch import load_file, save_file
from vllm import SamplingParams

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionImageProcessorPil, FusionProcessor
from fusionvl.vllm.processor import INPUTS, Inputs

CASES = ("generate_one_turn", "generate_two_turns")
NEW_TOKENS = 16
HEADS, KEY_HEADS, NARROW, WIDE = 4, 2, 16, 32


def widened(weight, heads, is_rotated, scale=1.0):
    """Rows of heads of 16, laid into heads of 32 that compute the same; vLLM's attention on a CPU knows no 16.

    Rotary frequency j of 8 is frequency 2j of 16; a head's second half holds the partners of its first.
    """
    narrow = weight.view(heads, NARROW, -1) * scale
    wide = narrow.new_zeros(heads, WIDE, narrow.shape[-1])
    if is_rotated:
        wide[:, 0 : WIDE // 2 : 2], wide[:, WIDE // 2 :: 2] = narrow[:, : NARROW // 2], narrow[:, NARROW // 2 :]
    else:
        wide[:, :NARROW] = narrow
    return wide.flatten(0, 1)


def widen(tensors):
    """All attention layers of a decoder in the released layout."""
    for name in [name for name in tensors if name.startswith("model.layers.") and ".self_attn." in name]:
        weight = tensors[name]
        scale = math.sqrt(WIDE / NARROW)  # scores are divided by the root of a head's width
        if ".qkv_proj." in name:
            query, key, value = weight.split([HEADS * NARROW, KEY_HEADS * NARROW, KEY_HEADS * NARROW])
            parts = widened(query, HEADS, True, scale), widened(key, KEY_HEADS, True), widened(value, KEY_HEADS, False)
            tensors[name] = torch.cat(parts)
        elif ".q_proj." in name:
            tensors[name] = widened(weight, HEADS, True, scale)
        elif ".k_proj." in name or ".v_proj." in name:
            tensors[name] = widened(weight, KEY_HEADS, ".k_proj." in name)
        else:
            tensors[name] = widened(weight.T.contiguous(), HEADS, False).T.contiguous()


@pytest.fixture(params=CHECKPOINTS)
def golden(request, reference_dir):
    found = Golden(reference_dir, request.param)
    found.source = reference_dir / "checkpoints" / request.param
    return found


@pytest.fixture
def folder(golden, shipped, tmp_path):
    """The checkpoint in its own layout, with wider heads, and a tokenizer that nothing here asks."""
    target = tmp_path / "wide"
    shutil.copytree(golden.source, target)
    tensors = load_file(target / "model.safetensors")
    widen(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"head_dim": WIDE}))
    vision = golden.model.config.vision_config
    FusionProcessor(
        FusionImageProcessorPil(size=vision.image_size),
        FusionProcessor.from_pretrained(shipped).tokenizer,
        "chatml",
        num_latents=4,
        patch_size=vision.patch_size,
    ).save_pretrained(target)
    return target


def inputs_of(golden, case, row_name):
    layout = expand(golden.model.config, case, num_latents=4)
    batch = {**layout, "pixel_values": golden.pixels[1:], "guide_input_ids": case["instructs"]}
    return layout, Inputs.of(batch)


def test_tokens_of_the_released_code(golden, folder, load, picture):
    expected = {name: golden.case(name)["output_ids"][0].tolist() for name in CASES}
    made = {name: inputs_of(golden, golden.case(name), name) for name in CASES}

    ours = FusionForConditionalGeneration.from_pretrained(folder).eval()
    for name, (layout, _) in made.items():
        generated = ours.generate(
            **layout,
            pixel_values=golden.pixels[1:],
            guide_input_ids=golden.case(name)["instructs"],
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        assert generated[0, layout["input_ids"].shape[1] :].tolist() == expected[name], "wider heads compute the same"

    model = load(folder)
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    prompts = [
        {"prompt_token_ids": list(inputs.token_ids), "multi_modal_data": {"image": picture}, INPUTS: inputs}
        for _, inputs in made.values()
    ]
    together = model.generate([*prompts, *prompts, prompts[0]], sampling, use_tqdm=False)
    found = [list(output.outputs[0].token_ids) for output in together]
    assert found == [*expected.values(), *expected.values(), expected[CASES[0]]]
