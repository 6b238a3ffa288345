"""Benchmarks answered with the letter of an option.

MMBench (English and Chinese), MMStar, AI2D, ScienceQA with images, CV-Bench, MMVP and RealWorldQA. How a letter is
understood is in `answer_parsing.py`; an answer without one is wrong and counted, no letter is drawn for it.
"""

import re
from collections.abc import Callable, Sequence
from statistics import mean

from fusionvl.eval.scorers import score_choice, score_exact
from fusionvl.eval.sources import Row, Source, is_empty
from fusionvl.eval.summaries import Summary, all_right, groups, mean_score, percent, scored
from fusionvl.eval.task import Judge, Question, Sample, Task, Verdict
from fusionvl.eval.tasks.questions import LETTER, choice_prompt, lettered, loader, one_of

_LETTER_CN = "请直接回答选项字母。"
_ROTATION = 1_000_000
"""MMBench asks a question again with its options rotated; such a row's index is this much higher."""


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_choice(answer, question.reference, question.details["options"])


def _question(
    row: Row, identity: str, prompt: str, options: dict[str, str], answer: object, **details: object
) -> Question:
    image, image_id = row.image(key=identity)
    return Question(
        id=identity,
        prompt=prompt,
        image=image,
        image_id=image_id,
        reference=one_of(answer, options, f"{row.where}: answer"),
        details={**details, "options": options},
    )


def _mmbench(language: str) -> Source:
    return Source(
        dataset="lmms-lab/MMBench",
        revision="ac155b9c318a37ac5a75267b18cbca12cbcc6bab",
        hub_files=(f"{language}/dev-*",),
        files=(f"{language}/dev-*.parquet", "dev-*.parquet", f"MMBench_DEV_{language.upper()}*.tsv"),
        columns=("index", "question", "hint", "A", "B", "answer", "category", "image", "L2-category|l2-category"),
    )


def _mmbench_question(instruction: str) -> Callable[[Row], Question]:
    def read(row: Row) -> Question:
        one_of(row.get("split") or "dev", ["dev"], f"{row.where}: split")
        index = int(row["index"])
        options = {letter: row.text(letter) for letter in "ABCDE" if not is_empty(row.values.get(letter))}
        context = str(row.get("hint") or "").strip()
        return _question(
            row,
            str(index),
            choice_prompt(row.text("question"), options, context=context, instruction=instruction),
            options,
            row["answer"],
            group=str(index % _ROTATION),
            rotated=index >= _ROTATION,
            category=row.text("category"),
            l2_category=row.text("L2-category", "l2-category"),
        )

    return read


def summarise_mmbench(samples: Sequence[Sample]) -> Summary:
    """Circular accuracy: a question counts when it is answered rightly in every rotation of its options.

    Of a run that was limited, the rotations that were asked count. `vanilla_accuracy` takes each question once, as it
    stands first. Categories are circular, too.
    """
    kept = scored(samples)
    right = all_right(kept)
    summary = {"accuracy": percent(right.values())}
    first = [sample for sample in kept if not sample.details["rotated"]]
    if first:
        summary["vanilla_accuracy"] = percent(sample.score for sample in first)
    for detail in ("l2_category", "category"):
        by_value = groups(kept, lambda sample: sample.details[detail])  # noqa: B023 - used at once
        for value, own in sorted(by_value.items()):
            summary[f"accuracy/{value}"] = percent(all_right(own).values())
    return summary


_MMSTAR = Source(
    dataset="Lin-Chen/MMStar",
    revision="bc98d668301da7b14f648724866e57302778ab27",
    hub_files=("mmstar.parquet",),
    files=("mmstar.parquet", "val-*.parquet"),
    columns=("index", "question", "answer", "category", "l2_category", "image"),
)


def _mmstar_question(row: Row) -> Question:
    return _question(
        row,
        row.text("index"),
        f"{row.text('question')}\n{LETTER}",
        dict.fromkeys("ABCD", ""),  # their words stand in the question
        row.text("answer").upper(),
        category=row.text("category"),
        l2_category=row.text("l2_category"),
    )


_AI2D = Source(
    dataset="lmms-lab/ai2d",
    revision="c83a9b9692933aff8349157c88a413df9d02c4e5",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("question", "options", "answer", "image"),
)


def _ai2d_question(row: Row) -> Question:
    options = lettered(row["options"])
    return _question(
        row, str(row.number), choice_prompt(row.text("question"), options), options, _letter(row, options)
    )


_SCIENCEQA = Source(
    dataset="lmms-lab/ScienceQA",
    revision="69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50",
    hub_files=("ScienceQA-IMG/test-*",),
    files=("ScienceQA-IMG/test-*.parquet", "test-*.parquet"),
    columns=("question", "choices", "answer", "hint", "subject", "image"),
)


def _scienceqa_question(row: Row) -> Question:
    options = lettered(row["choices"])
    hint = row.get("hint")
    return _question(
        row,
        str(row.number),
        choice_prompt(row.text("question"), options, context=f"Context: {hint}" if hint else ""),
        options,
        _letter(row, options),
        subject=row.text("subject"),
    )


def _letter(row: Row, options: dict[str, str]) -> str:
    """The letter of an answer that is published as a position from 0."""
    position = one_of(row["answer"], map(str, range(len(options))), f"{row.where}: answer")
    return list(options)[int(position)]


