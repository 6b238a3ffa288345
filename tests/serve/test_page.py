"""The page in a real browser, against a real server with the shipped model.

Needs Chromium (Debian's package `chromium`); CI must have it, elsewhere these tests skip by name.
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running_server import Server, running, running_app

from fusionvl.serve.page_for import create_page_for
from fusionvl.serve.settings import ServerSettings

EXAMPLES = Path(__file__).parents[2] / "src" / "fusionvl" / "serve" / "web" / "examples"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")  # no longer: Playwright's event loop runs as long, and other tests start their own
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Chromium for the page's tests: apt-get install chromium")
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def served(shipped_server: Server) -> str:
    return f"{shipped_server.url}/"


@contextlib.contextmanager
def opened(browser: Browser, served: str) -> Iterator[Page]:
    """The page, open; whatever it asks of anyone but its own server fails the test, and so does an error in it."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("request", lambda request: problems.append(request.url) if foreign(request.url, served) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(served)
    expect(page.get_by_label("Model")).not_to_have_value("")
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def page(browser: Browser, served: str) -> Iterator[Page]:
    with opened(browser, served) as page:
        yield page


def foreign(url: str, served: str) -> bool:
    return not url.startswith((served, "data:", "blob:"))


def upload(page: Page, name: str = "red-triangle.png") -> None:
    page.locator("#file").set_input_files(EXAMPLES / name)
    expect(page.locator("#shown")).to_be_visible()


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask").click()


def test_upload_ask_and_follow_up(page):
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer").last).to_have_text("triangle")
    expect(page.locator(".figures").last).to_have_text(
        re.compile(r"\d\.\d\d s · first words after .* · \d+ tokens read, \d+ written")
    )
    ask(page, "what color is the shape?")
    expect(page.locator(".exchange")).to_have_count(2)
    expect(page.locator(".answer").last).to_have_text("red")


def test_several_pictures_keep_their_conversations(page):
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer")).to_have_text("triangle")
    page.get_by_role("button", name="Use the example blue circle").click()
    expect(page.locator("#shelf button")).to_have_count(2)
    expect(page.locator(".exchange")).to_have_count(0)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer")).to_have_text("circle")
    page.get_by_role("button", name="Show red-triangle.png").click()
    expect(page.locator(".answer")).to_have_text("triangle")


def test_drop_and_paste(page):
    for event in ("drop", "paste"):
        page.evaluate(
            """async ([kind, source]) => {
                const blob = await (await fetch(source)).blob();
                const carried = new DataTransfer();
                carried.items.add(new File([blob], `${kind}.png`, { type: "image/png" }));
                const made = kind === "drop"
                    ? new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true })
                    : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true });
                document.dispatchEvent(made);
            }""",
            [event, "examples/teal-rectangle.png"],
        )
        expect(page.get_by_role("button", name=f"Show {event}.png")).to_have_attribute("aria-current", "true")
    ask(page, "what color is the shape?")
    expect(page.locator(".answer")).to_have_text("teal")


def test_regenerate_replaces_the_answer(page):
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer")).to_have_text("triangle")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Regenerate").click()
    body = asked.value.post_data_json
    assert body["temperature"] > 0
    assert [message["role"] for message in body["messages"]] == ["user"]
    expect(page.locator(".figures")).to_have_text(re.compile("tokens read"))
    expect(page.locator(".exchange")).to_have_count(1)


def test_where_did_it_look(page):
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer")).to_have_text("triangle")
    page.get_by_role("button", name="Where did it look?").click()
    layers = page.get_by_label("Where did it look?", exact=True).locator("option")
    expect(layers).to_have_count(3)  # nano's two interaction layers, and the guidance
    drawn = page.locator("#overlay")
    expect(drawn).to_be_visible()
    first = drawn.evaluate("canvas => canvas.toDataURL()")
    page.locator("#layer").select_option(index=2)
    assert drawn.evaluate("canvas => canvas.toDataURL()") != first
    shown, covered = page.locator("#shown").bounding_box(), drawn.bounding_box()
    assert covered["width"] <= shown["width"] + 1
    assert abs(covered["width"] / covered["height"] - 320 / 240) < 0.02
    page.get_by_role("button", name="Hide").click()
    expect(drawn).to_be_hidden()


