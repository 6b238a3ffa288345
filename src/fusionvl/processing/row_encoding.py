"""One rendered conversation -> token ids, token types, answer mask and guide text.

Knows where placeholders, questions and answers are in the text. Does not know how a tokenizer reads a piece of text,
nor batches, padding, tensors or pixels.
"""

from dataclasses import dataclass

from fusionvl.data.sample import OverLongError
from fusionvl.processing.chat_format import ChatFormat, TurnSpan, hide_marked, unmarked
from fusionvl.processing.text_encoding import TextEncoder

TEXT, IMAGE_TOKEN, LATENT_TOKEN, QUESTION_END = range(4)


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
    encoder: TextEncoder,
    chat_format: ChatFormat,
    text: str,
    expansion: Expansion,
    prefix: list[int],
    *,
    is_piece: bool = False,
) -> EncodedRow:
    """Encode one rendered conversation, or any text without placeholders.

    Args:
        text: as the chat template wrote it; user-written control tokens may be marked.
        prefix: ids to put in front (BOS).
        is_piece: whether the text goes on where another ended, so that it does not begin as a text does.

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
    for ids, in_answer in _encode_pieces(encoder, text, turns, is_piece):
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


def guide_text(text: str, turns: list[TurnSpan]) -> str:
    """All human questions of a rendered conversation, each stripped, joined with nothing between."""
    return "".join(unmarked(text[turn.markup_end : turn.question_end]).strip() for turn in turns)


def _encode_pieces(
    encoder: TextEncoder, text: str, turns: list[TurnSpan], is_piece: bool
) -> list[tuple[list[int], bool]]:
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
        ids = encoder.encode(text[block_start:end], continued=is_piece or block_start > 0)
        if ids[: len(block_ids)] != block_ids:
            block_start, block_ids = start, []
            ids = encoder.encode(text[start:end], continued=True)
        pieces.append((ids[len(block_ids) :], index % 2 == 0))
        block_ids = ids
    return pieces


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
