"""The table of the paper's tasks against the installed lmms-eval."""

from importlib.metadata import version
from pathlib import Path

import pytest
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from fusionvl.eval.paper_tasks import DEFAULT_JUDGE, PAPER_TASKS

PAIR = [{"question_id": 1, "score": 1.0}] * 2

# A perfect model's results, as the task's own functions hand them to the aggregation. Metrics with `mean` are shares.
PERFECT = {
    "pope_f1_score": [{"prediction": "yes", "ground_truth": "yes"}],
    "mme_perception_score": [{**one, "category": "OCR"} for one in PAIR],
    "mme_cognition_score": [{**one, "category": "code_reasoning"} for one in PAIR],
    "seed_image": [{"pred": "A", "answer": "A", "question_id": 1}],
    "average": [{"score": 1.0, "l2_category": "geometry"}],
    "mme_realworld_score": [
        {
            "category": "Perception",
            "sub_category": "OCR with Complex Context",
            "task_category": "x",
            "pred_answer": "A",
            "answer": "A",
        }
    ],
    "cv_bench_acc": [{"is_correct": True}],
    "mmvp_accuracy": [{"is_correct": True}],
    "mmmu_acc": [
        {
            "id": "validation_Art_1",
            "subdomain": "Art",
            "question_type": "multiple-choice",
            "answer": "A",
            "parsed_pred": "A",
        }
    ],
    "gpt_eval_llava_all": [{"scores": [8.0, 8.0]}],
}
BEST = {"MME-P": 200.0, "MME-C": 200.0}  # of one category each


@pytest.fixture(scope="module")
def paths():
    """Where lmms-eval defines the paper's tasks, by name."""
    index = TaskManager(verbosity="ERROR").task_index
    return {name: Path(index[name]["yaml_path"]) for name in PAPER_TASKS}


@pytest.fixture(scope="module")
def definitions(paths):
    """Settings of the paper's tasks by name, with their functions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")  # MathVista's module makes a client when it is imported
        return {name: load_yaml_config(str(path), mode="full") for name, path in paths.items()}


def test_the_version_is_the_one_that_the_table_is_written_for():
    assert version("lmms_eval") == "0.7.3"


def test_the_plugin_is_found():
    assert get_model("fusionvl").__name__ == "FusionForLmmsEval"


def test_every_task_exists_with_its_metrics_and_generates_answers(definitions):
    for task in PAPER_TASKS.values():
        settings = definitions[task.name]
        assert settings["output_type"] == "generate_until"
        declared = {metric["metric"] for metric in settings["metric_list"]}
        filters = {one["name"] for one in settings.get("filter_list", [{"name": "none"}])}
        for metric in task.metrics:
            name, filter_name = metric.key.split(",")
            assert name in declared, task.name
            assert filter_name in filters, task.name


def test_units(definitions):
    """A perfect model has the most that the paper's column can hold."""
    checked = set()
    for task in PAPER_TASKS.values():
        declared = {metric["metric"]: metric["aggregation"] for metric in definitions[task.name]["metric_list"]}
        for metric in task.metrics:
            name = metric.key.split(",")[0]
            aggregate = declared[name]
            if aggregate == "mean":
                assert metric.factor == 100.0
            elif name in PERFECT:
                value = aggregate(PERFECT[name])
                assert metric.factor * value == pytest.approx(BEST.get(metric.column, 100.0)), metric.column
            else:
                continue
            checked.add(metric.column)
    unchecked = {metric.column for task in PAPER_TASKS.values() for metric in task.metrics} - checked
    # Their aggregations write files or ask the judge; all multiply by 100 or, for OCRBench, count to 1000.
    assert unchecked == {"MMB-EN", "MMB-CN", "MM-Vet", "HallB", "MathV", "OCRB"}


def test_judges(paths):
    """Who asks a language model says so in its source, and no other task does."""
    for task in PAPER_TASKS.values():
        source = "".join(path.read_text() for path in paths[task.name].parent.glob("*.py"))
        if task.judge == DEFAULT_JUDGE:
            assert f'"MODEL_VERSION", "{DEFAULT_JUDGE}"' in source
        elif task.judge is not None:
            assert f'gpt_model="{task.judge}"' in source
        elif task.name != "mmbench_en_dev_static":
            assert "API_KEY" not in source, task.name
