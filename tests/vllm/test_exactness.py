"""What vLLM answers is what transformers answers, token for token, whatever else is in the batch."""

import json
import random
import shutil

import pytest
import torch
from vllm import SamplingParams

from fusionvl.engine import FusionEngine
from fusionvl.vllm.vllm_model import FusionInVllm

WORDS = "what how many is there a blue red circle cup shape in the image? 7 two of them <image> left, right"
LOGPROBS_BAR = 1e-5
NEW_TOKENS = 12


def random_conversation(seed, pictures):
    """Texts, picture and latent tokens of one conversation; one in six has no picture."""
    dice = random.Random(seed)
    texts = [" ".join(dice.choices(WORDS.split(), k=dice.randint(1, 12))) for _ in range(dice.choice([1, 1, 3, 5]))]
    picture = None if seed % 6 == 5 else dice.choice(pictures)
    return texts, picture, dice.choice([0, 1, 4, 9, 16])


@pytest.fixture
def conversations(picture, other_picture):
    return [random_conversation(seed, [picture, other_picture]) for seed in range(30)]


@pytest.fixture
def ask(asked):
    """Asks vLLM, all at once or one after another."""

    def answers(model, conversations, alone=False, **settings):
        sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, logprobs=0, **settings)
        batches = [[index] for index in range(len(conversations))] if alone else [range(len(conversations))]
        outputs = []
        for batch in batches:
            for texts, picture, num_latents in (conversations[index] for index in batch):
                options = {"chat_template_kwargs": {"num_latents": num_latents}, "use_tqdm": False}
                model.enqueue_chat(asked(*texts, picture=picture), sampling, **options)
            outputs += model.wait_for_completion(use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    return answers


def expected(engine, conversation, asked_by_us, tokens):
    """Greedy tokens of transformers, and the log probabilities it gives to `tokens`."""
    texts, picture, num_latents = conversation
    inputs = engine.encode([asked_by_us(*texts, picture=picture)], num_latents)
    with torch.inference_mode():
        greedy = engine.model.generate(**inputs, max_new_tokens=NEW_TOKENS, eos_token_id=engine.ends, do_sample=False)
        length = inputs["input_ids"].shape[1]
        for name, filler in (("input_ids", None), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            behind = torch.tensor([tokens]) if filler is None else torch.full((1, len(tokens)), filler)
            inputs[name] = torch.cat([inputs[name], behind], 1)
        logits = engine.model(**inputs).logits[0, length - 1 : -1]
    return greedy[0, length:].tolist(), logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()


def logprobs_of(answer):
    return [chosen[token].logprob for token, chosen in zip(answer.token_ids, answer.logprobs, strict=True)]


@pytest.fixture
def asked_by_us(asked):
    """Messages as our engine takes them."""

    def as_ours(part):
        return {"type": "image", "image": part["image_pil"]} if part["type"] == "image_pil" else part

    return lambda *texts, picture=None: [
        {**message, "content": [*map(as_ours, message["content"])]} for message in asked(*texts, picture=picture)
    ]


VARIANTS = {
    "llama": {},
    "released guidance": {"early_guidance": "released"},
    "FUSION-L": {"image_token_grid": 3},
    "tiles as image tokens": {"tile_tokens": True},
    "no guidance": {"use_guidance": False},
    "tied": {"family": "smollm"},
    "phi3": {"family": "phi3"},
    "qwen2": {"family": "qwen2", "early_guidance": "released"},
    "qwen3": {"family": "qwen3"},
    "mistral": {"family": "mistral"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_conversations(variant, make_model, load, ask, conversations, asked_by_us, monkeypatch):
    folder = make_model(**VARIANTS[variant])
    model, engine = load(folder), FusionEngine.from_pretrained(folder, dtype="float32")
    answers = ask(model, conversations)
    worst = 0.0
    for conversation, answer in zip(conversations, answers, strict=True):
        greedy, logprobs = expected(engine, conversation, asked_by_us, list(answer.token_ids))
        assert list(answer.token_ids) == greedy, conversation
        worst = max(worst, *(abs(a - b) for a, b in zip(logprobs_of(answer), logprobs, strict=True)))
    assert worst <= LOGPROBS_BAR
    print(f"{variant}: largest difference of log probabilities {worst:.1e}")

    # The test has teeth: without the interaction layers nothing about pictures is the same.
    monkeypatch.setattr(FusionInVllm, "_forward_with_interactions", without_interactions)
    pictured = [index for index, (_, picture, latents) in enumerate(conversations) if picture and latents]
    others = ask(model, [conversations[index] for index in pictured])
    same = [logprobs_of(other) == logprobs_of(answers[index]) for index, other in zip(pictured, others, strict=True)]
    assert len(same) >= 15
    assert not any(same)


def without_interactions(self, positions, hidden, _context):
    return self.language_model.model(None, positions, None, inputs_embeds=hidden)


def test_the_end_of_a_turn_ends_an_answer_whatever_the_generation_config_lists(
    shipped, tmp_path, load, asked, triangle
):
    folder = tmp_path / "nano"
    shutil.copytree(shipped, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 3}))
    messages = asked("what shape is in the image?", picture=triangle)
    (output,) = load(folder).chat(messages, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("triangle", "stop")
