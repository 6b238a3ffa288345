"""Every benchmark is read from small files in the shape in which it is published, and wrong files are told."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from published_files import WRITERS, mmbench_tsv, picture, pope, write_parquet, write_separated

from fusionvl.eval.paper_table import COLUMNS
from fusionvl.eval.task import Sample
from fusionvl.eval.tasks.registry import TASKS, find_task
from fusionvl.processing.image_loading import load_image

JUDGED = {"mmvet", "llava_in_the_wild"}
IN_FILES_OF_THEIR_OWN = {"easy_vqa", "scenes", "own"}
QUESTIONS = {
    "pope": (["random-0", "random-1", "popular-0", "adversarial-0"], "Is there a dog in the image?\n{word}", "yes"),
    "mme": (
        [
            "count/1.jpg: Are there two dogs? Please answer yes or no.",
            "count/1.jpg: Are there three dogs? Please answer yes or no.",
            "code/1.png: Does it print 1? Please answer yes or no.",
            "code/1.png: Does it print 2? Please answer yes or no.",
        ],
        "Are there two dogs?\n{word}",
        "yes",
    ),
    "mmbench_en_dev": (["7", "1000007"], "It barks.\nWhat is it?\nA. cat\nB. dog\n{letter}", "B"),
    "mmbench_cn_dev": (["7", "1000007"], "It barks.\nWhat is it?\nA. cat\nB. dog\n请直接回答选项字母。", "B"),
    "mmstar": (["0"], "What is it?\nOptions: A: a cat, B: a dog, C: a cow, D: a hen\n{letter}", "B"),
    "ai2d": (["0", "1"], "What eats grass?\nA. cow\nB. fox\nC. owl\nD. bat\n{letter}", "C"),
    "scienceqa_img": (["0", "1"], "Which?\nA. ice\nB. fire\n{letter}", "B"),
    "cv_bench": (
        ["2D-0", "2D-1", "3D-2"],
        "How many dogs are there? Select from the following choices.\n(A) 1\n(B) 2\n(C) 3\n{letter}",
        "C",
    ),
    "mmvp": (["1", "2", "3"], "Is the door open?\nA. Open\nB. Closed\n{letter}", "A"),
    "textvqa_val": (["34602", "34603"], "what does it say?\n{word}", ["stop"] * 10),
    "chartqa": (["0", "1"], "How many?\n{word}", ["14"]),
    "docvqa_val": (["337"], "What is the date?\n{word}", ["1/8/93", "Jan 8"]),
    "realworldqa": (
        ["0", "1"],
        "Which way?\n\nA. Left\nB. Right\nPlease answer directly with only the letter of the correct option.",
        "B",
    ),
    "hallusion_bench_image": (
        ["VD/illusion/0/0/0", "VD/illusion/0/0/1", "VD/illusion/0/1/0"],
        "Equal?\n{word}",
        "yes",
    ),
    "vizwiz_vqa_val": (
        ["VizWiz_val_00000000.jpg"],
        "What is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{word}",
        ["soda"] * 7 + ["unanswerable"] * 3,
    ),
    "ocrbench": (["0", "1"], "what is written?", ["CENTRE"]),
    "mmvet": (["v1_0"], "What is x?", "-1<AND>-5"),
    "llava_in_the_wild": (["24"], "What is it?", "A lake."),
}
"""Task -> ids of its questions, and prompt and reference of the first."""


def published(name, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder)
    return find_task(name).load(folder)


def test_every_task_is_tested():
    assert set(TASKS) == {*WRITERS, *IN_FILES_OF_THEIR_OWN}
    assert set(QUESTIONS) == set(WRITERS)


def test_every_task_stands_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == list(TASKS)
    assert [set(re.findall(r"`(\w[\w-]+/\w+[\w-]*)`", row[2])) for row in rows] == [
        set(re.findall(r"(\S+) on the Hugging Face hub", task.source)) for task in TASKS.values()
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_the_published_files_become_questions(name, tmp_path):
    questions = published(name, tmp_path)
    ids, prompt, reference = QUESTIONS[name]
    assert [question.id for question in questions] == ids
    word = "Answer the question using a single word or phrase."
    letter = "Answer with the option's letter from the given choices directly."
    assert questions[0].prompt == prompt.format(word=word, letter=letter)
    assert questions[0].reference == reference
    assert all(load_image(question.image).size == (4, 4) for question in questions)
    json.dumps([[question.reference, dict(question.details)] for question in questions])


@pytest.mark.parametrize("name", sorted(set(WRITERS) - JUDGED))
def test_right_answers_have_the_full_score_and_none_has_nothing(name, tmp_path):
    task = find_task(name)
    for question in published(name, tmp_path):
        right = question.reference if isinstance(question.reference, str) else question.reference[0]
        assert task.score(question, right, None).score == 1
        silent = task.score(question, " ", None)
        assert (silent.parsed, silent.score, silent.reason) == (None, 0, "empty answer")
    assert task.headline in summary_of(task, published(name, tmp_path / "again"))


def summary_of(task, questions):
    samples = []
    for question in questions:
        verdict = task.score(question, "yes", (lambda _: "1 1") if task.needs_judge else None)
        judged = (verdict.parsed, verdict.score, verdict.reason)
        samples.append(
            Sample(question.id, question.prompt, "yes", *judged, question.reference, question.details, "stop")
        )
    return task.summarise(samples)


@pytest.mark.parametrize("column", [column for column in COLUMNS if column.task], ids=lambda column: column.label)
def test_what_is_shown_beside_the_paper_is_reported(column, tmp_path):
    reported = summary_of(find_task(column.task), published(column.task, tmp_path))
    assert 0 <= reported[column.metric] <= column.best


@pytest.mark.parametrize(("name", "pictures"), [("pope", 2), ("mme", 2), ("mmbench_en_dev", 1), ("mmvp", 3)])
def test_equal_pictures_are_one(name, pictures, tmp_path):
    questions = published(name, tmp_path)
    assert len({question.image_id for question in questions}) == pictures
    assert len({id(question.image) for question in questions}) == pictures


def test_pairs_and_rotations_are_groups(tmp_path):
    groups = {
        name: [question.details["group"] for question in published(name, tmp_path / name)]
        for name in ("mme", "mmbench_en_dev", "mmvp")
    }
    assert groups["mme"] == ["count/count/1.jpg"] * 2 + ["code_reasoning/code/1.png"] * 2
    assert groups["mmbench_en_dev"] == ["7", "7"]
    assert groups["mmvp"] == ["0", "0", "1"]


def test_the_context_of_scienceqa_comes_first(tmp_path):
    first, second = published("scienceqa_img", tmp_path)
    assert "Context" not in first.prompt
    assert second.prompt.startswith("Context: It is hot.\nWhich?\nA. ice")


def test_a_table_with_base64_and_pointers_to_pictures_is_read(tmp_path):
    mmbench_tsv(tmp_path)
    first, rotated = find_task("mmbench_en_dev").load(tmp_path)
    assert first.image == rotated.image == picture(0)
    assert rotated.prompt.startswith("What is it?\nA. dog")
    assert rotated.details["options"] == {"A": "dog", "B": "cat"}


def test_options_that_are_missing_are_not_offered(tmp_path):
    first, rotated = published("mmbench_en_dev", tmp_path)
    assert first.details["options"] == {"A": "cat", "B": "dog"}
    assert rotated.prompt.startswith("What is it?")


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_folder_is_told_with_the_command_that_fetches_it(name, tmp_path):
    with pytest.raises(ValueError, match=r"is not a folder\. Get them with: hf download \S+ --repo-type dataset"):
        find_task(name).load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", WRITERS)
def test_another_split_is_told_with_what_is_there(name, tmp_path):
    write_parquet(tmp_path / "data" / "other-00000-of-00001.parquet", [{"question": "What?"}])
    with pytest.raises(ValueError, match=r"it holds data/other-00000-of-00001.parquet\. Get them with"):
        find_task(name).load(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_columns_of_another_data_set_are_told(name, tmp_path):
    published(name, tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        if ".cache" not in path.parts:
            write_parquet(path, [{"q": "What?"}])
    for path in tmp_path.rglob("*.csv"):
        write_separated(path, [{"q": "What?"}], ",")
    with pytest.raises(ValueError, match=r"no column .*; it has q"):
        find_task(name).load(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_empty_tables_are_told(name, tmp_path):
    published(name, tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        if ".cache" not in path.parts:
            pq.write_table(pq.read_table(path).slice(0, 0), path)
    for path in tmp_path.rglob("*.csv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="hold no rows"):
        find_task(name).load(tmp_path)


def test_the_same_questions_twice_are_told(tmp_path):
    published("pope", tmp_path)
    first = tmp_path / "data" / "test-00000-of-00002.parquet"
    second = first.with_name("test-00001-of-00002.parquet")
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="3 questions have the id of another, the first is 'random-0'"):
        find_task("pope").load(tmp_path)


@pytest.mark.parametrize("other", ["data/test-copy.parquet", "old/test-00000-of-00001-0a1b.parquet"])
def test_two_versions_are_told_also_where_rows_have_no_ids(other, tmp_path):
    published("ai2d", tmp_path)
    (tmp_path / other).parent.mkdir(exist_ok=True)
    first = tmp_path / "data" / "test-00000-of-00002.parquet"
    (tmp_path / other).write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"several versions of the tables \(.*leave one of them in it.*hf download"):
        find_task("ai2d").load(tmp_path)


@pytest.mark.parametrize(
    ("name", "lost", "told"),
    [
        ("pope", "data/test-00001-of-00002.parquet", "part 1 of 2 of the tables is missing"),
        ("pope", "data/test-00000-of-00002.parquet", "part 0 of 2 of the tables is missing"),
        ("cv_bench", "test_3d.parquet", "test_3d.parquet of the tables is missing"),
        ("cv_bench", "test_2d.parquet", "test_2d.parquet of the tables is missing"),
    ],
)
def test_a_part_that_is_missing_is_told(name, lost, told, tmp_path):
    published(name, tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=told):
        find_task(name).load(tmp_path)


def test_half_a_download_is_told(tmp_path):
    published("pope", tmp_path)
    path = tmp_path / "data" / "test-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"test-00001-of-00002.parquet: not a whole parquet file"):
        find_task("pope").load(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("pope", {"answer": "perhaps"}, "answer: 'perhaps' is none of yes, no"),
        ("pope", {"category": "easy"}, "category: 'easy' is none of random"),
        ("pope", {"image": {"bytes": None, "path": "1.png"}}, "no image in the column 'image'"),
        ("pope", {"question": " "}, "question is empty"),
        ("mme", {"category": "sport"}, "category: 'sport' is none of existence"),
        ("mmbench_en_dev", {"split": "test"}, "split: 'test' is none of dev"),
        ("mmbench_en_dev", {"answer": "E"}, "answer: 'E' is none of A, B"),
        ("mmbench_en_dev", {"answer": "nan"}, "answer: 'nan' is none of A, B"),
        ("mmbench_en_dev", {"image": "12"}, "the image is that of '12', which no row above is"),
        ("mmbench_en_dev", {"image": "not base64"}, "neither bytes nor base64: 'not base64'"),
        ("ai2d", {"answer": "4"}, "answer: '4' is none of 0, 1, 2, 3"),
        ("cv_bench", {"source": "LAION"}, "source: 'LAION' is none of ADE20K, COCO, Omni3D"),
        ("textvqa_val", {"answers": []}, "no answers; the test split has none"),
        ("docvqa_val", {"answers": None}, "no answers; the test split has none"),
        ("chartqa", {"type": "train"}, "type: 'train' is none of human_test"),
    ],
)
def test_faulty_rows_are_told_with_file_and_row(name, change, told, tmp_path):
    published(name, tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*.parquet")) if ".cache" not in path.parts)
    write_parquet(path, [{**row, **change} for row in pq.read_table(path).to_pylist()[:1]])
    with pytest.raises(ValueError, match=f"{path.name}, row 1: .*{told}"):
        find_task(name).load(tmp_path)


def test_a_missing_picture_beside_the_table_is_told(tmp_path):
    published("mmvp", tmp_path)
    (tmp_path / "MMVP Images" / "2.jpg").unlink()
    with pytest.raises(ValueError, match=r"row 2: there is no image .*2\.jpg\. Get them with"):
        find_task("mmvp").load(tmp_path)


def test_without_a_network_the_way_to_download_by_hand_is_told(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline mode is enabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"cannot download lmms-lab/POPE \(offline mode is enabled\)\. Get them with"):
        find_task("pope").load(None)


def test_the_hub_is_asked_for_the_pinned_files_alone(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def download(dataset, **options):
        asked.append((dataset, options))
        pope(tmp_path)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(find_task("pope").load(None)) == 4
    revision = "4db1276663dfa5eb8ad16a52d24c31a09e470896"
    options = {"repo_type": "dataset", "revision": revision, "allow_patterns": ["data/test-*"]}
    assert asked == [("lmms-lab/POPE", options)]
    assert revision in find_task("pope").source
