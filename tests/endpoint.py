"""A real HTTP server that speaks as much of the OpenAI protocol as fusionvl uses, and misbehaves where told to."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = {
    "Description": {"description": "A red apple and two green pears lie on a wooden table."},
    "TwoDescriptions": {
        "left": "A red apple lies on a wooden table.",
        "right": "A green apple lies on a wooden table.",
    },
    "AskedColour1To3": {
        "turns": [{"question": "Which color is the apple?", "answer": "The apple is red.", "color": "red"}]
    },
    "AskedCount1To3": {
        "turns": [{"question": "How many pears are there?", "answer": "There are two pears.", "count": 2}]
    },
    "AskedText1To3": {
        "turns": [{"question": "What does the sign say?", "answer": 'It says "OPEN".', "written": "OPEN"}]
    },
    "Asked1To3": {"turns": [{"question": "Where is the apple?", "answer": "The apple is on the table."}]},
    "Asked2To6": {"turns": [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(3)]},
    "AskedChoice1To1": {
        "turns": [{"question": "Which?", "options": ["apple", "pear", "fig", "plum"], "correct": "B"}]
    },
    "AskedReasoning1To2": {
        "turns": [{"question": "Why?", "reasoning": "The table is laid with fruit only.", "answer": "It is a snack."}]
    },
}


class Server(ThreadingHTTPServer):
    """Answers by the schema's name; `script` holds what to do instead with the first requests, in order."""

    daemon_threads = True

    def __init__(self, script=(), latency=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.latency = latency
        self.requests = []
        self.times = []
        self.keys = []
        self.in_flight = self.most_in_flight = 0
        self.guard = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def by_prompt(self):
        return Counter(json.dumps([request["messages"], request["seed"]]) for request in self.requests)

    def handle_error(self, request, client_address):
        pass  # clients that give up are part of these tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.guard:
            server.requests.append(body)
            server.times.append(time.monotonic())
            server.keys.append(self.headers.get("Authorization"))
            behaviour = server.script.pop(0) if server.script else "good"
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            time.sleep(server.latency)
            self.behave(behaviour, body)
        finally:
            with server.guard:
                server.in_flight -= 1

    def behave(self, behaviour, body):
        if isinstance(behaviour, tuple):
            status, headers = behaviour
            self.send(status, json.dumps({"error": {"message": f"test {status}"}}).encode(), headers)
        elif behaviour == "hang":
            self.server.released.wait(20)
        elif behaviour == "close mid-stream":
            self.send(200, b'{"id": "x", "choi', {"Content-Length": "5000"})
            self.close_connection = True
        elif behaviour == "broken body":
            self.send(200, b'{"id": "x", "choi')
        elif behaviour == "no choice":
            self.send(200, json.dumps(completion(None)).encode())
        elif behaviour == "empty choice":
            self.send(200, json.dumps(completion("")).encode())
        else:
            text = behaviour
            if behaviour == "good":
                text = json.dumps(ANSWERS[body["response_format"]["json_schema"]["name"]])
            self.send(200, json.dumps(completion(text, "length" if behaviour.startswith("cut") else "stop")).encode())

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def completion(text, finish_reason="stop"):
    message = {"role": "assistant", "content": text or None}
    choices = [] if text is None else [{"index": 0, "message": message, "finish_reason": finish_reason}]
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "test-model", "choices": choices, "usage": usage
    }  # fmt: skip


@contextmanager
def serving(script=(), latency=0.0):
    server = Server(script, latency)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
