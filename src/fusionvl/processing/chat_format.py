"""How one chat template writes a conversation, learnt from the template itself, and the way back from text to turns.

A short probe conversation is rendered, and the headers that stand around its questions and answers are cut out of the
result. So rendered text of any template can be taken apart, and no table of headers has to agree with a template.
Does not know token ids, images or tensors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

VISION_START = "<vision_start>"
VISION_END = "<vision_end>"
TEMPLATE_NAMES = ("llama_3", "phi_3", "chatml")

# Private characters around control tokens that a user wrote (see `mark_control_tokens`).
MARK_START = "\U000f0000"
MARK_END = "\U000f0001"
MARKED = re.compile(f"{MARK_START}(.*?){MARK_END}", re.DOTALL)

_SYSTEM, _QUESTION, _ANSWER = "probe system", "probe question", "probe answer"


@dataclass(frozen=True)
class TurnSpan:
    """Where one question and its answer stand in a rendered conversation (character positions).

    Attributes:
        start: where the user header begins.
        markup_end: where the vision markup ends and the question's own text begins.
        question_end: where the question's own text ends.
        answer_start: first character of the answer, just behind the assistant header; None without that header.
        answer_end: behind the answer's end-of-turn token, or the end of the text.
    """

    start: int
    markup_end: int
    question_end: int
    answer_start: int | None
    answer_end: int


@dataclass(frozen=True)
class ChatFormat:
    """The literal text a template puts around questions and answers.

    Attributes:
        system_header: what a conversation with a system message begins with.
        user_header: what stands before a question.
        answer_header: what stands between a question and its answer.
        answer_end: what closes an answer (the end-of-turn token).
        conversation_end: what the template writes behind the last answer.
        image_token, latent_token: the placeholders.
    """

    system_header: str
    user_header: str
    answer_header: str
    answer_end: str
    conversation_end: str
    image_token: str
    latent_token: str

    @property
    def image_markup(self) -> str:
        """Vision mark written with the image placeholder."""
        return f"{VISION_START}{self.image_token}{VISION_END}"

    @property
    def latent_markup(self) -> str:
        """Vision mark in front of every question. The first one of a conversation holds the image all the same."""
        return f"{VISION_START}{self.latent_token}{VISION_END}"

    @property
    def first_markup(self) -> str:
        """What stands in front of the first question of a conversation about an image."""
        return f"{self.latent_markup}{self.image_markup}\n"

    def count_placeholders(self, text: str) -> tuple[int, int]:
        """Image and latent placeholders in a rendered text; those marked as user text do not count."""
        visible = hide_marked(text)
        return visible.count(self.image_token), visible.count(self.latent_token)

    def starts_conversation(self, text: str) -> bool:
        """Whether the text is a conversation from its beginning, not a piece of one."""
        return text.startswith((self.user_header, self.system_header))

    def turns(self, text: str) -> list[TurnSpan]:
        """Take a rendered conversation apart. Control tokens marked as user text are not seen as headers."""
        visible = hide_marked(text)
        turns = []
        start = visible.find(self.user_header)
        while start != -1:
            question_start = start + len(self.user_header)
            next_start = visible.find(self.user_header, question_start)
            turns.append(self._turn(visible, start, next_start if next_start != -1 else len(visible)))
            start = next_start
        return turns

    def _turn(self, visible: str, start: int, limit: int) -> TurnSpan:
        question_start = start + len(self.user_header)
        markup_end = question_start
        for markup in (self.first_markup, self.latent_markup, self.image_markup):
            if visible.startswith(markup, question_start):
                markup_end += len(markup)
                break
        question_end = visible.find(self.answer_header, markup_end, limit)
        if question_end == -1:
            return TurnSpan(start, markup_end, limit, None, limit)
        answer_start = question_end + len(self.answer_header)
        closing = visible.find(self.answer_end, answer_start, limit)
        answer_end = closing + len(self.answer_end) if closing != -1 else limit
        return TurnSpan(start, markup_end, question_end, answer_start, answer_end)


def mark_control_tokens(messages: list[dict[str, Any]], control_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Copies of the messages in which every control token stands between marks: it is the user's text, no control.

    Marks that a user wrote are taken out first, so that none can be forged.

    Args:
        messages: Of one conversation.
        control_tokens: What only the template may write.
    """
    longest_first = sorted(control_tokens, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def marked(text: str) -> str:
        return pattern.sub(lambda match: f"{MARK_START}{match[0]}{MARK_END}", unmarked(text))

    def marked_part(part: Mapping[str, Any]) -> dict[str, Any]:
        return {**part, "text": marked(part["text"])} if part["type"] == "text" else dict(part)

    copies = []
    for message in messages:
        content = message["content"]
        copies.append(
            {**message, "content": marked(content) if isinstance(content, str) else [*map(marked_part, content)]}
        )
    return copies


def hide_marked(text: str) -> str:
    """The text with control tokens that a user wrote blanked out, every other character in its place."""
    return MARKED.sub(lambda match: "\0" * len(match[0]), text)


def unmarked(text: str) -> str:
    """The text without the marks, control tokens that a user wrote readable again."""
    return text.replace(MARK_START, "").replace(MARK_END, "")


def load_chat_template(name_or_template: str | None) -> str:
    """A shipped template by name, or the given jinja text.

    Raises:
        ValueError: nothing given, or neither a shipped name nor jinja.
    """
    if name_or_template in TEMPLATE_NAMES:
        path = files("fusionvl.processing") / "chat_templates" / f"{name_or_template}.jinja"
        return path.read_text(encoding="utf-8")
    if name_or_template is None or "{" not in name_or_template:
        raise ValueError(
            f"FusionProcessor needs a chat template with vision markup, got {name_or_template!r}. "
            f"Pass chat_template= one of {', '.join(TEMPLATE_NAMES)} (whichever the language model was trained with), "
            "or jinja text of the same form."
        )
    return name_or_template


@lru_cache(maxsize=32)
def learn_chat_format(
    template: str, special_tokens: frozenset[tuple[str, str]], image_token: str, latent_token: str
) -> ChatFormat:
    """Cut the headers out of a rendered probe conversation.

    Args:
        template: jinja text.
        special_tokens: items of `tokenizer.special_tokens_map`, which templates may use.
        image_token, latent_token: the placeholders the template must write.

    Raises:
        ValueError: the template has no `{% generation %}` block around answers, or does not write the vision markup.
    """
    variables = dict(special_tokens)
    user, answer = _message("user", _QUESTION), _message("assistant", _ANSWER)

    text, spans = _render(template, [user, answer, user, answer], variables)
    answers = [text[start:end] for start, end in spans]
    if len(spans) != 2 or not all(_ANSWER in piece for piece in answers):
        raise ValueError(_not_usable("wrap each assistant text and its end of turn in {% generation %}", template))
    first, second = text.index(_QUESTION), text.rindex(_QUESTION)
    before_first, before_second = text[:first], text[spans[0][1] : second]
    answer_header = text[second + len(_QUESTION) : spans[1][0]]
    answer_end = answers[1][answers[1].index(_ANSWER) + len(_ANSWER) :]
    # A template may write a line break between turns that the first turn does not have.
    user_header = _common_suffix(before_first, before_second).lstrip()

    with_system, _ = _render(template, [_message("system", _SYSTEM), user], variables)
    system_header = with_system[: with_system.index(_SYSTEM)] if _SYSTEM in with_system else user_header
    if not (user_header and answer_header and answer_end and system_header):
        raise ValueError(_not_usable("write a header before questions and answers and an end of turn", template))

    chat_format = ChatFormat(
        system_header=system_header,
        user_header=user_header,
        answer_header=answer_header,
        answer_end=answer_end,
        conversation_end=text[spans[1][1] :],
        image_token=image_token,
        latent_token=latent_token,
    )
    user_with_image = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]}
    with_image, _ = _render(template, [user_with_image, answer, user, answer], variables)
    expected = (chat_format.first_markup + _QUESTION, chat_format.latent_markup + _QUESTION)
    if any(user_header + question not in with_image for question in expected):
        raise ValueError(_not_usable(f"write {expected[0]!r} for the question with the image", template))
    return chat_format


def _render(template: str, messages: list[dict[str, Any]], variables: Mapping[str, str]) -> tuple[str, list[Any]]:
    try:
        texts, spans = render_jinja_template(
            conversations=[messages], chat_template=template, return_assistant_tokens_mask=True, **variables
        )
    except TemplateError as error:
        raise ValueError(f"the chat template is broken: {error}. It begins with {template[:60]!r}") from error
    return texts[0], spans[0]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _common_suffix(left: str, right: str) -> str:
    length = 0
    while length < min(len(left), len(right)) and left[-1 - length] == right[-1 - length]:
        length += 1
    return left[len(left) - length :]


def _not_usable(requirement: str, template: str) -> str:
    return (
        f"the chat template must {requirement}. Start from one of the shipped ones ({', '.join(TEMPLATE_NAMES)}). "
        f"It begins with {template[:60]!r}"
    )
