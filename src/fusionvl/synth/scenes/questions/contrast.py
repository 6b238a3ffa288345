"""Questions about two scenes side by side."""

from collections import Counter

from fusionvl.synth.scenes.contrast import Change
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.scene_graph import Scene
from fusionvl.synth.scenes.wording import a, counted, listing, noun_phrase, plural, sentence

_ASK = (
    "What is the difference between the two images?",
    "What differs between the left and the right image?",
    "Compare the two images: what has changed?",
    "Spot the difference between the left image and the right image.",
)


def difference(draws: Draws, changes: list[Change]) -> Question:
    """What differs, in all."""
    full = " ".join(change.sentence for change in changes)
    return Question("contrast", phrased(draws, _ASK), full, full)


def contrast_questions(left: Scene, right: Scene, changes: list[Change], draws: Draws) -> list[Question]:
    """Short questions: which side has what, and how many."""
    questions = _sides(left, right, draws)
    questions += _shared(left, right, draws)
    questions.append(_how_many_differences(draws, changes))
    counts = len(left.things), len(right.things)
    if counts[0] != counts[1]:
        side = "left" if counts[0] > counts[1] else "right"
        full = f"The {side} image has more shapes: {counts[0]} on the left, {counts[1]} on the right."
        questions.append(
            Question(
                "contrast", "Which image has more shapes?", f"the {side} one", full, (_other(side), "both the same")
            )
        )
    return questions


def _other(side: str) -> str:
    return "the right one" if side == "left" else "the left one"


def _phrases(scene: Scene) -> Counter[str]:
    return Counter(noun_phrase(thing) for thing in scene.things)


def _sides(left: Scene, right: Scene, draws: Draws) -> list[Question]:
    questions = []
    for side, own, other in (("left", left, right), ("right", right, left)):
        for what in sorted(_phrases(own).keys() - _phrases(other).keys()):
            text = phrased(draws, ("Which image has {it}?", "In which of the two images is there {it}?"), it=a(what))
            full = f"Only the {side} image has {a(what)}."
            questions.append(Question("contrast", text, f"the {side} one", full, (_other(side), "both", "neither")))
    return questions


def _shared(left: Scene, right: Scene, draws: Draws) -> list[Question]:
    both = sorted(_phrases(left).keys() & _phrases(right).keys())
    either = sorted(_phrases(left).keys() ^ _phrases(right).keys())
    questions = []
    for truth, choice in ((True, both), (False, either)):
        if choice:
            what = draws.one_of(choice)
            side = "left" if what in _phrases(left) else "right"
            shared, single = f"both images have {a(what)}", f"only the {side} image has {a(what)}"
            questions.append(yes_no("contrast", f"Is there {a(what)} in both images?", truth, shared, single))
    return questions


def _how_many_differences(draws: Draws, changes: list[Change]) -> Question:
    count = len(changes)
    verb = "is" if count == 1 else "are"
    full = f"There {verb} {counted(count, 'difference')}: {listing([change.what for change in changes])}."
    wrong = tuple(str(number) for number in (1, 2, 3, 4) if number != count)
    return Question("contrast", "How many differences are there between the two images?", str(count), full, wrong)


def comparison(left: Scene, right: Scene, changes: list[Change]) -> str:
    """A long comparison: what both have, then every difference."""
    shared = sorted((_phrases(left) & _phrases(right)).elements())
    same = f"Both images show {listing([a(what) for what in shared])} in the same places" if shared else ""
    opening = f"{same}, and they have the same background." if same else "Both images have the same background."
    verb, noun = ("is", "one difference") if len(changes) == 1 else ("are", counted(len(changes), "difference"))
    return f"{opening} There {verb} {noun}. {' '.join(change.sentence for change in changes)}"


def inventory(scene: Scene, side: str) -> str:
    """What one of the two images shows, as a sentence."""
    if not scene.things:
        return f"The {side} image shows no shapes."
    phrases = [a(noun_phrase(thing)) for thing in sorted(scene.things, key=lambda thing: (thing.y, thing.x))]
    total = f"{len(phrases)} {plural('shape') if len(phrases) > 1 else 'shape'}"
    return sentence(f"the {side} image shows {total}: {listing(phrases)}")
