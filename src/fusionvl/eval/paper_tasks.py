"""The paper's 22 benchmarks: which task of lmms-eval 0.7.3 measures which column of its table, and in which unit.

The paper names neither its tool nor its metrics; where a benchmark has several, the choice and its reason stand in
`note`. Tests compare names and metrics with the installed lmms-eval. Knows no model and runs nothing.
"""

from dataclasses import dataclass
from typing import Literal

DEFAULT_JUDGE = "gpt-4o-2024-11-20"
"""lmms-eval's own default; the environment variable MODEL_VERSION names another."""


@dataclass(frozen=True)
class PaperMetric:
    """One number of a task and the column it belongs in.

    Attributes:
        column: Label of the column, as the paper writes it, shortened.
        key: In lmms-eval's results, `metric,filter`.
        factor: What brings it to the paper's unit: lmms-eval reports shares, percent and sums.
        best: The most that can be reached, in that unit.
        title: Of the column where it is not the benchmark's.
        is_mean: Whether it is the mean of the questions' scores, so that an interval can be drawn.
    """

    column: str
    key: str
    factor: float = 100.0
    best: float = 100.0
    title: str = ""
    is_mean: bool = True


@dataclass(frozen=True)
class PaperTask:
    """One of the paper's benchmarks.

    Attributes:
        title: Its name, for people.
        name: lmms-eval's.
        metrics: One a column.
        judge: The language model that scores answers; None when rules do.
        several_images: See `FusionForLmmsEval`.
        note: What a reader of the score must know.
    """

    title: str
    name: str
    metrics: tuple[PaperMetric, ...]
    judge: str | None = None
    several_images: Literal["refuse", "skip"] = "refuse"
    note: str = ""


_TASKS = (
    PaperTask(
        "MMBench, English",
        "mmbench_en_dev_static",
        (PaperMetric("MMB-EN", "gpt_eval_score,none", 1.0),),
        note="dev split, circular; letters are read by rules, no judge",
    ),
    PaperTask(
        "MMBench, Chinese",
        "mmbench_cn_dev",
        (PaperMetric("MMB-CN", "gpt_eval_score,none", 1.0, is_mean=False),),
        judge=DEFAULT_JUDGE,
        note="dev split, circular; the judge reads only answers that rules cannot",
    ),
    PaperTask("VizWiz", "vizwiz_vqa_val", (PaperMetric("VizWiz", "exact_match,none"),), note="val split"),
    PaperTask(
        "POPE",
        "pope",
        (PaperMetric("POPE", "pope_f1_score,none", is_mean=False),),
        note="F1, as LLaVA reports it (the paper does not say what it is); over all three subsets at once",
    ),
    PaperTask("MM-Vet", "mmvet", (PaperMetric("MM-Vet", "gpt_eval_score,none", 1.0),), judge=DEFAULT_JUDGE),
    PaperTask(
        "MME",
        "mme",
        (
            PaperMetric("MME-P", "mme_perception_score,none", 1.0, 2000.0, "MME, perception", is_mean=False),
            PaperMetric("MME-C", "mme_cognition_score,none", 1.0, 800.0, "MME, cognition", is_mean=False),
        ),
        note="sums of accuracy and of accuracy over pairs",
    ),
    PaperTask(
        "SEED-Bench, images",
        "seedbench",
        (PaperMetric("SEED-I", "seed_image,none"),),
        several_images="skip",
        note="the videos among its questions are passed over; they are in no number here",
    ),
    PaperTask(
        "HallusionBench",
        "hallusion_bench_image",
        (PaperMetric("HallB", "aAcc,none", 1.0),),
        judge="gpt-4",
        note="accuracy over all questions (the paper does not say what it is; qAcc and fAcc are lower)",
    ),
    PaperTask(
        "LLaVA-Bench in the wild",
        "llava_in_the_wild",
        (PaperMetric("LLaVA-W", "gpt_eval_llava_all,none", 1.0, is_mean=False),),
        judge=DEFAULT_JUDGE,
    ),
    PaperTask("MMStar", "mmstar", (PaperMetric("MMStar", "average,none", is_mean=False),)),
    PaperTask("MME-RealWorld", "mmerealworld", (PaperMetric("MME-RW", "mme_realworld_score,none"),), note="English"),
    PaperTask("RealWorldQA", "realworldqa", (PaperMetric("RWQA", "exact_match,none"),)),
    PaperTask(
        "CV-Bench",
        "cv_bench",
        (PaperMetric("CV-B", "cv_bench_acc,none", is_mean=False),),
        note="the official mean of 2D and 3D, by lmms-eval's function that its task does not use",
    ),
    PaperTask(
        "MMVP",
        "mmvp",
        (PaperMetric("MMVP", "mmvp_accuracy,none"),),
        note="single questions, not pairs; corrected answers",
    ),
    PaperTask("AI2D", "ai2d", (PaperMetric("AI2D", "exact_match,flexible-extract"),), note="with masks"),
    PaperTask(
        "MathVista",
        "mathvista_testmini_format",
        (PaperMetric("MathV", "llm_as_judge_eval,none", 1.0),),
        judge=DEFAULT_JUDGE,
        note="testmini; the judge reads the answer out of the model's words",
    ),
    PaperTask(
        "MMMU",
        "mmmu_val_group_img",
        (PaperMetric("MMMU", "mmmu_acc,none"),),
        note="val split; several images of a question are joined into one, as FUSION takes one",
    ),
    PaperTask("ScienceQA with images", "scienceqa_img", (PaperMetric("SQA", "exact_match,none"),)),
    PaperTask("TextVQA", "textvqa_val", (PaperMetric("TextVQA", "exact_match,none"),), note="without OCR tokens"),
    PaperTask("OCRBench", "ocrbench", (PaperMetric("OCRB", "ocrbench_accuracy,none"),), note="points of 1000, by ten"),
    PaperTask("ChartQA", "chartqa", (PaperMetric("ChartQA", "relaxed_overall,none"),)),
    PaperTask("DocVQA", "docvqa_val", (PaperMetric("DocVQA", "anls,none"),), note="val split"),
)

PAPER_TASKS = {task.name: task for task in _TASKS}
"""lmms-eval's name -> benchmark, in the order of the paper's columns."""