_CV_BENCH = Source(
    dataset="nyu-visionx/CV-Bench",
    revision="22409a927ab5cf68e3655023d51694587455fc99",
    hub_files=("test.parquet",),
    files=("test_?d.parquet", "test.parquet"),
    columns=("idx", "type", "task", "prompt", "choices", "answer", "source", "image"),
    together=("test_2d.parquet", "test_3d.parquet"),
)
_CV_BENCH_PARTS = {"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)}


def _cv_bench_question(row: Row) -> Question:
    return _question(
        row,
        f"{row['type']}-{row['idx']}",
        f"{row.text('prompt')}\n{LETTER}",
        lettered(row["choices"]),
        row.text("answer").strip("()").upper(),
        source=one_of(row["source"], sum(_CV_BENCH_PARTS.values(), ()), f"{row.where}: source"),
        task=row.text("task"),
    )


def summarise_cv_bench(samples: Sequence[Sample]) -> Summary:
    """The mean of 2D and 3D, 2D being the mean of its two sources of images and not of its questions.

    A part without questions (a run that was limited) is left out of the means.
    """
    kept = scored(samples)
    by_source = {source: percent(s.score for s in own) for source, own in groups(kept, _source).items()}
    parts = {
        part: mean(by_source[source] for source in sources if source in by_source)
        for part, sources in _CV_BENCH_PARTS.items()
        if by_source.keys() & set(sources)
    }
    detailed = mean_score("source", "task")(kept)
    return {**detailed, "accuracy": mean(parts.values()), **{f"accuracy/{part}": v for part, v in parts.items()}}


def _source(sample: Sample) -> str:
    return str(sample.details["source"])


_MMVP = Source(
    dataset="MMVP/MMVP",
    hub_files=("Questions.csv", "MMVP Images/*"),
    files=("Questions.csv", "train-*.parquet", "test-*.parquet"),
    columns=("Index", "Question", "Options", "Correct Answer"),
)


def _mmvp_question(row: Row) -> Question:
    index = int(row["Index"])
    options = lettered(re.findall(r"\([a-z]\)\s*(.+?)\s*(?=\([a-z]\)|$)", row.text("Options"), re.IGNORECASE))
    image, image_id = row.image() if "image" in row.values else _mmvp_image(row, index)
    return Question(
        id=str(index),
        prompt=choice_prompt(row.text("Question"), options),
        image=image,
        image_id=image_id,
        reference=one_of(row.text("Correct Answer").strip("()").upper(), options, f"{row.where}: Correct Answer"),
        details={"group": str((index - 1) // 2), "options": options},
    )


def _mmvp_image(row: Row, index: int) -> tuple[bytes, str]:
    path = row.file.parent / "MMVP Images" / f"{index}.jpg"
    if not path.is_file():
        raise ValueError(f"{row.where}: there is no image {path}. {_MMVP.how_to_download(row.file.parent)}")
    return row.images.keep(path.read_bytes())


def summarise_mmvp(samples: Sequence[Sample]) -> Summary:
    """Share of questions, and share of pairs whose two questions are both right (pairs with both asked)."""
    kept = scored(samples)
    pairs = groups(kept, lambda sample: sample.details["group"]).values()
    whole = [all(sample.score == 1 for sample in pair) for pair in pairs if len(pair) == 2]
    return {
        "accuracy": percent(sample.score for sample in kept),
        **({"pair_accuracy": percent(whole)} if whole else {}),
    }


_REALWORLDQA = Source(
    dataset="lmms-lab/RealWorldQA",
    revision="907c4e5228fd1703c710ed937601cb5f89ab8d5c",
    hub_files=("data/test-*",),
    files=("test-*.parquet",),
    columns=("question", "answer", "image"),
)


def _realworldqa_question(row: Row) -> Question:
    """Options and instruction stand in the question; some questions have none and are answered in a word."""
    question, answer = row.text("question"), row.text("answer")
    options = dict(re.findall(r"^\s*([A-Z])\. (.+)$", question, re.MULTILINE))
    if re.fullmatch("[A-Za-z]", answer) is None:  # a number or a word, whatever the question's lines begin with
        options = {}
    image, image_id = row.image()
    return Question(
        id=str(row.number),
        prompt=question,
        image=image,
        image_id=image_id,
        reference=one_of(answer.upper(), options, f"{row.where}: answer") if options else answer,
        details={"form": "letter" if options else "word", "options": options},
    )


def _score_realworldqa(question: Question, answer: str, judge: Judge | None) -> Verdict:
    if question.details["options"]:
        return _score(question, answer, judge)
    return score_exact(answer, [question.reference])


def _task(
    name: str,
    title: str,
    source: Source,
    read: Callable[[Row], Question],
    summarise: Callable[[Sequence[Sample]], Summary],
    score: Callable[[Question, str, Judge | None], Verdict] = _score,
) -> Task:
    return Task(
        name=name,
        title=title,
        source=str(source),
        load=loader(source, read),
        score=score,
        summarise=summarise,
        headline="accuracy",
        max_new_tokens=16,
    )


TASKS = (
    _task("mmbench_en_dev", "MMBench, English, dev", _mmbench("en"), _mmbench_question(LETTER), summarise_mmbench),
    _task("mmbench_cn_dev", "MMBench, Chinese, dev", _mmbench("cn"), _mmbench_question(_LETTER_CN), summarise_mmbench),
    _task("mmstar", "MMStar", _MMSTAR, _mmstar_question, mean_score("category", "l2_category")),
    _task("ai2d", "AI2D, test", _AI2D, _ai2d_question, mean_score()),
    _task("scienceqa_img", "ScienceQA with images, test", _SCIENCEQA, _scienceqa_question, mean_score("subject")),
    _task("cv_bench", "CV-Bench", _CV_BENCH, _cv_bench_question, summarise_cv_bench),
    _task("mmvp", "MMVP", _MMVP, _mmvp_question, summarise_mmvp),
    _task("realworldqa", "RealWorldQA", _REALWORLDQA, _realworldqa_question, mean_score("form"), _score_realworldqa),
)
