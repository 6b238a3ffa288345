"""What generated scenes are worth: scored models, and the prior, on the same held-out scenes.

    fusionvl eval scenes --model runs/scenes/model --data data/scenes_test --output runs/eval/with
    fusionvl eval scenes --model runs/scenes_without/model --data data/scenes_test --output runs/eval/without
    python benchmarks/scenes_gain.py data/scenes_train runs/eval/with/scenes runs/eval/without/scenes

With `--ask MODEL`, the folders are of scenes instead, of any split, and the model is asked here: for scenes of another
seed whose combinations of shape and colour are those of training.

    python benchmarks/scenes_gain.py data/scenes_train data/scenes_other --ask runs/scenes/model

The prior gives the answer that was most frequent in the training scenes to questions of the same kind that begin with
the same two words; it sees no image. The first line of a kind holds all its questions, the lines below parts of them.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from fusionvl.data.llava import read_llava
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.eval.score_store import SAMPLES, read_answers
from fusionvl.eval.scorers import WORD
from fusionvl.eval.task import ScoredAnswer, TaskQuestion
from fusionvl.eval.tasks.held_out_scenes import score_scene, short_questions

KINDS = ("SynthColor", "SynthCount", "SynthSpatial", "SynthText")
BATCH = 64
READING = re.compile(r"(?:what does .+ say|what is written|read the|which text)", re.IGNORECASE)
LISTING = re.compile(r"(?:which colors|list the|what colors)", re.IGNORECASE)
COLOR_OF = re.compile(r"(?:what color is|.+ the color of|which color does) the (?!background)", re.IGNORECASE)
SHAPE_OF = re.compile(r"(?:which shape is|what shape is|what is the \w+ shape)", re.IGNORECASE)
IN_THE_PICTURE = re.compile(r"(?:where in the image|in which part|where can)", re.IGNORECASE)
SEEN_FROM = re.compile(r"(?:where is|in which direction|how is)", re.IGNORECASE)
WHERE = re.compile(f"{IN_THE_PICTURE.pattern}|{SEEN_FROM.pattern}", re.IGNORECASE)
Prior = dict[tuple[str, str], str]
Belongs = Callable[[ScoredAnswer], bool]


def of_kind(kind: str) -> Belongs:
    return lambda sample: sample.details["kind"] == kind


def closed_of(kind: str) -> Belongs:
    return lambda sample: sample.details["kind"] == kind and sample.details["form"] == "yes/no"


def open_of(kind: str, opening: re.Pattern[str] | None = None, *, other: bool = False) -> Belongs:
    """The questions of a kind that are not for yes or no, and begin in a certain way, or in any other."""
    return lambda sample: (
        sample.details["kind"] == kind
        and sample.details["form"] != "yes/no"
        and (opening is None or bool(opening.match(sample.prompt)) != other)
    )


GROUPS: dict[str, Belongs] = {
    "colour": of_kind("SynthColor"),
    "colour: all in the picture": open_of("SynthColor", LISTING),
    "colour: of a shape": open_of("SynthColor", COLOR_OF),
    "colour: which shape has it": open_of("SynthColor", SHAPE_OF),
    "count": of_kind("SynthCount"),
    "count: but yes or no": open_of("SynthCount"),
    "spatial": of_kind("SynthSpatial"),
    "spatial: yes or no": closed_of("SynthSpatial"),
    "spatial: where in the picture": open_of("SynthSpatial", IN_THE_PICTURE),
    "spatial: where, seen from another": open_of("SynthSpatial", SEEN_FROM),
    "spatial: which thing is there": open_of("SynthSpatial", WHERE, other=True),
    "text": of_kind("SynthText"),
    "text: to be read": open_of("SynthText", READING),
    "text: colours and numbers of signs": open_of("SynthText", READING, other=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path, help="the folder of training scenes, for the prior")
    parser.add_argument("scored", type=Path, nargs="+", help="folders that `fusionvl eval scenes` wrote")
    parser.add_argument("--ask", metavar="MODEL", help="ask this model about scenes in place of reading scores")
    arguments = parser.parse_args()
    scored = {
        folder.parent.name if arguments.ask is None else folder.name: read_answers(folder / SAMPLES)
        if arguments.ask is None
        else asked(arguments.ask, folder)
        for folder in arguments.scored
    }
    samples = list(next(iter(scored.values())).values())
    prior = prior_of(arguments.training, sorted({sample.details["kind"] for sample in samples}))
    columns = {"prior": [prior_score(prior, sample) for sample in samples]}
    columns |= {name: [own[sample.id].score or 0.0 for sample in samples] for name, own in scored.items()}
    print("| questions | number | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for group, belongs in GROUPS.items():
        report(group, samples, columns, belongs)


def asked(model: str, folder: Path) -> dict[str, ScoredAnswer]:
    """The answers of a model to all short questions about a folder of scenes, scored as the task scores them."""
    every = [question for kind in KINDS for question in short_questions(folder / f"{kind}.json")]
    questions = [question for question in every if question.prompt.endswith(WORD)]
    engine = FusionEngine.from_pretrained(model)
    samples = {}
    for start in tqdm(range(0, len(questions), BATCH), desc="Asking"):
        batch = questions[start : start + BATCH]
        answers = engine.answer([conversation(each.image, each.prompt) for each in batch], max_new_tokens=48)
        for question, answer in zip(batch, answers, strict=True):
            mark = score_scene(question, answer.text)
            samples[question.id] = ScoredAnswer.of(question, answer.text, answer.finish_reason, mark)
    return samples


def prior_of(training: Path, kinds: Sequence[str]) -> Prior:
    """For each kind and opening of a question, the answer that was most frequent in training."""
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for kind in kinds:
        for sample in read_llava(training / f"{kind}.json"):
            for turn in sample.turns:
                if turn.question.endswith(WORD):
                    answers[kind, opening(turn.question)][turn.answer] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in answers.items()}


def prior_score(prior: Prior, sample: ScoredAnswer) -> float:
    answer = prior.get((sample.details["kind"], opening(sample.prompt)), "")
    question = TaskQuestion(sample.id, sample.prompt, None, "", sample.reference, sample.details)
    return score_scene(question, answer).score


def opening(question: str) -> str:
    return " ".join(question.split()[:2]).casefold()


def report(name: str, samples: Sequence[ScoredAnswer], columns: dict[str, list[float]], belongs: Belongs) -> None:
    chosen = [number for number, sample in enumerate(samples) if belongs(sample)]
    shares = (sum(scores[number] for number in chosen) / len(chosen) for scores in columns.values())
    print(f"| {name} | {len(chosen)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
