"""The paper's table of results (arXiv 2504.09925), as data. Knows no runs."""

from fusionvl.eval.paper_tasks import PAPER_TASKS

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

COLUMNS = tuple((task, metric) for task in PAPER_TASKS.values() for metric in task.metrics)
"""In the paper's order."""


def _read(text: str) -> dict[str, dict[str, float | None]]:
    rows = {}
    for line in text.strip().splitlines():
        words = line.split()
        values = [None if word == "-" else float(word) for word in words[2:]]
        rows[" ".join(words[:2])] = dict(zip((metric.column for _, metric in COLUMNS), values, strict=True))
    return rows


PAPER_ROWS = _read(_TEXT)
"""Model -> label of a column -> what the paper reports; None where it reports nothing."""
