"""Tests of the lmms-eval plugin. They need lmms-eval, which has an environment of its own.

`scripts/set_up_lmms_eval.sh VENV` makes it. The ordinary test run does not collect them. LMMS_EVAL_REQUIRED=1, which
CI sets when it runs them, makes a missing lmms-eval an error.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

QUESTIONS = 11  # of each task; odd, so that two processes have unequal shares

if not any(importlib.metadata.distributions(name="lmms-eval")):  # a module of that name may be this very folder
    if os.environ.get("LMMS_EVAL_REQUIRED"):
        raise ModuleNotFoundError(
            "lmms-eval is not installed here: run scripts/set_up_lmms_eval.sh and use its python"
        )
    collect_ignore_glob = ["test_*.py"]

# The prompts are easy-VQA's own words, which is all that the shipped model has learnt; everything else (source of the
# rows, image column, scorer, aggregation) is as in the benchmarks of that shape.
COMMON = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function local_tasks.images
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 8, temperature: 0, do_sample: false, until: ["ASSISTANT:"]}}
"""
SHAPES = {
    "local_choice": """
process_results: !function local_tasks.choice
metric_list: [{metric: local_choice, aggregation: mean, higher_is_better: true}]
""",
    "local_yes_no": """
process_results: !function local_tasks.yes_no
metric_list:
  - {metric: pope_accuracy, aggregation: !function local_tasks.yes_no_accuracy, higher_is_better: true}
  - {metric: pope_f1_score, aggregation: !function local_tasks.yes_no_f1, higher_is_better: true}
""",
    "local_open": """
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}
""",
    "local_anls": """
metric_list: [{metric: anls, aggregation: mean, higher_is_better: true}]
""",
    "local_relaxed": """
process_results: !function local_tasks.relaxed
metric_list: [{metric: relaxed_overall, aggregation: mean, higher_is_better: true}]
""",
}
LOCAL_TASKS = """
from PIL import Image

from lmms_eval.tasks.chartqa.utils import chartqa_process_results as relaxed
from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator
from lmms_eval.tasks.pope.utils import pope_aggregate_accuracy as yes_no_accuracy
from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score as yes_no_f1
from lmms_eval.tasks.pope.utils import pope_process_results as yes_no


def images(doc):
    return [Image.open(path) for path in doc["images"]]


def choice(doc, results):
    options = dict(zip("ABC", ("circle", "rectangle", "triangle")))
    return {"local_choice": float(MMBench_Evaluator().can_infer(results[0], options) == doc["letter"])}
"""


def rows_of(name):
    """Questions of the official test images, every fourth reference spoilt, so that scores are not all one."""
    from fusionvl.data.easy_vqa import load_split

    # A pause between the images of the tasks: they ask about different ones.
    first = 20 * list(SHAPES).index(name)
    rows = []
    for image in load_split("test")[first:]:
        for turn in image.turns:
            answer = turn.answer
            fits = {
                "local_choice": answer in ("circle", "rectangle", "triangle"),
                "local_yes_no": answer in ("yes", "no"),
            }.get(name, answer not in ("yes", "no"))
            if fits:
                rows.append({"question": turn.question, "images": [str(image.path)], "answer": answer})
                break
        if len(rows) == QUESTIONS:
            break
    for number, row in enumerate(rows):
        if number % 4 == 0:
            row["answer"] = {"yes": "no", "no": "yes"}.get(row["answer"], row["answer"][:-1] + "x")
        row |= {"question_id": number, "type": "human_test"}
        row["letter"] = dict(zip(("circle", "rectangle", "triangle"), "ABC", strict=True)).get(row["answer"], "D")
    return rows


@pytest.fixture(scope="session")
def local_tasks(tmp_path_factory):
    """A folder with five tasks for `--include_path`, and the rows of each."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "local_tasks.py").write_text(LOCAL_TASKS)
    rows = {name: rows_of(name) for name in SHAPES}
    for name, own in rows.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in own))
        (folder / f"{name}.yaml").write_text(COMMON.format(name=name, rows=path) + SHAPES[name])
    return folder, rows


@pytest.fixture(scope="session")
def engine():
    from fusionvl.engine import FusionEngine

    return FusionEngine.from_pretrained()


@pytest.fixture(scope="session")
def expected(local_tasks, engine):
    """The engine's answers, asked one by one, and the scores by rules written down here a second time."""
    _, rows = local_tasks
    answers = {name: [engine.ask(row["images"][0], row["question"]) for row in own] for name, own in rows.items()}
    pairs = {name: list(zip(own, answers[name], strict=True)) for name, own in rows.items()}
    equal = {name: sum(answer == row["answer"] for row, answer in own) / QUESTIONS for name, own in pairs.items()}
    yes_no = [(row["answer"], answer) for row, answer in pairs["local_yes_no"]]
    hits = yes_no.count(("yes", "yes"))
    f1 = 2 * hits / (2 * hits + yes_no.count(("yes", "no")) + yes_no.count(("no", "yes")))
    likeness = [anls(row["answer"], answer) for row, answer in pairs["local_anls"]]
    scores = {
        "local_choice": {"local_choice,none": equal["local_choice"]},
        "local_yes_no": {"pope_accuracy,none": equal["local_yes_no"], "pope_f1_score,none": f1},
        "local_open": {"exact_match,none": equal["local_open"]},
        "local_anls": {"anls,none": sum(likeness) / QUESTIONS},
        "local_relaxed": {"relaxed_overall,none": equal["local_relaxed"]},
    }
    return answers, scores


def anls(reference, answer):
    """Normalised Levenshtein similarity, 0 below one half."""
    previous = list(range(len(answer) + 1))
    for row, letter in enumerate(reference, start=1):
        current = [row]
        for column, other in enumerate(answer, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (letter != other)))
        previous = current
    likeness = 1 - previous[-1] / max(len(reference), len(answer))
    return likeness if likeness >= 0.5 else 0.0


def offline():
    """The environment of a run without a network and with one thread."""
    # Without PYTHONPATH: metadata of an older build in src would hide the installed entry point.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **inherited,
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def lmms_eval(tasks, include, output, *model_args, processes=1, **options):
    """The command that scores the shipped model, as a list."""
    import fusionvl.engine.sources

    arguments = {
        "model": "fusionvl",
        "model_args": ",".join([f"pretrained={fusionvl.engine.sources.shipped_model()}", *model_args]),
        "tasks": ",".join(tasks),
        "include_path": include,
        "output_path": output,
        "batch_size": 4,
        "device": "cpu",
        **options,
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    if processes == 1:
        start = [str(Path(sys.executable).with_name("lmms-eval")), "eval"]
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        start += ["-m", "lmms_eval"]
    return [*start, *words, "--log_samples"]


def run(command):
    """Run it to its end; its output."""
    process = subprocess.run(command, capture_output=True, text=True, env=offline(), check=False)
    output = process.stdout + process.stderr
    # A run that failed ends with exit code 0, too.
    assert process.returncode == 0, output
    assert "Error during evaluation" not in output, output
    return output


def results_in(output):
    """Scores and answers that lmms-eval wrote: {task: {metric: value}}, {task: [answer]} in the questions' order."""
    [path] = output.glob("*/*_results.json")
    scores = json.loads(path.read_text())["results"]
    answers = {}
    for samples in output.glob("*/*_samples_*.jsonl"):
        lines = [json.loads(line) for line in samples.read_text().splitlines()]
        lines.sort(key=lambda line: line["doc_id"])
        answers[samples.stem.split("_samples_")[1]] = [line["filtered_resps"] for line in lines]
    return scores, answers
