"""The model class asked directly, as lmms-eval's evaluator asks it."""

import pytest
from lmms_eval.api.instance import Instance
from PIL import Image

from fusionvl.data.easy_vqa import load_split
from fusionvl.eval.lmms_eval_model import FusionForLmmsEval

GREEDY = {"max_new_tokens": 8, "do_sample": False}


def messages(doc):
    parts = [{"type": kind, "url": image} for kind, image in doc["media"]]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": doc["question"]}]}]


def docs():
    images = [image for image in load_split("test")[:4] if image.turns]
    return [
        {"media": [("image", Image.open(image.path).convert("RGB"))], "question": turn.question, "answer": turn.answer}
        for image in images
        for turn in image.turns[:3]
    ]


def request(doc_id, generation=GREEDY, task="task", kind="generate_until"):
    metadata = {"task": task, "doc_id": doc_id, "repeats": 1}
    return Instance(kind, ("", messages, generation, doc_id, task, "test"), 0, metadata)


def model(rows, **arguments):
    made = FusionForLmmsEval(device="cpu", **arguments)
    made.task_dict = {"task": {"test": rows}}
    return made


def texts(results):
    return [result.text for result in results]


def test_answers_come_in_the_requests_order_whatever_the_batch(engine):
    rows = docs()
    expected = [engine.ask(row["media"][0][1], row["question"]) for row in rows]
    assert len(set(expected)) > 2
    order = [5, 0, 7, 3, 1, 2, 4, 6]
    for batch_size in (1, 3, "16"):
        asked = [request(doc_id, {**GREEDY, "max_new_tokens": 8 + doc_id % 2}) for doc_id in order]
        results = model(rows, batch_size=batch_size).generate_until(asked)
        assert texts(results) == [expected[doc_id] for doc_id in order]
        assert all(result.token_counts.output_tokens == 2 for result in results)


def test_settings_reach_the_engine():
    rows = docs()[:2]
    asked = model(rows)
    calls = []
    answer = asked._engine.answer
    asked._engine.answer = lambda conversations, **settings: (
        calls.append(settings) or answer(conversations, **settings)
    )
    asked.generate_until([request(0), request(1, {"until": ["ASSISTANT:"], "temperature": 0.2})])
    plain, sampled = calls
    assert (plain["do_sample"], plain["max_new_tokens"]) == (False, 8)
    assert (sampled["do_sample"], sampled["temperature"], sampled["max_new_tokens"]) == (True, 0.2, 1024)
    assert sampled["stop_strings"] == ["ASSISTANT:"]


def test_a_stop_text_ends_an_answer(engine):
    rows = [row for row in docs() if engine.ask(row["media"][0][1], row["question"]) == "no"]
    [result] = model(rows).generate_until([request(0, {**GREEDY, "until": ["o"]})])
    assert result.text == "n"


def test_text_alone_is_answered(engine):
    rows = [{"media": [], "question": "is there a circle?"}, docs()[0]]
    results = model(rows, batch_size=2).generate_until([request(0), request(1)])
    assert results[0].text == engine.ask(None, "is there a circle?", max_new_tokens=8)
    assert results[1].text == engine.ask(rows[1]["media"][0][1], rows[1]["question"])


@pytest.mark.parametrize(
    ("media", "said"),
    [
        ([("image", Image.new("RGB", (8, 8))), ("image", Image.new("RGB", (8, 8)))], "shows 2 images"),
        ([("video", "a.mp4")], "shows video"),
        ([("audio", "a.wav")], "shows audio"),
    ],
)
def test_other_than_one_image_is_refused_by_name_or_skipped(media, said, engine, caplog):
    rows = [docs()[0], {"media": media, "question": "what?"}]
    with pytest.raises(ValueError, match=f"Task task, question 1 {said}"):
        model(rows).generate_until([request(0), request(1)])
    results = model(rows, several_images="skip").generate_until([request(1), request(0)])
    assert texts(results) == ["", engine.ask(rows[0]["media"][0][1], rows[0]["question"])]
    assert "task: 1 questions show several images" in caplog.text


