"""One rendered conversation -> token ids, token types, answer mask and guide text.

Knows where placeholders, questions and answers are in the text and how tokens of the pieces join. Does not know
batches, padding, tensors or pixels.
"""

import re
import threading
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from fusionvl.data.sample import OverLongError
from fusionvl.processing.chat_format import MARK_END, MARK_START, MARKED, ChatFormat, Turn, hide_marked, unmarked

TEXT, IMAGE_TOKEN, LATENT_TOKEN, QUESTION_END = range(4)

# Encoding user text as plain text switches a setting of the shared Rust tokenizer.
_TOKENIZER_LOCK = threading.Lock()
_MARK_SPLIT = re.compile(f"{MARKED.pattern}|[{MARK_START}{MARK_END}]", re.DOTALL)


@dataclass(frozen=True)
class Expansion:
    """How many tokens each placeholder of a row stands for, and their ids."""

    image_token_id: int
    latent_token_id: int
    num_image_tokens: int
    num_latents: int


@dataclass(frozen=True)
class EncodedRow:
    """One row before padding; the three lists have the same length.

    Attributes:
        input_ids: with placeholders expanded.
        types: 0 text, 1 image token, 2 latent token, 3 question end; all 0 without an image.
        is_answer: 1 for tokens of an answer, end of turn included.
        guide: all human questions, or None without an image.
    """

    input_ids: list[int]
    types: list[int]
    is_answer: list[int]
    guide: str | None


def encode_row(
    tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, text: str, expansion: Expansion, prefix: list[int]
) -> EncodedRow:
    """Encode one rendered conversation, or any text without placeholders.

    Args:
        text: as the chat template wrote it; user-written control tokens may be marked.
        prefix: ids to put in front (BOS).

    Raises:
        ValueError: placeholders do not stand where the template puts them, or a question has no assistant header.
    """
    _check_unicode(text)
    has_image = any(chat_format.count_placeholders(text))
    if has_image:
        _check_markup(chat_format, text)
        if expansion.num_latents == 0:
            text = _without_latents(chat_format, text)
    turns = chat_format.turns(text)

    builder = _RowBuilder(expansion, list(prefix))
    for ids, in_answer in _encode_pieces(tokenizer, text, turns):
        if in_answer and has_image:
            builder.mark_question_end()
        builder.add(ids, in_answer)
    if builder.placeholders != sum(chat_format.count_placeholders(text)):
        raise ValueError(
            f"the text has {sum(chat_format.count_placeholders(text))} placeholders, its tokens have "
            f"{builder.placeholders}: the tokenizer makes placeholders out of ordinary text"
        )
    guide = guide_text(text, turns) if has_image else None
    return EncodedRow(builder.input_ids, builder.types, builder.is_answer, guide)


class _RowBuilder:
    """Collects tokens of a row and expands placeholders: the first into image tokens, the others into latent ones."""

    def __init__(self, expansion: Expansion, prefix: list[int]) -> None:
        self.expansion = expansion
        self.input_ids = prefix
        self.types = [TEXT] * len(prefix)
        self.is_answer = [0] * len(prefix)
        self.placeholders = 0

    def mark_question_end(self) -> None:
        self.types[-1] = QUESTION_END

    def add(self, ids: list[int], in_answer: bool) -> None:
        expansion = self.expansion
        for token in ids:
            count, kind = 1, TEXT
            if token in (expansion.image_token_id, expansion.latent_token_id):
                if self.placeholders == 0:
                    token, count, kind = expansion.image_token_id, expansion.num_image_tokens, IMAGE_TOKEN
                else:
                    token, count, kind = expansion.latent_token_id, expansion.num_latents, LATENT_TOKEN
                self.placeholders += 1
            self.input_ids += [token] * count
            self.types += [kind] * count
            self.is_answer += [int(in_answer)] * count


def drop_last_turn(chat_format: ChatFormat, text: str, num_tokens: int, max_length: int) -> str:
    """The rendered conversation without its last question and answer.

    Args:
        num_tokens, max_length: why a turn must go, for the message.

    Raises:
        OverLongError: it is the only turn.
        ValueError: its question still waits for an answer.
    """
    turns = chat_format.turns(text)
    reason = f"{num_tokens} tokens do not fit into max_length={max_length}"
    if len(turns) < 2:
        raise OverLongError(f"{reason}, and the row has no later turn to leave out: allow more or use fewer latents")
    if not hide_marked(text)[: turns[-1].answer_end].endswith(chat_format.answer_end):
        raise ValueError(f"{reason}, and the last of {len(turns)} questions waits for its answer: drop earlier turns")
    return text[: turns[-2].answer_end] + chat_format.conversation_end


def guide_text(text: str, turns: list[Turn]) -> str:
    """All human questions of a rendered conversation, each stripped, joined with nothing between."""
    return "".join(unmarked(text[turn.markup_end : turn.question_end]).strip() for turn in turns)


