"""Tokenizer files of a folder or a hub name -> a fast tokenizer.

The released Phi-3.5 models were saved by a slow tokenizer, whose folders hold a SentencePiece `tokenizer.model` and no
`tokenizer.json`. It is read with the SentencePiece library alone: transformers' own way goes through protobuf files
that fit only the newest protobuf. Knows files and what is wrong with them; knows no conversation.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file


def load_tokenizer(name_or_path: str | os.PathLike[str], hub: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The fast tokenizer, from `tokenizer.json` or else from a slow tokenizer's `tokenizer.model`.

    Args:
        name_or_path: folder or hub name.
        hub: arguments of `from_pretrained` that say where to look.

    Raises:
        ValueError: a file is damaged; the message names it, or the folder.
        OSError: there is no such folder or name.
    """
    model_file = find_file(name_or_path, "tokenizer.model", hub)
    if model_file is not None and find_file(name_or_path, "tokenizer.json", hub) is None:
        return sentencepiece_tokenizer(model_file, find_file(name_or_path, "tokenizer_config.json", hub))
    try:
        return AutoTokenizer.from_pretrained(name_or_path, **hub)
    except OSError:
        raise
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ValueError(f"the tokenizer of {name_or_path} cannot be read: {error}") from error


def find_file(name_or_path: str | os.PathLike[str], name: str, hub: Mapping[str, Any]) -> Path | None:
    """A file of a folder or a hub name; None if it has none of that name, or offline none in the cache."""
    found = cached_file(
        name_or_path,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
    return None if found is None else Path(found)


def sentencepiece_tokenizer(model_file: Path, config_file: Path | None) -> LlamaTokenizer:
    """Build the fast tokenizer.

    Args:
        model_file: `tokenizer.model`.
        config_file: `tokenizer_config.json`, which holds added tokens and settings; None: there is none.

    Raises:
        ValueError: A file is damaged; the message names it.
    """
    pieces = _pieces(model_file)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    settings = {} if config_file is None else _settings(config_file)
    return LlamaTokenizer(vocab=vocabulary, merges=_merges(pieces, vocabulary), **settings)


def _pieces(model_file: Path) -> list[str]:
    try:
        model = SentencePieceProcessor(model_file=str(model_file))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{model_file} is no SentencePiece model, or a damaged one: fetch it again") from error
    return [model.id_to_piece(index) for index in range(len(model))]


def _merges(pieces: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, pieces of higher rank first: SentencePiece's BPE ranks by piece."""
    merges = []
    for piece in pieces:
        cuts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in cuts if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _settings(config_file: Path) -> dict[str, object]:
    try:
        settings = json.loads(config_file.read_text(encoding="utf-8"))
        added = settings.pop("added_tokens_decoder", {})
        settings["added_tokens_decoder"] = {int(index): AddedToken(**token) for index, token in added.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{config_file} is not the configuration of a tokenizer: {error}") from error
    settings.pop("tokenizer_class", None)
    return settings
