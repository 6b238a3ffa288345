"""The fetcher against real sockets: where it goes, where it does not, and how it bounds what comes."""

import asyncio
import http.server
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from running_server import error_of, running

from fusionvl.serve.errors import ApiError
from fusionvl.serve.fetching import ImageFetcher, is_allowed, resolve
from fusionvl.serve.settings import Limits

CERTIFICATE = Path(__file__).with_name("pictures.example.pem")
LIMITS = Limits(fetch_seconds=5.0, image_bytes=10_000)

FORBIDDEN = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "169.254.0.1", "192.0.0.192", "168.63.129.16", "100.100.100.200", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:0:7f00:1::", "::127.0.0.1", "fec0::1", "3fff::1", "192.0.0.8", "192.88.99.1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_that_are_nobodys_business(address):
    assert not is_allowed(address, allow_private=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_allowed(address, allow_private=False)


def test_names_that_nobody_answers_for_hold_up_nothing_else(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20) and [])

    async def run():
        stuck = [asyncio.ensure_future(resolve("slow.example", 80)) for _ in range(40)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            found = await asyncio.to_thread(lambda: "done")
        released.set()
        await asyncio.gather(*stuck)
        return found

    assert asyncio.run(run()) == "done"


def test_an_intranet_may_be_allowed_but_never_a_clouds_metadata():
    for address in ("127.0.0.1", "10.0.0.1", "::1", "fc00::1"):
        assert is_allowed(address, allow_private=True)
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200", "224.0.0.1"):
        assert not is_allowed(address, allow_private=True)


class Pictures(http.server.BaseHTTPRequestHandler):
    """A site of pictures, honest and otherwise; writes down who was asked for what."""

    protocol_version = "HTTP/1.1"
    png = b""
    asked: list[tuple[str, str]] = []

    def do_GET(self):
        self.asked.append((self.headers["Host"], self.path))
        name = self.path.rsplit("/", 1)[-1]
        getattr(self, f"say_{name.partition('?')[0].replace('.', '_')}")()

    def reply(self, body=b"", status=200, **headers):
        self.send_response(status)
        for key, value in {"Content_Type": "image/png", "Content_Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def say_picture_png(self):
        self.reply(self.png)

    def say_missing(self):
        self.reply(status=404)

    def say_page(self):
        self.reply(b"<html>", Content_Type="text/html")

    def say_zipped(self):
        self.reply(b"\x1f\x8b", Content_Encoding="gzip")

    def say_large(self):
        self.reply(b"x" * 20_000)

    def say_endless(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for _ in range(100_000):
            try:
                self.wfile.write(b"x" * 1000)
            except OSError:
                return

    def say_slow(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            try:
                self.wfile.write(b"x")
            except OSError:
                break
        self.close_connection = True

    def say_round(self):
        self.reply(status=302, Location="round")

    def say_on(self):
        self.reply(status=307, Location="picture.png")

    def say_to_metadata(self):
        self.reply(status=302, Location="http://169.254.169.254/latest/meta-data/")

    def say_to_inside(self):
        self.reply(status=301, Location=f"http://inside.example:{self.server.server_port}/picture.png")

    def say_to_file(self):
        self.reply(status=302, Location="file:///etc/passwd")

    def log_message(self, *_):
        pass


@pytest.fixture
def site(png):
    """The site's port."""
    Pictures.png, Pictures.asked = png, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


class Names:
    """A name server that a test speaks for: answers in turn, the last for ever."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answers = self.answers.get(host, [host])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return found if isinstance(found, list) else [found]


def fetch(url, limits=LIMITS, **options):
    return asyncio.run(ImageFetcher(limits, **options).fetch(url))


def refused(url, code, **options):
    with pytest.raises(ApiError) as raised:
        fetch(url, **options)
    assert raised.value.code == code
    return raised.value


@pytest.fixture
def inside():
    """Options that let the tests' own site be reached by a name."""
    return {"resolver": Names(pictures_example=["127.0.0.1"], inside_example=["127.0.0.1"]), "allow_private": True}


def test_a_picture_by_name_and_behind_a_redirect(site, png, inside):
    assert fetch(f"http://pictures.example:{site}/picture.png", **inside) == png
    assert fetch(f"http://pictures.example:{site}/on", **inside) == png
    assert Pictures.asked[0] == (f"pictures.example:{site}", "/picture.png"), "the site sees its own name"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[::ffff:7f00:1]",
    ],
)
def test_every_way_to_write_this_machine_is_refused(site, host):
    """Through the system's own resolver."""
    error = refused(f"http://{host}:{site}/picture.png", "image_url_forbidden")
    assert "127.0.0.1" not in error.message.replace(host, ""), "the message tells nothing about our network"
    assert Pictures.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "file:///etc/passwd",
        "/etc/passwd", "ftp://example.com/a.png", "gopher://example.com/", "http://", "http:///a.png", "", "a.png",
        "javascript:alert(1)", "http://user:word@example.com/", "//example.com/a.png", "http://\x00/", "http://xn--/",
        "unix:///var/run/docker.sock", "http://[::1", "http://example.com:port/",
    ],
)  # fmt: skip
def test_what_is_no_public_picture_is_refused(url):
    refused(url, "image_url_forbidden")