def encode_as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of text in which special tokens are ordinary characters."""
    with _TOKENIZER_LOCK:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def special_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of every text: BOS, or nothing."""
    probe = "a"
    with _TOKENIZER_LOCK:
        bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
        full = tokenizer(probe, add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start])
    raise ValueError(f"cannot tell the special tokens of the tokenizer from its text: {full} with, {bare} without")


def _encode_pieces(tokenizer: PreTrainedTokenizerBase, text: str, turns: list[Turn]) -> list[tuple[list[int], bool]]:
    """Token ids between the borders of answers, with whether they belong to an answer.

    The borders are found by encoding what comes before them: an answer begins with the first token that the prompt
    alone does not have. Where a token would reach across a border, the text is encoded apart there, because at
    inference the prompt ends at that border.
    """
    borders = [0]
    for turn in turns:
        if turn.answer_start is not None:
            borders += [turn.answer_start, turn.answer_end]
    borders.append(len(text))
    pieces: list[tuple[list[int], bool]] = []
    block_start, block_ids = 0, list[int]()
    for index in range(1, len(borders)):
        start, end = borders[index - 1], borders[index]
        ids = _encode(tokenizer, text[block_start:end], continued=block_start > 0)
        if ids[: len(block_ids)] != block_ids:
            block_start, block_ids = start, []
            ids = _encode(tokenizer, text[start:end], continued=True)
        pieces.append((ids[len(block_ids) :], index % 2 == 0))
        block_ids = ids
    return pieces


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, continued: bool) -> list[int]:
    """Ids of a piece of a row; control tokens marked as user text come out as ordinary text."""
    ids: list[int] = []
    position = 0
    for match in _MARK_SPLIT.finditer(text):
        ids += _encode_plain(tokenizer, text[position : match.start()], continued or position > 0, as_text=False)
        ids += _encode_plain(tokenizer, match[1] or "", continued or match.start() > 0, as_text=True)
        position = match.end()
    return ids + _encode_plain(tokenizer, text[position:], continued or position > 0, as_text=False)


def _encode_plain(tokenizer: PreTrainedTokenizerBase, text: str, continued: bool, as_text: bool) -> list[int]:
    """Ids of a piece without marks.

    Args:
        continued: whether it continues a text.
        as_text: whether it is a control token that a user wrote, to be encoded like ordinary text.
    """
    if not text:
        return []
    with _TOKENIZER_LOCK:
        ids = _encode_continuing(tokenizer, text, continued, as_text)
        if as_text and tokenizer.convert_tokens_to_ids(text) in ids:
            # An added token that is not special is matched in plain text, too, but not in two parts.
            head = _encode_continuing(tokenizer, text[:1], continued, as_text)
            ids = head + _encode_continuing(tokenizer, text[1:], True, as_text)
    return ids


def _encode_continuing(tokenizer: PreTrainedTokenizerBase, text: str, continued: bool, as_text: bool) -> list[int]:
    if continued:
        # SentencePiece tokenizers put a space in front of a text; behind a line break they do not.
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        ids = tokenizer("\n" + text, add_special_tokens=False, split_special_tokens=as_text)["input_ids"]
        if ids[: len(line_break)] == line_break:
            return list(ids[len(line_break) :])
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)["input_ids"])


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid Unicode: {error}") from error


def _check_markup(chat_format: ChatFormat, text: str) -> None:
    """The marks must be exactly those the template writes, or latent groups and questions would not pair up."""
    turns = chat_format.turns(text)
    visible = hide_marked(text)
    if not turns:
        raise ValueError(
            f"the text has placeholders but no question behind the header {chat_format.user_header!r}: "
            "render conversations with apply_chat_template"
        )
    for number, turn in enumerate(turns, start=1):
        expected = chat_format.first_markup if number == 1 else chat_format.latent_markup
        found = visible[turn.start + len(chat_format.user_header) : turn.markup_end]
        if found != expected:
            raise ValueError(
                f"question {number} of {len(turns)} begins with {found!r} instead of {expected!r}: the image must be "
                "in the first question; render conversations with apply_chat_template"
            )
        if turn.answer_start is None:
            raise ValueError(
                f"question {number} of {len(turns)} is not followed by {chat_format.answer_header!r}: "
                "pass add_generation_prompt=True to ask for its answer"
            )
    placeholders = sum(chat_format.count_placeholders(text))
    if placeholders != len(turns) + 1:
        raise ValueError(
            f"expected {len(turns) + 1} placeholders for {len(turns)} questions, found {placeholders}: a question or "
            "an answer contains some; apply_chat_template(tokenize=True) takes those as plain text"
        )


def _without_latents(chat_format: ChatFormat, text: str) -> str:
    text = text.replace(chat_format.first_markup, f"{chat_format.image_markup}\n")
    return text.replace(chat_format.latent_markup, "")
