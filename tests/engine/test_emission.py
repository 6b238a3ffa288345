"""Text told piece by piece: whole characters only, stop texts across tokens, joined the same as decoding at once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fusionvl.engine.emission import Emission, TokenBytes
from fusionvl.train.scratch import train_tokenizer

BROKEN = "\N{REPLACEMENT CHARACTER}"
TEXT = "Ein Käse für 5 €, 日本語 🙂🙃 Ω\n\n  and so on. " * 3


def byte_level():
    return train_tokenizer(["a cup and a blue circle and so on", "für Käse"], 300)


def byte_fallback():
    """As Phi-3's and Mistral's: words with a visible space, bytes for what has no token."""
    words = ["▁and", "▁so", "▁on", "▁cup", "▁", "K", "s", "e", "a", "n", "o", "c", "u", "p", ".", ",", "\n", "ü"]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "</s>"])}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    for word in words:
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def metaspace():
    vocabulary = {token: index for index, token in enumerate(["</s>", "▁and", "▁so", "▁on", "▁", "on", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


TOKENIZERS = {"byte level": byte_level(), "byte fallback": byte_fallback(), "metaspace": metaspace()}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def emit(tokenizer, tokens, stop=()):
    """The pieces of an answer, and whether and when it stopped."""
    emission = Emission(TokenBytes(tokenizer), stop)
    pieces = []
    for token in tokens:
        pieces.append(emission.push(token))
        if emission.is_stopped:
            return pieces, len(pieces)
    return [*pieces, emission.finish()], None


class TestCharacters:
    @pytest.mark.parametrize("name", ["byte level", "byte fallback"])
    def test_no_half_character(self, name):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        assert BROKEN in "".join(tokenizer.decode([token]) for token in tokens), "characters of several tokens"
        pieces, _ = emit(tokenizer, tokens)
        assert "".join(pieces) == TEXT.strip()
        assert not any(BROKEN in piece for piece in pieces)
        assert len([piece for piece in pieces if piece]) > 30

    @settings(max_examples=150, deadline=None)
    @given(name=st.sampled_from(["byte level", "metaspace"]), seed=st.integers(0, 10**6), length=st.integers(0, 80))
    def test_any_tokens_joined_are_what_decoding_at_once_gives(self, name, seed, length):
        """Random tokens: broken characters, special tokens, spaces anywhere."""
        tokenizer = TOKENIZERS[name]
        drawn = random.Random(seed)
        tokens = [drawn.randrange(len(tokenizer)) for _ in range(length)]
        pieces, _ = emit(tokenizer, tokens)
        assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @settings(max_examples=100, deadline=None)
    @given(texts=st.lists(st.text(st.sampled_from("aKü.\n €日🙂Ω"), max_size=5), max_size=20))
    def test_any_texts_by_fallback_bytes_are_what_decoding_at_once_gives(self, texts):
        """Whole characters, special tokens and spaces anywhere; of what is broken, decoders tell no single bytes."""
        tokenizer = TOKENIZERS["byte fallback"]
        tokens = [
            token
            for text in texts
            for token in (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        ]
        pieces, _ = emit(tokenizer, tokens)
        assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def test_broken_characters_by_fallback_bytes(self):
        tokenizer = TOKENIZERS["byte fallback"]
        tokens = tokenizer.convert_tokens_to_ids(["a", "<0xF0>", "<0x9F>", "c", "<0xC3>", "<0xBC>", "<0xC3>"])
        assert emit(tokenizer, tokens)[0] == ["a", "", "", f"{BROKEN}c", "", "ü", "", BROKEN]

    def test_text_comes_as_soon_as_it_is_whole(self):
        tokenizer = TOKENIZERS["byte level"]
        pieces, _ = emit(tokenizer, tokenizer("a🙂b", add_special_tokens=False)["input_ids"])
        assert pieces == ["a", "", "", "", "🙂", "b", ""]

    def test_no_white_space_around_the_answer(self):
        tokenizer = TOKENIZERS["byte level"]
        pieces, _ = emit(tokenizer, tokenizer(" \n a  b \n ", add_special_tokens=False)["input_ids"])
        assert "".join(pieces) == "a  b"
        assert pieces[0] == ""


class TestStopTexts:
    @pytest.mark.parametrize(
        ("text", "stop", "expected"),
        [
            ("a cup STOP and so on", ["STOP"], "a cup"),
            ("a cup.\n\nand so on", ["\n\n"], "a cup."),
            ("\n\na cup", ["\n\n"], ""),
            ("a STO b STOP", ["STOP"], "a STO b"),
            ("SSTOP", ["STOP"], "S"),
            ("one three two", ["two", "three"], "one"),
            ("ababac", ["abac"], "ab"),
            ("für 5 €, und", ["€"], "für 5"),
            ("🙂🙃", ["🙃"], "🙂"),
        ],
    )
    @pytest.mark.parametrize("name", ["byte level", "byte fallback"])
    def test_across_tokens(self, name, text, stop, expected):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces, stopped = emit(tokenizer, [*tokens, tokens[0]], stop)
        assert "".join(pieces) == expected
        assert stopped is not None

    def test_none_of_it_is_told_before(self):
        tokenizer = TOKENIZERS["byte level"]
        pieces, stopped = emit(tokenizer, tokenizer("x STOX STOP", add_special_tokens=False)["input_ids"], ["STOP"])
        assert pieces == ["x", "", "", "", "", " STOX", "", "", "", "", ""]
        assert stopped == 11

    def test_an_unfinished_one_is_told_at_the_end(self):
        tokenizer = TOKENIZERS["byte level"]
        pieces, stopped = emit(tokenizer, tokenizer("x STO", add_special_tokens=False)["input_ids"], ["STOP"])
        assert (pieces[-1], stopped) == (" STO", None)


class TestBytes:
    @pytest.mark.parametrize("name", ["byte level", "byte fallback"])
    def test_tokens_joined_are_the_text(self, name):
        tokenizer = TOKENIZERS[name]
        token_bytes = TokenBytes(tokenizer)
        tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        assert b"".join(map(token_bytes.of, tokens)).decode().strip() == TEXT.strip()

    def test_special_and_unknown_tokens(self, tokenizer):
        token_bytes = TokenBytes(tokenizer)
        assert token_bytes.of(tokenizer.eos_token_id) == tokenizer.eos_token.encode()
        assert token_bytes.is_special(tokenizer.eos_token_id)
        assert token_bytes.of(len(tokenizer) + 5) == b""

    def test_a_token_outside_the_alphabet_of_bytes(self):
        tokenizer = Tokenizer(models.WordLevel({"Ġa": 0, "日": 1}, unk_token="日"))
        tokenizer.decoder = decoders.ByteLevel()
        token_bytes = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        assert [token_bytes.of(0), token_bytes.of(1).decode()] == [b" a", "日"]
