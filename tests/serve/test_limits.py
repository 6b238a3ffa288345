"""What is refused at the gate and at the line: keys, hosts, sites, sizes, speeds, numbers; every case really sent."""

import asyncio
import base64
import io
import json
import socket
import struct
import threading
import zlib

import openai
import pytest
from PIL import Image
from running_server import error_of, running, wait_for
from scripted_engine import ScriptedEngine

from fusionvl.processing import image_loading
from fusionvl.serve import gate

KEY = "a-key-of-one-client-1234"


def test_a_key_is_needed_where_there_is_one():
    with running(api_key=KEY) as server:
        assert server.http.get("/health").status_code == 200
        for headers in (
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": f"Bearer {KEY[:-1]}"},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": KEY},
            {"Authorization": b"Bearer \xff\xfe"},
        ):
            for path in ("/v1/models", "/v1/nothing"):
                answer = server.http.get(path, headers=headers)
                assert error_of(answer, 401, "invalid_api_key")["type"] == "authentication_error"
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert list(openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0).models.list())


def test_how_long_a_key_takes_to_compare_does_not_depend_on_where_it_differs(monkeypatch):
    """By a function made for it, on digests; a clock in a test would only measure the machine."""
    compared = []
    real = gate.hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    with running(api_key=KEY) as server:
        error_of(server.http.get("/v1/models", headers={"Authorization": "Bearer x"}), 401, "invalid_api_key")
    assert [{len(digest) for digest in pair} for pair in compared] == [{32}]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_sites_page_is_refused(server, method):
    host = server.url.removeprefix("http://")
    foreign = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": f"http://{host}.evil.example"},
        {"Origin": f"http://evil.example/{host}"},
        {"Origin": "null"},
        {"Origin": ""},
    ]
    path = "/v1/models" if method == "GET" else "/v1/chat/completions"
    body = None if method == "GET" else {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
    for headers in foreign:
        error_of(server.http.request(method, path, json=body, headers=headers), 403, "origin_not_allowed")
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": server.url}, {"Sec-Fetch-Site": "none"}, {}):
        assert server.http.request(method, path, json=body, headers=headers).status_code == 200


def test_a_page_that_renames_itself_to_this_machine_is_refused():
    """DNS rebinding from a browser: the request comes from here, but under a foreign name."""
    foreign = (
        "evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1].evil.example", "127.0.0.1:80:evil",
        "[::1]evil", "127.0.0.1:evil", "127.0.0.1:", "user@127.0.0.1", "127.0.0.1/", "[::1", "::1", "localhost:123456",
    )  # fmt: skip
    with running(allowed_hosts=("127.0.0.1", "localhost", "[::1]")) as server:
        for path in ("/v1/models", "/", "/health"):
            for host in foreign:
                error_of(server.http.get(path, headers={"Host": host}), 400, "host_not_allowed")
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
            assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.fixture(scope="module")
def narrow():
    """A server whose limits are easy to reach."""
    limits = {
        "body_bytes": 60_000, "body_seconds": 1.5, "waiting": 2, "image_bytes": 30_000, "image_pixels": 10_000,
    }  # fmt: skip
    with running(limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def hasty():
    """A server that gives an answer one second."""
    with running(limits={"answer_seconds": 1}) as server:
        yield server


def exchange(server, *sent):
    """Send pieces as they are; return the refusal that comes back, which ends with two braces."""
    answer = b""
    with socket.create_connection(server.address, timeout=10) as connection:
        for piece in sent:
            connection.sendall(piece)
        while not answer.endswith(b"}}") and (more := connection.recv(65536)):
            answer += more
    return answer


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_large_body_is_refused_before_it_is_read(narrow):
    answer = exchange(narrow, HEAD + b"Content-Length: 60001\r\n\r\n")  # nothing of the body was sent
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_large_body_of_unknown_length_is_refused_while_it_comes(narrow):
    chunks = [b"2710\r\n" + b" " * 10_000 + b"\r\n"] * 7
    answer = exchange(narrow, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_slow_body_is_given_up(narrow):
    answer = exchange(narrow, HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in answer


def test_bodies_together_are_bounded_and_given_up_with_their_requests():
    """One request holds 600 bytes of 1,000; a second such does not fit beside it, and does when the first is over."""
    padded = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}).ljust(600).encode()
    with running(limits={"bodies_bytes": 1000}) as server:
        wait_for(lambda: not server.uvicorn.server_state.tasks)  # the last one asked whether the server is ready
        with socket.create_connection(server.address) as connection:
            connection.sendall(HEAD + b"Content-Length: 601\r\n\r\n" + padded)
            wait_for(lambda: server.uvicorn.server_state.tasks)  # which has read all of it when the next one comes
            answer = server.post(padded)
            assert int(answer.headers["Retry-After"]) >= 1
            error_of(answer, 429, "too_many_requests")
        wait_for(lambda: server.post(padded).status_code == 200)
        for _ in range(3):
            assert server.post(padded).status_code == 200


def test_the_line_is_bounded(server_of_two):
    """One runs, two wait; another is sent away with a time to come back."""
    server = server_of_two
    answers = [server.in_background("hold")]
    wait_for(lambda: server.engine.log == ["begin hold"])
    answers += [server.in_background("hold") for _ in range(2)]
    wait_for(lambda: server.app.state.line.waiting == 2)
    answer = server.ask("hi")
    error = error_of(answer, 429, "queue_full")
    assert error["type"] == "rate_limit_error"
    assert int(answer.headers["Retry-After"]) >= 1
    server.engine.released.set()
    assert [answer().status_code for answer in answers] == [200] * 3
    assert server.ask("hi").status_code == 200


@pytest.fixture
def server_of_two():
    """A server at which two answers may wait."""
    with running(limits={"waiting": 2}) as server:
        yield server


def test_the_line_counts_answers_not_requests(server_of_two):
    server = server_of_two
    running_one = server.in_background("hold")
    wait_for(lambda: server.engine.log == ["begin hold"])
    pair = server.in_background("hi", n=2)
    wait_for(lambda: server.app.state.line.waiting == 2)
    error_of(server.ask("hi"), 429, "queue_full")
    server.engine.released.set()
    assert running_one().status_code == pair().status_code == 200
    assert server.ask("hi", n=8).status_code == 200, "where nobody waits, as many answers as n may be"


def test_what_is_refused_never_stands_in_line(server_of_two):
    server = server_of_two
    running_one = server.in_background("hold")
    wait_for(lambda: server.engine.log == ["begin hold"])
    for body in ({"n": 2**31}, {"tools": [1]}, {"model": "other"}, {"text": [{"type": "image_url", "image_url": {}}]}):
        assert 400 <= server.ask(**body).status_code < 500
        assert server.app.state.line.waiting == 0
    server.engine.released.set()
    assert running_one().status_code == 200


def test_who_leaves_the_line_leaves_it_at_once(server_of_two):
    server = server_of_two
    running_one = server.in_background("hold")
    wait_for(lambda: server.engine.log == ["begin hold"])
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "never"}]}).encode()
    with socket.create_connection(server.address) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        wait_for(lambda: server.app.state.line.waiting == 1)
    wait_for(lambda: server.app.state.line.waiting == 0)
    server.engine.released.set()
    assert running_one().status_code == 200
    assert server.ask("hi").status_code == 200
    assert "begin never" not in server.engine.log


