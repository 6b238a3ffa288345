"""`vllm serve` with the shipped model, asked through OpenAI's own client."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

START_SECONDS = 240
SHAPE, COLOUR = "what shape is in the image?", "what color is the shape?"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def url(shipped, tmp_path_factory):
    """The address of a server that ends with these tests."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    options = "--dtype float32 --enforce-eager --max-num-seqs 8 --served-model-name nano --host 127.0.0.1"
    command = [str(Path(sys.executable).parent / "vllm"), "serve", str(shipped), "--port", str(port), *options.split()]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(port):
            assert server.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def is_healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


def data_uri(picture):
    content = io.BytesIO()
    picture.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def about(picture, *texts):
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    image = {"type": "image_url", "image_url": {"url": data_uri(picture)}}
    messages[0]["content"] = [image, {"type": "text", "text": texts[0]}]
    return messages


def ask(client, messages, **options):
    return client.chat.completions.create(model="nano", messages=messages, **{"temperature": 0, **options})


def test_answers_with_usage(client, triangle):
    answer = ask(client, about(triangle, SHAPE))
    assert answer.choices[0].message.content == "triangle"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 60
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    later = ask(client, about(triangle, SHAPE, "triangle", COLOUR))
    assert later.choices[0].message.content == "teal"
    assert later.usage.prompt_tokens > answer.usage.prompt_tokens


def test_streams(client, triangle):
    chunks = list(ask(client, about(triangle, SHAPE), stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "triangle"
    assert chunks[-1].usage.completion_tokens > 0


def test_sampling_and_its_company(client, triangle):
    options = {"n": 3, "temperature": 2.0, "seed": 5, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    first, second = (ask(client, about(triangle, "well?"), **options) for _ in range(2))
    assert len(first.choices) == 3
    assert [choice.message.content for choice in first.choices] == [
        choice.message.content for choice in second.choices
    ]
    assert all(len(token.top_logprobs) == 2 for token in first.choices[0].logprobs.content)
    cut = ask(client, about(triangle, SHAPE), stop="ang").choices[0]
    assert (cut.message.content, cut.finish_reason) == ("tri", "stop")


def test_latents_of_a_request(client, triangle):
    lengths = [
        ask(client, about(triangle, SHAPE), extra_body={"chat_template_kwargs": options}).usage.prompt_tokens
        for options in ({"num_latents": 0}, {"num_latents": 1}, {})
    ]
    assert lengths == sorted(set(lengths))


def test_structured_output(client, triangle):
    choice = {"structured_outputs": {"choice": ["circle", "square"]}}
    assert ask(client, about(triangle, SHAPE), extra_body=choice).choices[0].message.content in ("circle", "square")


def test_many_at_once(client, triangle, picture):
    questions = [about(shown, text) for shown in (triangle, picture) for text in (SHAPE, COLOUR)] * 4
    alone = [ask(client, messages).choices[0].message.content for messages in questions[:4]]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda messages: ask(client, messages).choices[0].message.content, questions))
    assert together == alone * 4


def image_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


TEXT = {"type": "text", "text": SHAPE}


@pytest.mark.parametrize(
    ("content", "options", "named"),
    [
        (lambda uri: [image_part(uri), image_part(uri), TEXT], {}, "1 image"),
        (lambda uri: [image_part("data:image/png;base64,AAAA"), TEXT], {}, "image"),
        (lambda uri: [image_part(uri), {"type": "text", "text": "why? " * 3000}], {}, "2048"),
        (lambda uri: [image_part(uri), TEXT], {"chat_template_kwargs": {"num_latents": 5}}, "perfect square"),
        (lambda uri: [image_part(uri), TEXT], {"mm_processor_kwargs": {"num_latents": 4}}, "trust"),
        (lambda uri: [image_part(uri), TEXT], {"truncate_prompt_tokens": 10}, "truncate_prompt_tokens"),
    ],
)
def test_bad_requests(client, triangle, content, options, named):
    messages = [{"role": "user", "content": content(data_uri(triangle))}]
    with pytest.raises(openai.BadRequestError, match=named):
        ask(client, messages, extra_body=options)
    assert ask(client, about(triangle, SHAPE)).choices[0].message.content == "triangle"


def test_a_picture_in_a_later_turn(client, triangle):
    messages = [*about(triangle, SHAPE), {"role": "assistant", "content": "triangle"}, *about(triangle, COLOUR)]
    messages[0]["content"] = SHAPE
    with pytest.raises(openai.BadRequestError, match="first user message"):
        ask(client, messages)


def test_a_typed_placeholder_is_text_and_one_in_a_raw_prompt_is_not(client, triangle):
    typed = ask(client, [{"role": "user", "content": "what is <image>?"}], max_tokens=2)
    assert typed.usage.prompt_tokens < 40
    with pytest.raises(openai.BadRequestError, match="0 images"):
        client.completions.create(
            model="nano",
            prompt="<|im_start|>user\n<vision_start><latent_image><vision_end><vision_start><image><vision_end>\nwhat?"
            "<|im_end|>\n<|im_start|>assistant\n",
        )


def test_tools_are_refused(client, triangle):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(openai.BadRequestError):
        ask(client, about(triangle, SHAPE), tools=[tool], tool_choice="auto")
