import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

CONTROL_TOKENS = {
    "llama_3": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "phi_3": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "chatml": ["<|im_start|>", "<|im_end|>"],
}


@pytest.fixture(scope="session")
def prompts(reference_dir) -> dict[str, Any]:
    return json.loads((reference_dir / "prompts.json").read_text())


def with_bos(tokenizer: Tokenizer, bos: str) -> None:
    template = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])


def tiny_tokenizer(template: str, bos: bool = True) -> PreTrainedTokenizerFast:
    """Bytes as tokens, except that "\\n\\n\\n" is one: a token can reach from a header into an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate([*alphabet, "ĊĊ", "ĊĊĊ"])}
    backend = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ"), ("ĊĊ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*\n+|\s+|\S+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ["<s>", "</s>", *CONTROL_TOKENS[template]]])
    if bos:
        with_bos(backend, "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def tiny_sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Like Phi-3's: a "▁" in front of every piece of text, control tokens that strip white space to their right."""
    characters = [*map(chr, range(33, 127)), "▁", "\n", "▁A", "▁Q", "<unk>"]
    merges = [("▁", "A"), ("▁", "Q")]
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(characters)}, merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    control = [AddedToken(t, normalized=False, rstrip=True) for t in ["<s>", "</s>", *CONTROL_TOKENS["phi_3"]]]
    backend.add_special_tokens(control)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def make_processor(template: str = "chatml", bos: bool = True, size: int = 56, **options: Any) -> FusionProcessor:
    options = {"patch_size": 14, "num_latents": 4} | options
    return FusionProcessor(
        FusionImageProcessorPil(size=size), tiny_tokenizer(template, bos), chat_template=template, **options
    )


@pytest.fixture
def processor() -> FusionProcessor:
    return make_processor()


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((60, 40))


def conversation(*texts: str, image: Any = None) -> list[dict[str, Any]]:
    """Question, answer, question, ...; an image stands in the first question."""
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    if image is not None:
        messages[0]["content"] = [{"type": "image", "image": image}, {"type": "text", "text": texts[0]}]
    return messages


def reference_conversation(messages: list[dict[str, str]], image: Any) -> list[dict[str, Any]]:
    """LLaVA turns -> messages: the placeholder becomes an image part where it stood."""
    converted = []
    for message in messages:
        before, marker, after = message["value"].partition("<image>")
        content = [{"type": "text", "text": before}]
        if marker:
            content += [{"type": "image", "image": image}, {"type": "text", "text": after}]
        converted.append({"role": {"human": "user", "gpt": "assistant"}[message["from"]], "content": content})
    return converted


def expand_markers(ids, values, processor):
    """Released markers -> our placeholders; `values` is carried along. The first marker is the image's."""
    expanded_ids, expanded_values, image_seen = [], [], False
    for token, value in zip(ids, values, strict=True):
        if token in (-200, -300):
            image, count = not image_seen, 4 if image_seen else 27 * 27
            image_seen = True
            token = processor.image_token_id if image else processor.latent_token_id
        else:
            count = 1
        expanded_ids += [token] * count
        expanded_values += [value] * count
    return expanded_ids, expanded_values


def _byte_characters() -> dict[int, str]:
    """The byte <-> character table of byte-level BPE."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + index) for index, byte in enumerate(others)}


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """The Llama 3 tokenizer from Meta's `llama-models` package, with the two tokens released FUSION models added."""
    spec = importlib.util.find_spec("llama_models")
    assert spec is not None, "install the dev dependency llama-models"
    assert spec.origin is not None
    lines = (Path(spec.origin).parent / "llama3" / "tokenizer.model").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    characters = _byte_characters()

    def readable(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        merges += [(readable(a), readable(b)) for a, b in sorted(known, key=lambda p: (ranks[p[0]], ranks[p[1]]))]
    vocabulary = {readable(token): rank for token, rank in ranks.items()}
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    named = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
    special = [f"<|{named.get(index, f'reserved_special_token_{index}')}|>" for index in range(256)]
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in [*special, "<vision_start>", "<vision_end>"]])
    with_bos(backend, "<|begin_of_text|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|end_of_text|>"
    )
