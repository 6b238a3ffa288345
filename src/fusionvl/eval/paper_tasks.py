"""Which task of lmms-eval 0.7.3 measures which column of the paper's table, and in which unit.

The paper names neither its tool nor its metrics; where a benchmark has several, the choice and its reason stand in
`note`. Tests compare names and metrics with the installed lmms-eval. Knows no model and runs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DEFAULT_JUDGE = "gpt-4o-2024-11-20"
"""lmms-eval's own default; the environment variable MODEL_VERSION names another."""

LoggedSamples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PaperMetric:
    """One number of a task and the column it belongs in.

    Attributes:
        column: Label of the column (`fusionvl.eval.paper_table.COLUMNS`).
        metric: The key in lmms-eval's results.
        factor: What brings it to the paper's unit: lmms-eval reports shares, percent and sums.
        filter: The filter of answers that lmms-eval names in the key.
        from_samples: Computes the number from the samples instead, where lmms-eval leaves the official formula.
    """

    column: str
    metric: str
    factor: float = 100.0
    filter: str = "none"
    from_samples: Callable[[LoggedSamples], float] | None = None

    @property
    def key(self) -> str:
        """As lmms-eval writes it."""
        return f"{self.metric},{self.filter}"


@dataclass(frozen=True)
class PaperTask:
    """One of the paper's benchmarks.

    Attributes:
        benchmark: Its name, for people.
        task: lmms-eval's name.
        metrics: One a column.
        judge: The language model that scores answers; None when rules do.
        several_images: See `FusionForLmmsEval`.
        note: What a reader of the score must know.
    """

    benchmark: str
    task: str
    metrics: tuple[PaperMetric, ...]
    judge: str | None = None
    several_images: Literal["refuse", "skip"] = "refuse"
    note: str = ""


def cv_bench(samples: LoggedSamples) -> float:
    """The official CV-Bench: the mean of 2D and 3D, 2D being the mean of ADE20K and COCO.

    Raises:
        ValueError: When a source has no samples.
    """
    right: dict[str, list[bool]] = {"ADE20K": [], "COCO": [], "Omni3D": []}
    for sample in samples:
        right[sample["cv_bench_acc"]["source"]].append(sample["cv_bench_acc"]["is_correct"])
    missing = [source for source, own in right.items() if not own]
    if missing:
        raise ValueError(f"CV-Bench is the mean over its sources; none of {', '.join(missing)} were asked")
    share = {source: sum(own) / len(own) for source, own in right.items()}
    return ((share["ADE20K"] + share["COCO"]) / 2 + share["Omni3D"]) / 2


PAPER_TASKS = (
    PaperTask(
        "MMBench, English",
        "mmbench_en_dev_static",
        (PaperMetric("MMB-EN", "gpt_eval_score", 1.0),),
        note="dev split; letters are read by rules, no judge",
    ),
    PaperTask(
        "MMBench, Chinese",
        "mmbench_cn_dev",
        (PaperMetric("MMB-CN", "gpt_eval_score", 1.0),),
        judge=DEFAULT_JUDGE,
        note="dev split; the judge reads only answers that rules cannot",
    ),
    PaperTask("VizWiz", "vizwiz_vqa_val", (PaperMetric("VizWiz", "exact_match"),), note="val split"),
    PaperTask(
        "POPE",
        "pope",
        (PaperMetric("POPE", "pope_f1_score"),),
        note="F1, as LLaVA reports it (the paper does not say what it is); over all three subsets at once",
    ),
    PaperTask("MM-Vet", "mmvet", (PaperMetric("MM-Vet", "gpt_eval_score", 1.0),), judge=DEFAULT_JUDGE),
    PaperTask(
        "MME",
        "mme",
        (PaperMetric("MME-P", "mme_perception_score", 1.0), PaperMetric("MME-C", "mme_cognition_score", 1.0)),
        note="sums of accuracy and of accuracy over pairs",
    ),
    PaperTask(
        "SEED-Bench, images",
        "seedbench",
        (PaperMetric("SEED-I", "seed_image"),),
        several_images="skip",
        note="the videos among its questions are passed over; they are in no number here",
    ),
    PaperTask(
        "HallusionBench",
        "hallusion_bench_image",
        (PaperMetric("HallB", "aAcc", 1.0),),
        judge="gpt-4",
        note="accuracy over all questions (the paper does not say what it is; qAcc and fAcc are lower)",
    ),
    PaperTask(
        "LLaVA-Bench in the wild",
        "llava_in_the_wild",
        (PaperMetric("LLaVA-W", "gpt_eval_llava_all", 1.0),),
        judge=DEFAULT_JUDGE,
    ),
    PaperTask("MMStar", "mmstar", (PaperMetric("MMStar", "average"),)),
    PaperTask("MME-RealWorld", "mmerealworld", (PaperMetric("MME-RW", "mme_realworld_score"),), note="English"),
    PaperTask("RealWorldQA", "realworldqa", (PaperMetric("RWQA", "exact_match"),)),
    PaperTask("CV-Bench", "cv_bench", (PaperMetric("CV-B", "cv_bench_acc", from_samples=cv_bench),)),
    PaperTask(
        "MMVP", "mmvp", (PaperMetric("MMVP", "mmvp_accuracy"),), note="single questions, not pairs; corrected answers"
    ),
    PaperTask("AI2D", "ai2d", (PaperMetric("AI2D", "exact_match", filter="flexible-extract"),), note="with masks"),
    PaperTask(
        "MathVista",
        "mathvista_testmini_format",
        (PaperMetric("MathV", "llm_as_judge_eval", 1.0),),
        judge=DEFAULT_JUDGE,
        note="testmini; the judge reads the answer out of the model's words",
    ),
    PaperTask(
        "MMMU",
        "mmmu_val_group_img",
        (PaperMetric("MMMU", "mmmu_acc"),),
        note="val split; several images of a question are joined into one, as FUSION takes one",
    ),
    PaperTask("ScienceQA with images", "scienceqa_img", (PaperMetric("SQA", "exact_match"),)),
    PaperTask("TextVQA", "textvqa_val", (PaperMetric("TextVQA", "exact_match"),), note="without OCR tokens"),
    PaperTask("OCRBench", "ocrbench", (PaperMetric("OCRB", "ocrbench_accuracy"),), note="points of 1000, over ten"),
    PaperTask("ChartQA", "chartqa", (PaperMetric("ChartQA", "relaxed_overall"),)),
    PaperTask("DocVQA", "docvqa_val", (PaperMetric("DocVQA", "anls"),), note="val split"),
)