def test_a_client_that_leaves_stops_the_work(server):
    with server.http.stream(
        "POST",
        "/v1/chat/completions",
        json={
            "model": "scripted",
            "stream": True,
            "messages": [{"role": "user", "content": "repeat word 1000 0.02"}],
        },
    ) as answer:
        next(answer.iter_lines())
    server.wait_for_log("cancelled")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_stopped(hasty, stream):
    hasty.engine.log.clear()
    answer = hasty.ask("repeat slow 1000 0.02", stream=stream)
    if stream:
        assert answer.status_code == 200
        assert '"code": "deadline_exceeded"' in answer.text.strip().split("\n")[-3]
    else:
        error_of(answer, 504, "deadline_exceeded")
    hasty.wait_for_log("cancelled")


def test_waiting_counts_towards_the_time_of_an_answer(hasty):
    running_one = hasty.in_background("hold")
    wait_for(lambda: "begin hold" in hasty.engine.log)
    error_of(hasty.ask("never"), 504, "deadline_exceeded")
    hasty.engine.released.set()
    running_one()
    assert hasty.ask("hi").status_code == 200
    assert "begin never" not in hasty.engine.log


def image_part(content, kind="png"):
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "messages"}]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_that_claims(width, height):
    """A picture's head without a picture: a bomb when it is believed."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", image_loading.FORMATS)
def test_images_of_every_usual_kind(narrow, kind):
    answer = narrow.ask(image_part(encoded(Image.new("RGB", (40, 30), "red"), kind)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "[('user', [(40, 30), 'messages'])]"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "image_type_unsupported"),
        (b"not an image", "image_type_unsupported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image_type_unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_type_unsupported"),
        (encoded(Image.new("RGB", (9, 9)), "PCX"), "image_type_unsupported"),
        (encoded(Image.effect_noise((50, 50), 99), "PNG")[:1000], "image_unusable"),
        (encoded(Image.new("RGB", (9, 9)), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]),
         "image_unusable"),
        (encoded(Image.new("RGB", (101, 100)), "PNG"), "image_too_large"),
        (png_that_claims(60_000, 60_000), "image_too_large"),
        (png_that_claims(0, 0), "image_type_unsupported"),
        (encoded(Image.effect_noise((99, 99), 99), "BMP") * 4, "image_too_large"),
    ],
    ids=["empty", "text", "eps", "svg", "pcx", "cut", "frames", "pixels", "bomb", "nothing", "bytes"],
)  # fmt: skip
def test_images_that_cannot_be_used(narrow, content, code):
    error = error_of(narrow.ask(image_part(content)), 400, code)
    assert error["param"] == "messages.0.content.0.image_url.url"


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64,!!!", "data:image/png,abc", "data:", "data:image/png;base64", "DATA:;BASE64,AB"]
)
def test_broken_data_uris(narrow, uri):
    answer = narrow.ask([{"type": "image_url", "image_url": {"url": uri}}])
    error_of(answer, 400, "image_unusable")


def test_bytes_that_pass_for_two_formats_are_read_as_one(server, monkeypatch):
    """A WebP with a PhotoCD's mark at byte 2048 is looked at, and decoded, with the same list of formats."""
    webp = encoded(Image.effect_noise((200, 200), 90).convert("RGB"), "WEBP", lossless=True)
    both = webp[:2048] + b"PCD_" + webp[2052:]
    opened = []
    real = Image.open
    monkeypatch.setattr(
        Image, "open", lambda *given, **named: opened.append(named["formats"]) or real(*given, **named)
    )
    answer = server.ask(image_part(both, "webp"))
    assert opened == [image_loading.FORMATS] * 2
    assert "PCD" not in image_loading.FORMATS
    assert answer.status_code == 200 or error_of(answer, 400, "image_unusable")


