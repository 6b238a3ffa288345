"""A request is answered alike alone, among others, interrupted, split over processes or compiled."""

import pytest
import torch
from vllm import SamplingParams

from fusionvl.vllm.vllm_model import FusionInVllm

LATENTS = [0, 1, 4, 9, 16, 4, 9, 16]
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, logprobs=0)


@pytest.fixture
def prompts(asked, picture, other_picture):
    """Eight conversations of one to three turns, one without a picture, with their latent tokens."""
    texts = [
        [f"question {number}", "an answer", "and then", "yes", "why?"][: 1 + 2 * (number % 3)] for number in range(8)
    ]
    pictures = [picture, other_picture, None, picture, other_picture, picture, picture, other_picture]
    return [(asked(*t, picture=p), latents) for t, p, latents in zip(texts, pictures, LATENTS, strict=True)]


def answers(model, prompts, together=True):
    outputs = []
    for index, (messages, num_latents) in enumerate(prompts):
        model.enqueue_chat(messages, GREEDY, chat_template_kwargs={"num_latents": num_latents}, use_tqdm=False)
        if not together or index == len(prompts) - 1:
            outputs += model.wait_for_completion(use_tqdm=False)
    return [output.outputs[0] for output in outputs]


def tokens(found):
    return [list(answer.token_ids) for answer in found]


def test_alone_together_and_interrupted(make_model, load, prompts, monkeypatch):
    folder = make_model()
    model = load(folder)
    alone = answers(model, prompts, together=False)
    together = answers(model, prompts)
    assert tokens(together) == tokens(alone)
    assert len({tuple(found) for found in tokens(alone)}) == len(prompts)

    # The least that vLLM allows: a step holds one prompt as long as the context, memory holds two or three requests.
    least = load(folder, max_model_len=256, max_num_batched_tokens=256, num_gpu_blocks_override=4)
    scheduler = least.llm_engine.engine_core.engine_core.scheduler
    preempted = []
    real = scheduler._preempt_request

    def preempt(request, *rest, **options):
        preempted.append(request)
        return real(request, *rest, **options)

    monkeypatch.setattr(scheduler, "_preempt_request", preempt)
    assert tokens(answers(least, prompts)) == tokens(alone)
    assert preempted, "memory was to be too small"


def test_compiled(make_model, load, prompts):
    folder = make_model()
    eager = answers(load(folder), prompts)
    compiled = load(folder, enforce_eager=False)
    assert tokens(answers(compiled, prompts)) == tokens(eager)


def test_tiles_are_encoded_once_for_all_questions(make_model, load, prompts, monkeypatch):
    encoded = []
    real = FusionInVllm.get_global_features
    monkeypatch.setattr(
        FusionInVllm,
        "get_global_features",
        lambda self, pixels: encoded.append(len(pixels)) or real(self, pixels),
    )
    model = load(make_model())
    encoded.clear()  # those of vLLM's own trial
    first = answers(model, prompts)
    assert sum(encoded) == 2, "two pictures, seven questions"
    assert tokens(answers(model, prompts)) == tokens(first)
    assert sum(encoded) == 2


def test_answers_of_one_question_share_its_picture(make_model, load, asked, picture, monkeypatch):
    encoded = []
    real = FusionInVllm.encode_images
    monkeypatch.setattr(
        FusionInVllm,
        "encode_images",
        lambda self, *args, **kwargs: encoded.append(1) or real(self, *args, **kwargs),
    )
    model = load(make_model())
    encoded.clear()
    sampling = SamplingParams(temperature=1.0, n=4, seed=3, max_tokens=12)
    messages = asked("what is it?", picture=picture)
    (first,), (second,) = (model.chat(messages, sampling, use_tqdm=False) for _ in range(2))
    assert encoded == [1]
    drawn = [list(answer.token_ids) for answer in first.outputs]
    assert len({*map(tuple, drawn)}) == 4
    assert drawn == [list(answer.token_ids) for answer in second.outputs]


def test_quantised_decoder(make_model, load, prompts, quantise, tmp_path):
    """int8 weights and activations: the first token's log probability moves by some hundredths, not more."""
    folder = make_model()
    exact = answers(load(folder, dtype="bfloat16"), prompts)
    quantised = answers(load(quantise(folder, tmp_path / "int8"), dtype="bfloat16"), prompts)
    pairs = [(a.logprobs[0], b.logprobs[0], b.token_ids[0]) for a, b in zip(quantised, exact, strict=True)]
    differences = [abs(found[token].logprob - right[token].logprob) for found, right, token in pairs if token in found]
    print(f"int8: {len(differences)} of {len(pairs)} first tokens equal, within {max(differences):.3f}")
    assert len(differences) >= len(prompts) - 1
    assert 0 < max(differences) <= 0.1


@pytest.fixture
def quantise():
    """Writes a folder whose decoder has int8 weights, one scale a row, in the layout of compressed-tensors."""
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    def write(folder, target):
        shutil.copytree(folder, target)
        tensors = load_file(target / "model.safetensors")
        projections = [name for name in tensors if "language_model.layers" in name and name.endswith("_proj.weight")]
        assert projections
        for name in projections:
            weight = tensors[name]
            scale = weight.abs().amax(1, keepdim=True) / 127
            tensors[name] = (weight / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((target / "config.json").read_text())
        eight_bits = {"num_bits": 8, "type": "int", "symmetric": True}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
                    "input_activations": {**eight_bits, "strategy": "token", "dynamic": True},
                }
            },
        }
        (target / "config.json").write_text(json.dumps(config))
        return target

    return write
