"""Spoils good rows in named ways, so that filters can be measured: what is wrong with each row is known.

Each corruption returns a row that differs in one thing, or None where it does not fit. Knows no filter's inner life,
only which of them ought to notice.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from fusionvl.synth.choices import LETTERS, choices_of, with_choices
from fusionvl.synth.filters.ocr import TEXT_KINDS
from fusionvl.synth.rows import Row, SynthTurn

ChangeTurn = Callable[[SynthTurn, random.Random], SynthTurn | None]
ChangeImage = Callable[[Path, Path, random.Random], None]

_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_A_COLOUR = re.compile(rf"\b({'|'.join(_COLOURS)})\b", re.IGNORECASE)
_A_COUNT = re.compile(r"^\W*(?:how many|count the|what is the number of)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a row.

    Attributes:
        name: In tables.
        noticed_by: The filters that ought to notice.
        turn: Spoils a turn, if it fits.
        image: Spoils an image file, given where it is and where to write.
        extra: Whether the row is added to the one it was made from, not put in its place.
        everywhere: Whether all turns that it fits are spoiled, not one.
        weight: How many rows it takes for each row of another corruption.
        alone: Whether the spoiled turn is all that is left of the conversation.
        kinds: The kinds of rows that it fits; none for all.
    """

    name: str
    noticed_by: tuple[str, ...]
    turn: ChangeTurn | None = None
    image: ChangeImage | None = None
    extra: bool = False
    alone: bool = False
    everywhere: bool = False
    weight: int = 1
    kinds: tuple[str, ...] = ()

    def spoil(self, row: Row, draws: random.Random) -> Row | None:
        """The row with a turn of it spoiled; None if it fits none of them."""
        if self.kinds and row.kind not in self.kinds:
            return None
        if self.turn is None:
            return row
        turns = list(row.turns)
        for index in draws.sample(range(len(turns)), len(turns)):
            changed = self.turn(turns[index], draws)
            if changed is None or changed == turns[index]:
                continue
            turns[index] = changed
            if self.alone:
                return replace(row, turns=(changed,))
            if not self.everywhere:
                break
        return None if tuple(turns) == row.turns else replace(row, turns=tuple(turns))