def test_an_error_is_told_in_words(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    expect(page.get_by_role("status")).to_contain_text("no picture the page can read")
    ask(page, "what shape is it?")
    expect(page.get_by_role("status")).to_contain_text("Choose a picture first")
    upload(page)
    page.get_by_text("Settings").click()
    page.get_by_label("Latent tokens").fill("7")
    ask(page, "what shape is it?")
    expect(page.locator(".answer.wrong")).to_contain_text("7")
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()


def test_keyboard_alone(page):
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the question")).to_be_focused()
    page.get_by_role("button", name="Use the example red triangle").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Question")).to_be_focused()
    page.keyboard.type("what color is the shape?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_text("red")
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "polite")


def test_every_control_has_a_name(page):
    upload(page)
    for role in ("button", "combobox", "textbox", "spinbutton"):
        for control in page.get_by_role(role).all():
            assert control.evaluate(
                "node => (node.ariaLabel || node.labels?.[0]?.textContent || node.textContent).trim()"
            )


def test_light_dark_and_phone(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate(ground) == light
    page.set_viewport_size({"width": 360, "height": 740})
    upload(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_answers_stream_and_can_be_stopped(browser, server):
    with opened(browser, f"{server.url}/") as page:
        upload(page)
        ask(page, "repeat word 400 0.05")
        answer = page.locator(".answer")
        expect(answer).to_have_text(re.compile("word word word"))
        expect(answer).to_have_class(re.compile("waiting"))
        expect(page.get_by_role("button", name="Ask")).to_be_disabled()
        page.keyboard.press("Escape")
        expect(page.locator(".figures")).to_have_text("stopped")
        expect(page.get_by_role("button", name="Ask")).to_be_enabled()
        assert server.wait_for_log("cancelled")
        ask(page, "repeat over 2 0")
        expect(answer.last).to_have_text("over over ")


def test_a_model_that_fails_is_told(browser, server):
    with opened(browser, f"{server.url}/") as page:
        upload(page)
        ask(page, "fail")
        expect(page.locator(".answer.wrong")).to_contain_text("The model failed on this request")
        ask(page, "repeat back 1 0")
        expect(page.locator(".answer").last).to_have_text("back ", timeout=30_000)


def test_latents_are_asked_for_as_vllm_takes_them(browser, server):
    with opened(browser, f"{server.url}/") as page:
        upload(page)
        page.get_by_text("Settings").click()
        page.get_by_label("Latent tokens").fill("16")
        with page.expect_request("**/v1/chat/completions") as asked:
            ask(page, "settings")
        assert asked.value.post_data_json["chat_template_kwargs"] == {"num_latents": 16}
        expect(page.locator(".answer")).to_contain_text("num_latents=16")


def test_in_front_of_another_server_the_page_does_not_offer_what_that_cannot(browser, page):
    """Other servers do not say that they explain; ours does."""
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.get_by_role("button", name="Where did it look?")).to_be_visible()
    with (
        serving_openai() as behind,
        running_app(create_page_for(behind, ServerSettings())) as front,
        opened(browser, f"{front.url}/") as other,
    ):
        expect(other.get_by_label("Model")).to_have_value("other")
        upload(other)
        ask(other, "what shape is in the image?")
        expect(other.locator(".answer")).to_have_text("from elsewhere")
        expect(other.get_by_role("button", name="Regenerate")).to_be_visible()
        expect(other.get_by_role("button", name="Where did it look?")).to_be_hidden()


@contextlib.contextmanager
def serving_openai() -> Iterator[str]:
    """The least that an OpenAI-compatible server is; yields its address."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(
                json.dumps({"object": "list", "data": [{"id": "other", "object": "model"}]}), "application/json"
            )

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            choice = {"index": 0, "delta": {"content": "from elsewhere"}, "finish_reason": "stop"}
            self.reply(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n", "text/event-stream")

        def reply(self, content: str, media_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Wire(socketserver.ThreadingTCPServer):
    """A way to a server that can be cut in the middle of what it carries; new connections are carried again."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Carrier)
        host, port = target.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.carried: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def __enter__(self) -> "Wire":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.cut()
        self.server_close()

    def cut(self) -> None:
        while self.carried:
            with contextlib.suppress(OSError):  # it has ended already
                self.carried.pop().shutdown(socket.SHUT_RDWR)


class Carrier(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.create_connection(self.server.target) as far:
            self.server.carried += [self.request, far]
            back = threading.Thread(target=carry, args=(far, self.request), daemon=True)
            back.start()
            carry(self.request, far)
            back.join()


def carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_a_connection_that_breaks_is_told_and_the_talk_goes_on(browser, server):
    with Wire(server.url) as wire, opened(browser, wire.url) as page:
        upload(page)
        ask(page, "repeat word 400 0.05")
        expect(page.locator(".answer")).to_have_text(re.compile("word word"))
        wire.cut()
        expect(page.locator(".answer.wrong")).to_contain_text("The answer broke off")
        expect(page.get_by_role("status")).to_have_text("The question was not answered.")
        ask(page, "messages")
        told = page.locator(".answer").last
        expect(told).to_have_text("[('user', [(320, 240), 'messages'])]")  # nothing of what was not answered
        ask(page, "messages")
        expect(told).to_contain_text("('assistant'")


def test_an_explanation_that_breaks_is_told(page):
    upload(page)
    ask(page, "what shape is in the image?")
    expect(page.locator(".answer")).to_have_text("triangle")
    page.evaluate("() => { Response.prototype.json = async () => { throw new TypeError('network error'); }; }")
    page.get_by_role("button", name="Where did it look?").click()
    expect(page.get_by_role("status")).to_contain_text("The answer broke off")


def test_a_key_is_asked_for_and_used(browser):
    key = "a-key-of-the-page-test"
    with running(api_key=key) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_role("textbox", name="Key").fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_label("Model")).to_have_value("scripted")
        context.close()
