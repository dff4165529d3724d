"""A translator on loopback, and the command line run against it in this process: no simulator is started for a test."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from batchrun.cli import main

Translate = Callable[[str], str]


def shout(text: str) -> str:
    """Lower-case letters that stand in no placeholder, tag, entity or escape become capitals."""
    return "".join(part if number % 2 else part.upper() for number, part in enumerate(KEPT.split(text)))


KEPT = re.compile(r"(\{[^{}]*\}+|%\([^)]*\)\w|%[\d$]*[a-z@]|<[^<>]*>|&\w+;|\$t\([^)]*\)|\\\w)")


class Translator:
    """Answers chat completions; `calls` are the texts that it was asked to translate, `bodies` the requests."""

    def __init__(self, translate: Translate) -> None:
        self.translate = translate
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.base_url = ""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of the reply. A schema is filled with the translation of the form `other`, one key like the other."""
        self.bodies.append(body)
        last = [message["content"] for message in body["messages"] if message["role"] == "user"]
        found = re.search(r"<source>\n(.*)\n</source>", last[0], re.DOTALL)
        text = found[1] if found else last[0]
        self.calls.append(text)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if schema is not None:
            forms = json.loads(text)
            other = self.translate(forms["other"])
            said = json.dumps({name: f"{name} {other}" for name in schema["properties"]})
        else:
            said = self.translate(text)
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


@contextmanager
def translator(translate: Translate = shout) -> Iterator[Translator]:
    """A translator that listens while the block runs."""
    found = Translator(translate)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(found.answer(body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def batchrun(*args: str) -> int:
    """Runs a command in this process; its exit code."""
    try:
        return int(main(list(args)) or 0)
    except SystemExit as ended:
        return int(ended.code or 0)