def _wrong_count(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    if not _A_COUNT.search(turn.question) or choices_of(turn) is not None:
        return None
    number = _number_in(turn.answer)
    if number is None:
        return None
    other = draws.choice([n for n in range(max(0, number - 3), number + 4) if n != number])
    return _rewritten(turn, str(number), str(other), *_words_of(number, other))


def _words_of(number: int, other: int) -> tuple[str, str]:
    return (_NUMBERS[number], _NUMBERS[other]) if max(number, other) < len(_NUMBERS) else (str(number), str(other))


def _number_in(text: str) -> int | None:
    for word in re.findall(r"\w+", text.casefold()):
        if word.isdecimal():
            return int(word)
        if word in _NUMBERS:
            return _NUMBERS.index(word)
    return None


def _rewritten(turn: SynthTurn, *pairs: str) -> SynthTurn:
    """The turn with words of its answer replaced, given as old, new, old, new, ...; its known fact goes along."""
    answer, correct = turn.answer, turn.correct
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        pattern = re.compile(rf"\b{re.escape(old)}\b", re.IGNORECASE)
        answer = pattern.sub(new, answer, count=1)
        correct = None if correct is None else pattern.sub(new, correct)
        if answer != turn.answer:
            break
    return replace(turn, answer=answer, correct=correct)


def _swapped_colour(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    found = _A_COLOUR.search(turn.answer)
    if found is None or choices_of(turn) is not None:
        return None
    other = draws.choice([colour for colour in _COLOURS if colour != found[1].casefold()])
    return _rewritten(turn, found[1], other)


def _wrong_option(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    choices = choices_of(turn)
    if choices is None or choices.stated is None:
        return None
    other = LETTERS[draws.choice([n for n in range(len(choices.options)) if n != choices.stated])]
    return replace(turn, answer=other, correct=None if turn.correct is None else other)


def _not_an_option(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    choices = choices_of(turn)
    if choices is None:
        return None
    return replace(turn, answer=draws.choice([LETTERS[len(choices.options)], "none of these", "a traffic cone"]))


def _equal_options(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    choices = choices_of(turn)
    if choices is None or choices.stated is None or len(choices.options) < 2:
        return None
    options = list(choices.options)
    wrong = draws.choice([number for number in range(len(options)) if number != choices.stated])
    options[wrong] = options[choices.stated]
    return with_choices(turn, options)


def _always_a(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    """The right option moved to the front: harmless in one row, a habit to learn in many."""
    choices = choices_of(turn)
    if choices is None or not choices.stated:
        return None
    options = [choices.options[choices.stated], *(o for n, o in enumerate(choices.options) if n != choices.stated)]
    return replace(with_choices(turn, options), answer="A", correct=None if turn.correct is None else "A")


# Worded as models word such things, not as rules.py looks for them: what it misses is to be seen in the table.
_LEAKS = (
    "The description says:", "As described,", "Based on the given description,", "According to the text,",
    "The caption does not say more than that it is", "From the written description one can tell:",
    "In the provided caption it is", "It was described as", "The scene description calls it",
)  # fmt: skip
_REFUSALS = (
    "I'm sorry, but I cannot see the image.", "As an AI, I have no way to know.", "The answer is not mentioned.",
    "This cannot be determined from what is given.", "I don't have enough information.", "Unclear.",
    "There is no way to tell from this alone.", "Sorry, I can't help with that.", "Not specified.",
)  # fmt: skip


def _leaked(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    if draws.random() < 0.5:
        return replace(turn, question=f"According to the caption, {turn.question[0].lower()}{turn.question[1:]}")
    return replace(turn, answer=f"{draws.choice(_LEAKS)} {turn.answer}")


def _refusal(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    return replace(turn, answer=draws.choice(_REFUSALS))


def _marker(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    return replace(turn, answer=f"{turn.answer}{draws.choice(['<|im_end|>', '</s>', ' <image>', ' {answer}'])}")


def _no_integer(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    if not _A_COUNT.search(turn.question) or choices_of(turn) is not None:
        return None
    return replace(turn, answer=draws.choice(["several", "2.5", "many", "a few", "about 3"]), correct=None)


def _no_colour(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    if not re.match(r"(what|which) colou?r\b", turn.question, re.IGNORECASE) or choices_of(turn) is not None:
        return None
    return replace(turn, answer=draws.choice(["large", "a circle", "on the left"]), correct=None)


def _empty(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    return replace(turn, answer=" ")


_GENERAL = (
    ("What color is a ripe banana?", "yellow"), ("What color is fresh snow?", "white"),
    ("How many legs does a spider have?", "8"), ("How many days are in a week?", "7"),
    ("What color is grass in spring?", "green"), ("How many wheels does a bicycle have?", "2"),
    ("What is the opposite of left?", "right"), ("How many sides does a triangle have?", "3"),
)  # fmt: skip


def _needs_no_image(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    question, answer = draws.choice(_GENERAL)
    return SynthTurn(question, answer)


_TEXTS = ("HARBOR", "SALE 50", "Platform 9", "NO ENTRY", "Lemonade $3", "OPEN DAILY", "GOLDEN GATE", "Room 217")
_A_QUOTE = re.compile(r'"[^"]+"')
_A_READING = re.compile(r"what does .+ say|what is written|read the|which text", re.IGNORECASE)


def _wrong_text(turn: SynthTurn, draws: random.Random) -> SynthTurn | None:
    """What is said to be written becomes another text."""
    if choices_of(turn) is not None or not _A_READING.match(turn.question):
        return None
    text = draws.choice(_TEXTS)
    answer = _A_QUOTE.sub(f'"{text}"', turn.answer, count=1) if '"' in turn.answer else text
    return replace(turn, answer=answer, correct=None if turn.correct is None else text)


def _mirrored(source: Path, target: Path, draws: random.Random) -> None:
    """Letters nobody can read, as image models draw them."""
    with Image.open(source) as image:
        ImageOps.mirror(image.convert("RGB")).save(target, quality=95)


def _black(source: Path, target: Path, draws: random.Random) -> None:
    with Image.open(source) as image:
        Image.new("RGB", image.size).save(target)


def _blurred(source: Path, target: Path, draws: random.Random) -> None:
    with Image.open(source) as image:
        radius = draws.uniform(0.008, 0.03) * min(image.size)
        image.convert("RGB").filter(ImageFilter.GaussianBlur(radius)).save(target, quality=90)


def _cut_off(source: Path, target: Path, draws: random.Random) -> None:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * draws.uniform(0.1, 0.8))])


def _tiny(source: Path, target: Path, draws: random.Random) -> None:
    with Image.open(source) as image:
        image.convert("RGB").resize((40, 40)).save(target)


def _again(source: Path, target: Path, draws: random.Random) -> None:
    """The same picture, a little smaller and compressed more."""
    with Image.open(source) as image:
        width, height = image.size
        image.convert("RGB").resize((width * 7 // 8, height * 7 // 8)).save(target, quality=70)


CORRUPTIONS = (
    Corruption("leaked caption", ("rules",), _leaked),
    Corruption("refusal", ("rules",), _refusal),
    Corruption("marker left in", ("rules",), _marker),
    Corruption("empty answer", ("rules",), _empty),
    Corruption("answer not in options", ("rules",), _not_an_option),
    Corruption("two equal options", ("rules",), _equal_options),
    Corruption("count not a whole number", ("rules",), _no_integer),
    Corruption("colour not a colour", ("rules",), _no_colour),
    Corruption("black image", ("images",), image=_black),
    Corruption("blurred image", ("images",), image=_blurred),
    Corruption("image cut off", ("images",), image=_cut_off),
    Corruption("tiny image", ("images",), image=_tiny),
    Corruption("near-duplicate", ("duplicates",), image=_again, extra=True),
    Corruption("letter skewed to A", ("balance",), _always_a, everywhere=True, weight=6),
    Corruption("wrong count", ("closed-book", "judge"), _wrong_count),
    Corruption("swapped colour", ("closed-book", "judge"), _swapped_colour),
    Corruption("wrong option", ("closed-book", "judge"), _wrong_option),
    Corruption("wrong text", ("ocr", "closed-book", "judge"), _wrong_text, kinds=TEXT_KINDS),
    Corruption("unreadable text", ("ocr", "judge"), image=_mirrored, kinds=TEXT_KINDS),
    Corruption("needs no image", ("blind",), _needs_no_image, alone=True),
)
"""All ways, in the order of the table."""


def named_corruptions(names: Sequence[str]) -> tuple[Corruption, ...]:
    """Some of the ways, by name.

    Raises:
        ValueError: If there is none of a name.
    """
    known = {each.name: each for each in CORRUPTIONS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no corruption {unknown[0]!r}, only {', '.join(known)}")
    return tuple(known[name] for name in names)
