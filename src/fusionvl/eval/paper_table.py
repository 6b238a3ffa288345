"""The paper's table of results (arXiv 2504.09925), as data, and which built-in task measures which of its columns.

Knows no runs. The paper does not say which metric stands behind each column; `metric` is the one that the benchmark's
own authors report.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of the paper's table.

    Attributes:
        label: As the paper writes it, shortened.
        benchmark: Its full name.
        best: The most that can be reached.
        task: The built-in task that measures it; empty when only lmms-eval does.
        metric: Of that task's summary.
    """

    label: str
    benchmark: str
    best: float = 100.0
    task: str = ""
    metric: str = "accuracy"


COLUMNS = (
    Column("MMB-EN", "MMBench, English", task="mmbench_en_dev"),
    Column("MMB-CN", "MMBench, Chinese", task="mmbench_cn_dev"),
    Column("VizWiz", "VizWiz", task="vizwiz_vqa_val"),
    Column("POPE", "POPE", task="pope", metric="f1"),
    Column("MM-Vet", "MM-Vet", task="mmvet", metric="score"),
    Column("MME-P", "MME, perception", best=2000.0, task="mme", metric="perception"),
    Column("MME-C", "MME, cognition", best=800.0, task="mme", metric="cognition"),
    Column("SEED-I", "SEED-Bench, images"),
    Column("HallB", "HallusionBench", task="hallusion_bench_image", metric="aAcc"),
    Column("LLaVA-W", "LLaVA-Bench in the wild", task="llava_in_the_wild", metric="score"),
    Column("MMStar", "MMStar", task="mmstar"),
    Column("MME-RW", "MME-RealWorld"),
    Column("RWQA", "RealWorldQA", task="realworldqa"),
    Column("CV-B", "CV-Bench", task="cv_bench"),
    Column("MMVP", "MMVP", task="mmvp"),
    Column("AI2D", "AI2D", task="ai2d"),
    Column("MathV", "MathVista"),
    Column("MMMU", "MMMU"),
    Column("SQA", "ScienceQA with images", task="scienceqa_img"),
    Column("TextVQA", "TextVQA", task="textvqa_val"),
    Column("OCRB", "OCRBench", task="ocrbench"),
    Column("ChartQA", "ChartQA", task="chartqa", metric="relaxed_accuracy"),
    Column("DocVQA", "DocVQA", task="docvqa_val", metric="anls"),
)

_TEXT = """
FUSION 3B          79.5 71.7 64.6 88.9 57.2 1595.9 416.5 74.6 51.4 84.7 52.4 41.5 65.1 76.4 76.0 78.9 54.3 44.7 87.1 71.8 60.0 75.7 70.9
FUSION-X 3B        80.3 74.8 66.1 88.7 60.3 1582.1 440.0 75.3 51.9 85.2 50.9 41.7 63.7 78.3 78.1 79.2 54.9 44.2 87.3 73.9 63.7 75.8 71.1
FUSION-L 3B        77.6 70.8 65.3 88.3 56.7 1573.7 406.8 74.1 48.7 77.6 47.7 39.5 61.8 76.2 77.0 77.3 48.6 43.4 85.6 71.4 56.9 67.7 63.5
FUSION 8B          80.5 74.9 59.5 89.3 60.0 1592.3 396.1 77.2 52.6 86.9 52.4 46.0 65.2 78.7 78.7 80.4 56.6 43.1 89.2 77.3 63.8 80.3 78.6
FUSION-X 8B        82.0 76.2 62.9 88.8 60.0 1607.5 337.2 78.2 51.4 88.0 52.7 44.7 66.1 79.2 79.9 81.4 59.4 42.2 90.3 74.7 66.6 79.8 77.8
FUSION-L 8B        80.0 73.6 59.9 88.5 57.3 1601.7 338.9 75.9 46.7 82.1 49.3 42.3 65.1 78.2 76.7 79.2 55.2 41.8 88.3 72.8 59.5 73.0 66.0
Cambrian-1 8B      75.9 67.9 -    87.4 48.0 1547.1 -     74.7 48.7 71.0 50.0 -    64.2 72.2 51.3 73.0 49.0 42.7 80.4 71.7 62.4 73.3 77.8
Florence-VL 8B     76.2 69.5 59.1 89.9 56.3 1560.0 381.1 74.9 57.3 74.2 50.0 -    64.2 73.4 73.3 74.2 55.5 43.7 85.9 74.2 63.4 74.7 -
LLaVA-OneVision 8B 81.7 78.0 -    87.2 58.8 1626.0 483.0 74.8 47.5 86.9 60.9 57.5 65.5 -    -    81.6 56.1 47.7 96.6 78.5 69.7 78.8 87.5
"""  # noqa: E501 - a table is read by its columns


def _read(text: str) -> dict[str, dict[str, float | None]]:
    rows = {}
    for line in text.strip().splitlines():
        words = line.split()
        values = [None if word == "-" else float(word) for word in words[2:]]
        labels = [column.label for column in COLUMNS]
        rows[" ".join(words[:2])] = dict(zip(labels, values, strict=True))
    return rows


PAPER_ROWS: dict[str, dict[str, float | None]] = _read(_TEXT)
"""Model -> column label -> what the paper reports; None where it reports nothing."""
