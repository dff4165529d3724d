#!/bin/sh
# LiteLLM's proxy creates three batches for one request if the provider's answers are lost, even with retries off in its
# settings: its client for the provider retries twice and sends no idempotency key. The caller sees one error and may pay for
# three batches; only the provider's list shows them.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet "litellm[proxy]==1.108.7" "openai==3.57.0"
cat >"$dir/look.py" <<'PY'
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder = sys.argv[1]
made = []


class Provider(BaseHTTPRequestHandler):
    """Makes each batch that it is asked for and loses the answer: the connection ends."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        made.append(self.path)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=provider.serve_forever, daemon=True).start()
upstream = {"api_base": f"http://127.0.0.1:{provider.server_port}/v1", "api_key": "sk-upstream"}
with open(f"{folder}/config.yaml", "w") as file:  # JSON is YAML
    settings = {"files_settings": [{"custom_llm_provider": "openai", **upstream}]}
    off = {"num_retries": 0}
    json.dump({"model_list": [], **settings, "litellm_settings": off, "router_settings": off}, file)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]

key = "sk-loopback-only-0123456789abcdef0123456789"
own = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
known = {"OPENAI_API_KEY": upstream["api_key"], "OPENAI_BASE_URL": upstream["api_base"]}
command = [f"{folder}/venv/bin/litellm", "--config", f"{folder}/config.yaml", "--host", "127.0.0.1", "--port", str(port)]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
proxy = subprocess.Popen(command, env={**os.environ, **own, **known}, **quiet)
try:
    while proxy.poll() is None:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
            break
        except OSError:
            time.sleep(0.3)
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    asked.request("POST", "/v1/batches", json.dumps(body), headers)
    status = asked.getresponse().status
finally:
    proxy.terminate()
    proxy.wait()
print("litellm 1.108.7, openai 3.57.0")
print("expected: one request to create a batch reaches the provider once, with num_retries: 0")
print(f"seen:     the provider made {len(made)} batches ({made[0]}); the caller was answered {status} once")
sys.exit(0 if made == ["/v1/batches"] * 3 and status >= 500 else 1)
PY
"$dir/venv/bin/python" "$dir/look.py" "$dir"
