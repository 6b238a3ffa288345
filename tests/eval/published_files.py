"""Small files in the shapes in which the benchmarks are published."""

import base64
import csv
import io

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(shade=0):
    """The contents of a PNG file; another shade, another picture."""
    content = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(content, "PNG")
    return content.getvalue()


def cell(shade=0):
    """An image as the hub's data sets hold it."""
    return {"bytes": picture(shade), "path": "1.png"}


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_separated(path, rows, delimiter):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def pope(folder):
    def row(number, category, answer):
        ids = {"id": str(number), "question_id": str(number % 2)}
        asked = {"question": "Is there a dog in the image?", "answer": answer}
        return {**ids, **asked, "image_source": "x", "image": cell(number % 2), "category": category}

    rows = [row(0, "random", "yes"), row(1, "random", "no"), row(2, "popular", "yes")]
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", rows)
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", [row(4, "adversarial", "no")])


def mme(folder):
    def row(name, category, question, answer, shade):
        text = f"{question} Please answer yes or no."
        return {"question_id": name, "image": cell(shade), "question": text, "answer": answer, "category": category}

    rows = [
        row("count/1.jpg", "count", "Are there two dogs?", "Yes", 0),
        row("count/1.jpg", "count", "Are there three dogs?", "No", 0),
        row("code/1.png", "code_reasoning", "Does it print 1?", "Yes", 1),
        row("code/1.png", "code_reasoning", "Does it print 2?", "No", 1),
    ]
    write_parquet(folder / "data" / "test-00000-of-00001-53ae1794f93b1e35.parquet", rows)


def mmbench_rows(missing, image):
    options = {"A": "cat", "B": "dog", "C": missing, "D": missing}
    more = {"source": "x", "L2-category": "coarse_perception", "comment": missing, "split": "dev"}
    first = {"index": "7", "question": "What is it?", "hint": "It barks.", "answer": "B", **options}
    rotated = {**first, "index": "1000007", "answer": "A", "A": "dog", "B": "cat", "hint": missing}
    return [{**first, "category": "animal", "image": image(0), **more}, {**rotated, "category": "animal", **more}]


def mmbench(folder, language="en"):
    rows = mmbench_rows("nan", cell)
    rows[1]["image"] = cell(0)
    write_parquet(folder / language / "dev-00000-of-00001.parquet", rows)


def mmbench_tsv(folder):
    rows = mmbench_rows("", lambda shade: base64.b64encode(picture(shade)).decode())
    rows[1]["image"] = "7"  # the picture of that row
    write_separated(folder / "MMBench_DEV_EN.tsv", rows, "\t")


def mmstar(folder):
    question = "What is it?\nOptions: A: a cat, B: a dog, C: a cow, D: a hen"
    kinds = {"category": "coarse perception", "l2_category": "image emotion", "meta_info": {"split": "val"}}
    write_parquet(
        folder / "mmstar.parquet", [{"index": 0, "question": question, "image": cell(), "answer": "B", **kinds}]
    )


def ai2d(folder):
    row = {"question": "What eats grass?", "options": ["cow", "fox", "owl", "bat"], "answer": "2", "image": cell()}
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", [row])
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", [{**row, "answer": "0"}])


def scienceqa(folder):
    row = {"image": cell(), "question": "Which?", "choices": ["ice", "fire"], "answer": 1, "hint": "", "subject": "x"}
    rows = [row, {**row, "hint": "It is hot.", "answer": 0}]
    write_parquet(folder / "ScienceQA-IMG" / "test-00000-of-00001.parquet", rows)
    write_parquet(folder / "ScienceQA-FULL" / "test-00000-of-00001.parquet", [row] * 3)


def cv_bench_row(number, kind, source):
    prompt = "How many dogs are there? Select from the following choices.\n(A) 1\n(B) 2\n(C) 3"
    asked = {"question": "How many dogs are there?", "choices": ["1", "2", "3"], "answer": "(C)", "prompt": prompt}
    return {"idx": number, "type": kind, "task": "Count", "image": cell(number), **asked, "source": source}


def cv_bench(folder):
    write_parquet(folder / "test_2d.parquet", [cv_bench_row(0, "2D", "ADE20K"), cv_bench_row(1, "2D", "COCO")])
    write_parquet(folder / "test_3d.parquet", [cv_bench_row(2, "3D", "Omni3D")])