def test_a_name_that_leads_inside_is_refused(site):
    names = Names(pictures_example=["127.0.0.1"], mixed_example=[["93.184.216.34", "10.0.0.1"]])
    refused(f"http://pictures.example:{site}/picture.png", "image_url_forbidden", resolver=names)
    refused(f"http://mixed.example:{site}/picture.png", "image_url_forbidden", resolver=names)
    assert Pictures.asked == []


def test_a_name_that_changes_its_mind_gains_nothing(site, png):
    """DNS rebinding: the name is asked once, and the connection goes to the very answer that was checked."""
    names = Names(pictures_example=["127.0.0.1", "169.254.169.254"])
    assert fetch(f"http://pictures.example:{site}/picture.png", resolver=names, allow_private=True) == png
    assert names.asked == ["pictures.example"]
    # The other way round: first a public address, which nobody here answers at, then ours.
    names = Names(pictures_example=["192.88.99.255", "127.0.0.1"])
    with pytest.raises(ApiError):
        fetch(f"http://pictures.example:{site}/picture.png", limits=Limits(fetch_seconds=0.5), resolver=names)
    assert names.asked == ["pictures.example"]
    assert len(Pictures.asked) == 1


def test_redirects_are_checked_like_the_first_url(site, inside):
    refused(f"http://pictures.example:{site}/to_metadata", "image_url_forbidden", **inside)
    refused(f"http://pictures.example:{site}/to_file", "image_url_forbidden", **inside)
    inside["resolver"].answers["inside.example"] = ["169.254.1.1"]
    refused(f"http://pictures.example:{site}/to_inside", "image_url_forbidden", **inside)
    refused(f"http://pictures.example:{site}/round", "image_url_unreachable", **inside)
    assert [path for _, path in Pictures.asked].count("/round") == LIMITS.fetch_redirects + 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing", "image_url_unreachable"),
        ("page", "image_type_unsupported"),
        ("zipped", "image_type_unsupported"),
        ("large", "image_too_large"),
        ("endless", "image_too_large"),
    ],
)
def test_what_comes_back_is_bounded(site, inside, path, code):
    refused(f"http://pictures.example:{site}/{path}", code, **inside)


def test_a_slow_body_is_given_up(site, inside):
    refused(f"http://pictures.example:{site}/slow", "image_url_too_slow", limits=Limits(fetch_seconds=0.3), **inside)


def test_nobody_there(inside):
    refused("http://pictures.example:1/picture.png", "image_url_unreachable", **inside)
    for host in ("exa mple.invalid", "a..b.invalid"):
        refused(f"http://{host}/picture.png", "image_url_unreachable")


def test_tls_sees_the_name_though_the_address_is_pinned(png, inside):
    Pictures.png, Pictures.asked = png, []
    seen = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _, name, __: seen.append(name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_port
        trust = ssl.create_default_context(cafile=str(CERTIFICATE))
        assert fetch(f"https://pictures.example:{port}/picture.png", trust=trust, **inside) == png
        assert seen == ["pictures.example"]
        # The certificate is of pictures.example, so the same machine under another name is not believed.
        refused(f"https://inside.example:{port}/picture.png", "image_url_unreachable", trust=trust, **inside)
        refused(f"https://pictures.example:{port}/picture.png", "image_url_unreachable", **inside)
        server.shutdown()


def test_the_systems_resolver_finds_this_machine():
    assert "127.0.0.1" in asyncio.run(resolve("localhost", 80)) or "::1" in asyncio.run(resolve("localhost", 80))


def chat_about(server, url):
    image = {"type": "image_url", "image_url": {"url": url}}
    return server.ask([image, {"type": "text", "text": "messages"}])


def test_a_server_fetches_only_where_it_may(site):
    with running() as server:
        error = error_of(chat_about(server, f"http://127.0.0.1:{site}/picture.png"), 400, "image_url_forbidden")
        assert error["param"] == "messages.0.content.0.image_url.url"
        for url in ("/etc/passwd", "file:///etc/passwd", "../../etc/passwd", "http://169.254.169.254/"):
            error_of(chat_about(server, url), 400, "image_url_forbidden")
        assert Pictures.asked == []
    with running(allow_private_networks=True) as server:
        answer = chat_about(server, f"http://127.0.0.1:{site}/picture.png").json()
        assert answer["choices"][0]["message"]["content"] == "[('user', [(30, 20), 'messages'])]"
