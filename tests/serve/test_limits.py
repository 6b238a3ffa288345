"""What is refused at the gate: keys, hosts, sizes, speeds, numbers; every case really sent."""

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
from starlette.testclient import TestClient

KEYS = ("a-key-of-one-client-1234", "a-key-of-another-client-5678")


def test_a_key_is_needed_where_there_are_keys():
    with running(api_keys=KEYS) as server:
        assert server.http.get("/health").status_code == 200
        for headers in (
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {KEYS[0]}x"},
            {"Authorization": f"Bearer {KEYS[0][:-1]}"},
            {"Authorization": f"Basic {KEYS[0]}"},
            {"Authorization": KEYS[0]},
            {"Authorization": b"Bearer \xff\xfe"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                answer = server.http.get(path, headers=headers)
                assert error_of(answer, 401, "invalid_api_key")["type"] == "authentication_error"
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        for key in KEYS:
            assert list(openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0).models.list())


def test_a_key_is_needed_below_a_prefix():
    """As Ray Serve and some proxies mount an application: the prefix stays in the path."""
    with running(api_keys=KEYS) as server, TestClient(server.app, root_path="/fusion") as client:
        for path in ("/v1/models", "/fusion/v1/models", "/fusion/metrics"):
            error_of(client.get(path), 401, "invalid_api_key")
        key = {"Authorization": f"Bearer {KEYS[0]}"}
        assert client.get("/fusion/v1/models", headers=key).status_code == 200
        assert client.get("/fusion/health").status_code == 200


def test_another_sites_page_is_refused(png):
    with running() as server:
        form = {"files": {"file": png}, "data": {"purpose": "vision"}}
        answer = server.http.post("/v1/files", **form, headers={"Sec-Fetch-Site": "cross-site"})
        error_of(answer, 403, "origin_not_allowed")
        for site in ("same-origin", "none"):
            assert server.http.post("/v1/files", **form, headers={"Sec-Fetch-Site": site}).status_code == 200


def test_a_key_sees_its_own_files_only(png):
    with running(api_keys=KEYS) as server:
        one, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        upload = server.http.post("/v1/files", files={"file": png}, data={"purpose": "vision"}, headers=one).json()
        path = f"/v1/files/{upload['id']}"
        assert server.http.get(path, headers=one).status_code == 200
        error_of(server.http.get(path, headers=other), 404, "file_not_found")
        error_of(server.http.get(f"{path}/content", headers=other), 404, "file_not_found")
        error_of(server.http.delete(path, headers=other), 404, "file_not_found")
        assert server.http.get("/v1/files", headers=other).json()["data"] == []


def test_a_page_that_renames_itself_to_this_machine_is_refused():
    """DNS rebinding from a browser: the request comes from here, but under a foreign name."""
    with running(allowed_hosts=("127.0.0.1", "localhost", "[::1]")) as server:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            error_of(server.http.get("/v1/models", headers={"Host": host}), 400, "host_not_allowed")
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"):
            assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.fixture(scope="module")
def narrow():
    """A server whose limits are easy to reach."""
    limits = {
        "body_bytes": 60_000, "body_seconds": 1.5, "requests_per_key": 3, "waiting": 1,
        "image_bytes": 30_000, "image_pixels": 10_000, "file_bytes": 3000, "fetch_seconds": 1,
    }  # fmt: skip
    with running(limits=limits, workers={"max_batch": 1}) as server:
        yield server


@pytest.fixture(scope="module")
def hasty():
    """A server that gives an answer one second."""
    with running(limits={"answer_seconds": 1}) as server:
        yield server


def test_a_large_body_is_refused_before_it_is_read(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 60001\r\n\r\n"
        )
        answer = connection.recv(65536)  # nothing of the body was sent
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_large_body_of_unknown_length_is_refused_while_it_comes(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(7):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_body_of_many_parts_is_bounded_too(narrow, png):
    big = {"file": ("big.png", png + b"x" * 70_000, "image/png")}
    error_of(narrow.http.post("/v1/files", files=big, data={"purpose": "vision"}), 413, "body_too_large")


def test_a_slow_body_is_given_up(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in answer


def in_background(server, **body):
    """Ask without waiting; the list gets the answer."""
    answers = []

    def ask():
        answers.append(server.http.post("/v1/chat/completions", json={"model": "scripted", **body}))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def words(text):
    return {"messages": [{"role": "user", "content": text}]}


def test_the_queue_is_bounded(narrow):
    """One runs, one waits; the third, and any three at once, are sent away with a time to come back."""
    answer = narrow.ask("hi", n=3)
    error = error_of(answer, 429, "queue_full")
    assert error["type"] == "rate_limit_error"
    assert int(answer.headers["Retry-After"]) >= 1
    threads = [in_background(narrow, **words("repeat slow 10 0.05")) for _ in range(2)]
    wait_for(lambda: narrow.app.state.pool.slots["scripted"].answers == 2)
    error_of(narrow.ask("hi"), 429, "queue_full")
    for thread, answers in threads:
        thread.join()
        assert answers[0].status_code == 200
    assert narrow.ask("hi").status_code == 200


def test_requests_at_a_time_are_bounded_for_each_client():
    with running(limits={"requests_per_key": 2}, api_keys=KEYS) as server:
        one, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        server.http.headers.update(one)
        threads = [in_background(server, **words("repeat slow 20 0.05")) for _ in range(2)]
        wait_for(lambda: server.app.state.running == 2)
        answer = server.http.get("/v1/models")
        error_of(answer, 429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) >= 1
        assert server.http.get("/v1/models", headers=other).status_code == 200
        for thread, _ in threads:
            thread.join()
        assert server.http.get("/v1/models").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_stopped(hasty, stream):
    before = len(hasty.log())
    answer = hasty.ask("repeat slow 1000 0.02", stream=stream)
    if stream:
        assert answer.status_code == 200
        assert '"code": "deadline_exceeded"' in answer.text.strip().split("\n")[-3]
    else:
        error_of(answer, 504, "deadline_exceeded")
    wait_for(lambda: any(line.startswith("cancelled") for line in hasty.log()[before:]))


def test_a_client_that_does_not_read_holds_its_place_for_so_long_only(hasty):
    host, port = hasty.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"model": "scripted", "stream": True, "max_tokens": 10**6, **words("repeat word 100000 0")}
    ).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        wait_for(lambda: hasty.app.state.pool.slots["scripted"].answers == 1)
        wait_for(lambda: hasty.app.state.pool.slots["scripted"].answers == 0)
    assert hasty.ask("hi").status_code == 200


def image_part(content, kind="png"):
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "messages"}]


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def png_that_claims(width, height):
    """A picture's head without a picture: a bomb when it is believed."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
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
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), "image_type_unsupported"),
        (encoded(Image.new("RGB", (9, 9)), "PPM"), "image_type_unsupported"),
        (encoded(Image.new("RGB", (101, 100)), "PNG"), "image_too_large"),
        (png_that_claims(60_000, 60_000), "image_too_large"),
        (png_that_claims(0, 0), "image_type_unsupported"),
        (encoded(Image.effect_noise((99, 99), 99), "BMP") * 4, "image_too_large"),
    ],
    ids=["empty", "text", "eps", "svg", "tiff", "ppm", "pixels", "bomb", "nothing", "bytes"],
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


def test_how_long_a_key_takes_to_compare_does_not_depend_on_where_it_differs(monkeypatch):
    """All keys are compared, by a function made for it; a clock in a test would only measure the machine."""
    from fusionvl.serve import limits

    compared = []
    real = limits.hmac.compare_digest
    monkeypatch.setattr(limits.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    limits.ApiKeys(KEYS).owner(f"Bearer {KEYS[0]}")
    assert len(compared) == len(KEYS)
    assert {len(digest) for pair in compared for digest in pair} == {32}