def test_an_image_that_cannot_be_used_is_named():
    rows = [docs()[0], {"media": [("image", "nowhere.png")], "question": "what?"}]
    with pytest.raises(ValueError, match=r"Task task, question 1: .*nowhere\.png"):
        model(rows, batch_size=2).generate_until([request(0), request(1)])


def test_a_question_that_does_not_fit_is_named():
    rows = [docs()[0], {"media": [], "question": "circle " * 5000}]
    with pytest.raises(ValueError, match=r"One of the questions task 0, task 1: .* tokens"):
        model(rows, batch_size=2).generate_until([request(0), request(1)])


def test_what_fusion_does_not_do_is_said_by_task():
    asked = model(docs())
    with pytest.raises(NotImplementedError, match=r"task asks for the likelihood .* output_type generate_until"):
        asked.loglikelihood([request(0, kind="loglikelihood")])
    with pytest.raises(NotImplementedError, match="task asks in several rounds"):
        asked.generate_until_multi_round([request(0, kind="generate_until_multi_round")])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": "auto"}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"several_images": "join"}, "refuse or skip"),
        ({"pretrained": "./nowhere"}, "nowhere"),
    ],
)
def test_settings_that_cannot_be_used(arguments, said):
    with pytest.raises(ValueError, match=said):
        model([], **arguments)


def test_only_what_is_missing_or_has_changed_is_asked_again(tmp_path):
    rows = docs()
    first = model(rows, batch_size=4, resume=str(tmp_path))
    answer, calls = first._engine.answer, []

    def dies_after_one_batch(conversations, **settings):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(conversations))
        return answer(conversations, **settings)

    first._engine.answer = dies_after_one_batch
    everything = [request(doc_id) for doc_id in range(len(rows))]
    with pytest.raises(KeyboardInterrupt):
        first.generate_until(everything)
    first.clean()

    def asked_by_a_new_one(rows, requests, **arguments):
        new = model(rows, batch_size=4, resume=str(tmp_path), **arguments)
        answer, counts = new._engine.answer, []
        new._engine.answer = lambda conversations, **settings: (
            counts.append(len(conversations)) or answer(conversations, **settings)
        )
        found = texts(new.generate_until(requests))
        new.clean()
        return found, sum(counts)

    answers, asked = asked_by_a_new_one(rows, everything)
    assert asked == len(rows) - 4
    assert answers == texts(model(rows, batch_size=4).generate_until(everything))
    assert asked_by_a_new_one(rows, everything) == (answers, 0)
    # Another image, other words, other settings, other latent tokens: other questions.
    rows[0] = rows[0] | {"media": rows[3]["media"]}
    rows[1] = rows[1] | {"question": "is there a circle?"}
    assert asked_by_a_new_one(rows, everything)[1] == 2
    assert asked_by_a_new_one(rows, [request(5, {**GREEDY, "max_new_tokens": 9})])[1] == 1
    assert asked_by_a_new_one(rows, [request(5)], num_latents=4)[1] == 1


def test_repeated_samples_are_drawn_each_and_padding_is_not_asked(tmp_path):
    rows = docs()
    sampling = {"max_new_tokens": 8, "temperature": 5.0}
    again = request(0, sampling)
    asked = model(rows, resume=str(tmp_path), batch_size=2)
    drawn = texts(asked.generate_until([again] * 8))
    assert len(set(drawn)) > 1
    with pytest.raises(ValueError, match="Another process writes"):
        model(rows, resume=str(tmp_path))
    asked.clean()
    padding = request(0, sampling)
    padding.metadata["__padding_only__"] = True
    assert texts(model(rows, resume=str(tmp_path)).generate_until([*[again] * 8, padding])) == [*drawn, drawn[-1]]
    assert len((tmp_path / "finished-0.jsonl").read_text().splitlines()) == 8