def mmvp(folder):
    rows = [
        {"Index": index, "Question": "Is the door open?", "Options": "(a) Open (b) Closed", "Correct Answer": answer}
        for index, answer in ((1, "(a)"), (2, "(b)"), (3, "(b)"))
    ]
    write_separated(folder / "Questions.csv", rows, ",")
    for row in rows:
        path = folder / "MMVP Images" / f"{row['Index']}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(row["Index"]))


def textvqa(folder):
    row = {"image_id": "a", "question_id": 34602, "question": "what does it say?", "answers": ["stop"] * 10}
    rows = [{**row, "image": cell()}, {**row, "question_id": 34603, "image": cell()}]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", rows)


def chartqa(folder):
    row = {"type": "human_test", "question": "How many?", "answer": "14", "image": cell()}
    rows = [row, {**row, "type": "augmented_test", "answer": "0.57"}]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def docvqa(folder):
    row = {"questionId": "337", "question": "What is the date?", "docId": 279, "answers": ["1/8/93", "Jan 8"]}
    write_parquet(folder / "DocVQA" / "validation-00000-of-00001.parquet", [{**row, "image": cell()}])
    (folder / ".cache").mkdir()
    (folder / ".cache" / "validation-00001-of-00006.parquet").write_bytes(b"half a download")


def realworldqa(folder):
    letter = "Which way?\n\nA. Left\nB. Right\nPlease answer directly with only the letter of the correct option."
    rows = [{"question": letter, "answer": "B"}, {"question": "How many? Please answer with a number.", "answer": "3"}]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])


def hallusion(folder):
    row = {"category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": "0", "question": "Equal?"}
    rows = [
        {**row, "figure_id": figure, "question_id": question, "gt_answer": answer, "image": cell(int(figure))}
        for figure, question, answer in (("0", "0", "1"), ("0", "1", "0"), ("1", "0", "0"))
    ]
    write_parquet(folder / "data" / "image-00000-of-00001.parquet", rows)
    write_parquet(folder / "data" / "non_image-00000-of-00001.parquet", [{"question": "?"}])


def vizwiz(folder):
    row = {"question_id": "VizWiz_val_00000000.jpg", "question": "What is this?", "category": "other"}
    answers = ["soda"] * 7 + ["unanswerable"] * 3
    path = folder / "data" / "val-00000-of-00001-7775fd61bc6a3d98.parquet"
    write_parquet(path, [{**row, "answers": answers, "image": cell()}])


def ocrbench(folder):
    row = {"dataset": "IIIT5K", "question": "what is written?", "question_type": "Regular Text Recognition"}
    rows = [
        {**row, "answer": ["CENTRE"]},
        {**row, "dataset": "HME100k", "question_type": "Handwritten Mathematical Expression", "answer": ["x + Y"]},
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])


def mmvet(folder):
    row = {"question_id": "v1_0", "question": "What is x?", "answer": "-1<AND>-5", "capability": "ocr,math"}
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [{**row, "image": cell()}])


def llava_bench(folder):
    row = {"question_id": "24", "question": "What is it?", "gpt_answer": "A lake.", "category": "conv"}
    path = folder / "data" / "train-00000-of-00001.parquet"
    write_parquet(path, [{**row, "caption": "A lake in the hills.", "image": cell()}])


WRITERS = {
    "pope": pope,
    "mme": mme,
    "mmbench_en_dev": mmbench,
    "mmbench_cn_dev": lambda folder: mmbench(folder, "cn"),
    "mmstar": mmstar,
    "ai2d": ai2d,
    "scienceqa_img": scienceqa,
    "cv_bench": cv_bench,
    "mmvp": mmvp,
    "textvqa_val": textvqa,
    "chartqa": chartqa,
    "docvqa_val": docvqa,
    "realworldqa": realworldqa,
    "hallusion_bench_image": hallusion,
    "vizwiz_vqa_val": vizwiz,
    "ocrbench": ocrbench,
    "mmvet": mmvet,
    "llava_in_the_wild": llava_bench,
}
"""Task -> what writes its files into a folder."""
