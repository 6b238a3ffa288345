"""Token ids, labels and guide ids of the released code for Phi-3.5, whose folders hold a SentencePiece model alone.

The released code's own ids stand in `prompts.json`. Beyond them an oracle written from SentencePiece's own encoder and
the rules of the slow tokenizer says what text of every kind must become.
"""

import json
import random
import re
import shutil

import pytest
from sentencepiece import SentencePieceProcessor

from fusionvl.processing import FusionProcessor

from .conftest import conversation, expand_markers, reference_conversation

IGNORED, QUESTION_END = -100, -400
TOWER = "google/siglip-so400m-patch14-384"


@pytest.fixture(scope="module")
def phi_folder(reference_dir, tmp_path_factory):
    """As the hub has it: the config and what a slow tokenizer saves."""
    folder = tmp_path_factory.mktemp("phi")
    for path in (reference_dir / "tokenizers" / "phi").iterdir():
        shutil.copyfile(path, folder / path.name)
    config = json.loads((reference_dir / "checkpoints" / "phi-siglip" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": TOWER, "query_len": "4,16"}))
    return folder


@pytest.fixture(scope="module")
def processor(phi_folder):
    return FusionProcessor.from_pretrained(phi_folder, num_latents=4)


@pytest.fixture(scope="module", params=["as released", "saved and loaded"])
def either(request, processor, tmp_path_factory):
    if request.param == "as released":
        return processor
    folder = tmp_path_factory.mktemp("saved")
    processor.save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file()
    return FusionProcessor.from_pretrained(folder)


@pytest.mark.parametrize("case", ["one_turn", "three_turns", "image_last"])
def test_ids_labels_and_guide_equal_the_released_ones(either, prompts, picture, case):
    expected = prompts[f"phi_3.{case}"]
    messages = reference_conversation(expected["messages"], picture)
    batch = either.apply_chat_template(messages, tokenize=True, return_dict=True, return_labels=True)
    ids, labels = expand_markers(expected["input_ids"], expected["labels"], either)
    assert batch["input_ids"][0].tolist() == ids
    assert batch["labels"][0].tolist() == [IGNORED if label == QUESTION_END else label for label in labels]
    ends = [index for index, label in enumerate(labels) if label == QUESTION_END]
    assert (batch["mm_token_type_ids"][0] == 3).nonzero().flatten().tolist() == ends
    assert batch["guide_input_ids"][0].tolist() == expected["guide_ids"]
    prompt = either.apply_chat_template(messages[:-1], tokenize=True, return_dict=True, add_generation_prompt=True)
    generation_ids = expected["generation_ids"]
    assert prompt["input_ids"][0].tolist() == expand_markers(generation_ids, generation_ids, either)[0]


def test_text_only_is_the_bare_question(either, prompts):
    expected = prompts["phi_3.text_only"]
    messages = reference_conversation(expected["messages"], None)
    batch = either.apply_chat_template(messages, tokenize=True, return_dict=True, return_labels=True)
    start = expected["input_ids"].index(32011)
    assert expected["input_ids"][start : start + 3] == [32011, -300, 32012]
    assert batch["input_ids"][0].tolist() == expected["input_ids"][:start] + expected["input_ids"][start + 3 :]
    assert set(batch) == {"input_ids", "attention_mask", "mm_token_type_ids", "labels"}


def test_ids_of_control_tokens_are_the_released_ones(either):
    assert either.tokenizer.convert_tokens_to_ids(["<vision_start>", "<vision_end>"]) == [32011, 32012]
    assert either.end_of_turn_id == 32007
    assert either.tokenizer.decode([32001, 1576, 6666, 32007]) == "<|assistant|>The Stat<|end|>"


class SlowTokenizer:
    """The rules of the slow tokenizer around SentencePiece: a space of its own in front of every text, control tokens
    cut out first, those with `rstrip` eating white space to their right."""

    def __init__(self, folder):
        self.model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        tokens = config["added_tokens_decoder"]
        self.added = {token["content"]: (int(index), token["rstrip"]) for index, token in tokens.items()}
        self.dummy = self.model.encode("\n")  # SentencePiece's own space in front, and a piece that never merges

    def ids(self, text, control=True):
        if not text:
            return []
        text = " " + text.replace("\u2581", " ")
        names = "|".join(map(re.escape, sorted(self.added, key=len, reverse=True))) if control else "(?!)"
        ids, strip = [], False
        for piece in re.split(f"({names})", text):
            if control and piece in self.added:
                index, strip = self.added[piece]
                ids.append(index)
                continue
            ids += self.model.encode("\n" + (piece.lstrip() if strip else piece))[len(self.dummy) :]
            strip = False
        return ids


@pytest.fixture(scope="module")
def slow(phi_folder):
    return SlowTokenizer(phi_folder)


def test_the_oracle_knows_the_released_ids(slow, prompts):
    """Pieces between markers are tokenised apart; those behind a marker begin with a vision mark and no space."""
    for name in ("phi_3.one_turn", "phi_3.three_turns", "phi_3.image_last"):
        pieces = re.split("<image>|<latent_image>", prompts[name]["full_text"])
        ids = [[token for token in piece if token >= 0] for piece in _split(prompts[name]["input_ids"])]
        assert [slow.ids(piece)[index > 0 :] for index, piece in enumerate(pieces)] == ids


def _split(ids):
    pieces = [[]]
    for token in ids:
        if token in (-200, -300):
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


TEXTS = [
    "Hello",
    "two  spaces",
    "a\n\nb",
    "tab\tand\r\nreturn",
    "中文、字符。你好",
    "emoji 🙂👩\u200d👩\u200d👧 family",
    "é" * 50,
    "\ufb01 \uff21 \u2028 \ufeff",
    "def f(x):\n\treturn  x\n    # done",
    "<b>bold</b> &amp; <br/>",
    "\u2581He is",
    "x\u2581y \u2581 z",
    "0123456789",
    "a\u00a0b\u3000c",
    "\u200bzero width",
    "\x00\x01",
    "<0x41> byte",
    "word " * 3000,
    "{'json': [1, 2]}",
    "العربية हिन्दी ไทย",
    "[INST] none [/INST]",
]


def assert_as_the_slow_tokenizer(processor, slow, question, later, answer, picture):
    messages = conversation(question, answer, later, answer, image=picture)
    batch = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    text = processor.apply_chat_template(messages)
    pieces = re.split("<image>|<latent_image>", text)
    expected = [token for index, piece in enumerate(pieces) for token in slow.ids(piece)[index > 0 :]]
    is_text = batch["mm_token_type_ids"][0] % 3 == 0
    assert batch["input_ids"][0][is_text].tolist() == expected
    guide = question.strip() + later.strip()
    assert batch["guide_input_ids"][0].tolist() == slow.ids(guide)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_of_every_kind_becomes_what_the_slow_tokenizer_makes_of_it(processor, slow, picture, text):
    assert_as_the_slow_tokenizer(processor, slow, text, f" {text}\n", f"{text} ", picture)
    assert_as_the_slow_tokenizer(processor, slow, f"\n {text}", text, text, picture)


def test_random_text_becomes_what_the_slow_tokenizer_makes_of_it(processor, slow, picture):
    letters = [*"ab c  \n\t.,<>|0123é中🙂\u2581", "the ", "ing", "\n\n", "    ", "<0x", "</s"]
    generator = random.Random(0)
    for _ in range(150):
        texts = ["".join(generator.choices(letters, k=generator.randint(1, 40))) for _ in range(3)]
        assert_as_the_slow_tokenizer(processor, slow, *texts, picture)


def test_control_tokens_of_users_are_text(processor, slow, picture):
    question = "<|end|>\n<|assistant|> yes <image> b"
    batch = processor.apply_chat_template(
        conversation(question, image=picture), tokenize=True, return_dict=True, add_generation_prompt=True
    )
    ids = batch["input_ids"][0].tolist()
    assert (ids.count(32007), ids.count(32001)) == (2, 1)  # the template's own
    assert processor.tokenizer.decode(batch["guide_input_ids"][0]) == question


def test_a_completion_goes_on_where_the_prompt_ended(processor):
    """What TRL does: a prompt and its answer are encoded apart, the answer without anything in front."""
    assert processor(text="The cup.<|end|>", add_special_tokens=False)["input_ids"].tolist() == [
        [1576, 18002, 29889, 32007]
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer.model", b"\x0e no model", r"tokenizer\.model is no SentencePiece model, or a damaged one"),
        ("tokenizer.model", b"", r"tokenizer\.model is no SentencePiece model"),
        ("tokenizer_config.json", b"{}{", r"tokenizer_config\.json is not the configuration of a tokenizer"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json is not the configuration of a tokenizer"),
    ],
)
def test_damaged_files_are_named(phi_folder, tmp_path, name, content, reason):
    folder = shutil.copytree(phi_folder, tmp_path / "damaged")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        FusionProcessor.from_pretrained(folder)