def test_pictures_that_are_being_decoded_hold_up_no_text(monkeypatch, png):
    """However many, and however long each takes; and no more than two of them are in memory at a time."""
    from fusionvl.serve import images

    released, decoding = threading.Event(), []

    def slowly(content):
        decoding.append(content)
        assert released.wait(60)
        return image_loading.load_image(content)

    monkeypatch.setattr(images, "load_image", slowly)
    with running() as server:
        answers = [server.in_background(image_part(png)) for _ in range(12)]
        wait_for(lambda: server.app.state.line.waiting == 12)
        wait_for(lambda: len(decoding) == 2)
        for _ in range(3):
            assert server.ask("hello").json()["choices"][0]["message"]["content"] == "hello "
            assert len(decoding) == 2
        released.set()
        assert [answer().status_code for answer in answers] == [200] * 12


def test_what_the_engine_prepares_holds_up_no_answer(monkeypatch, png):
    """Views of a large picture, for instance: done beside the model, not in its turn."""
    released = threading.Event()

    class SlowlyPrepared(ScriptedEngine):
        def events(self, messages, settings):
            if any(part["type"] == "image" for part in messages[0]["content"]):
                assert released.wait(60)
            return super().events(messages, settings)

    with running(load=SlowlyPrepared) as server:
        answer = server.in_background(image_part(png))
        wait_for(lambda: server.app.state.line.waiting == 1)
        assert server.ask("hello").status_code == 200
        assert server.app.state.line.waiting == 1
        released.set()
        assert answer().status_code == 200


def test_slow_sites_do_not_fill_the_line(png):
    """More slow URLs than may wait in line: nobody else notices."""
    released = threading.Event()

    class SlowFetcher:
        async def fetch(self, url):
            await asyncio.to_thread(released.wait, 60)
            return png

    with running(limits={"waiting": 2}, fetcher=SlowFetcher()) as server:
        part = {"type": "image_url", "image_url": {"url": "http://slow.example/a.png"}}
        answers = [server.in_background([part, {"type": "text", "text": "messages"}]) for _ in range(4)]
        wait_for(lambda: len(server.uvicorn.server_state.tasks) == 4)
        assert server.app.state.line.waiting == 0
        for _ in range(3):
            assert server.ask("hello").status_code == 200
        released.set()
        assert {answer().status_code for answer in answers} <= {200, 429}
        assert server.ask("hello").status_code == 200
