"""What is known of the SDK's requests is what the SDK sends; where it is not known, the SDK is asked."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import FaultServer

from batchrun.client import Client, recipe, sdk
from batchrun.client.wire import Recipe

KEY = "sk-canary-0123456789"
ADDRESSES = [
    "https://api.openai.com/v1",
    "https://eu.api.openai.com/v1/",
    "http://127.0.0.1:8000/v1",
    "http://[::1]:8000/v1",
    "http://localhost",
    "http://localhost/",
    "https://mine.openai.azure.com/openai/v1",
    "https://mine.services.ai.azure.com/openai/v1/",
    "https://generativelanguage.googleapis.com/v1beta/openai",
    "https://xn--mnchen-3ya.example/a/b.c/~d_e-f/v1",
]
UNUSUAL = [
    "https://api.example/v1?api-version=2026-01-01",
    "https://api.example/v1#part",
    "https://api.example:443/v1",
    "http://api.example:80/v1",
    "https://api.example/a%2Fb/v1",
    "https://api.example/a//v1",
    "https://api.example/a/../v1",
    "https://api.example/a b/v1",
]
NAMES = [
    "authorization",
    "Authorization",
    "API-Key",
    "accept",
    "Accept-Encoding",
    "content-type",
    "user-agent",
    "Host",
    "Content-Length",
    "connection",
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Stainless-Lang",
    "x-team",
]


def compared(found: Recipe) -> tuple[dict[str, str], list[tuple[str, str]]]:
    headers = sorted((name.lower(), value) for name, value in found.headers.items())
    return {endpoint.value: str(url) for endpoint, url in found.urls.items()}, headers


def agree(address: str, key: str | None, headers: Mapping[str, str]) -> None:
    found = recipe.known(address, key, headers)
    assert found is not None
    assert compared(found) == compared(sdk.recipe(address, key, headers))


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("organization", [None, "org-1"])
def test_what_is_known_is_what_the_sdk_sends(
    address: str, key: str | None, organization: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    if organization is not None:
        monkeypatch.setenv("OPENAI_ORG_ID", organization)
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    agree(address, key, {"X-Team": "blue"})


@settings(max_examples=30)
@given(
    address=st.sampled_from(ADDRESSES[:3] + ADDRESSES[6:7]),
    key=st.sampled_from([KEY, None]),
    headers=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["a", "Bearer b"]), max_size=3),
)
def test_the_users_headers_win_as_they_do_in_the_sdk(address: str, key: str | None, headers: dict[str, str]):
    if len({name.lower() for name in headers}) == len(headers):
        agree(address, key, headers)


@pytest.mark.parametrize("address", UNUSUAL)
def test_the_sdk_is_asked_for_an_unusual_address(address: str):
    assert recipe.known(address, KEY, {}) is None
    assert compared(recipe.recipe(address, KEY, {})) == compared(sdk.recipe(address, KEY, {}))


def test_the_sdk_is_asked_where_it_has_headers_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: 1")
    assert recipe.known(ADDRESSES[0], KEY, {}) is None
    assert recipe.recipe(ADDRESSES[0], KEY, {}).headers["x-mine"] == "1"


def test_the_sdk_is_asked_in_a_version_that_was_not_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipe, "version", lambda _: "4.0.0")
    assert recipe.known(ADDRESSES[0], KEY, {}) is None


NOT_NEEDED = {
    "openai",
    "jinja2",
    "yaml",
    "tqdm",
    "multiprocessing",
    "genai_prices",
    "jsonschema_rs",
    "tenacity",
    "xml.etree.ElementTree",
    "zoneinfo",
    "batchrun.client.senders.hub",
    "batchrun.documents.checks",
    "batchrun.engine.batches",
    "batchrun.engine.estimate",
    "batchrun.lanes.shapes",
    "batchrun.post.queue",
    "batchrun.rows.columnar",
    "batchrun.sim.server",
}
"""What a run of ready-made requests with an ordinary key does without: half of what a start took."""


async def test_a_run_imports_only_what_it_needs(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"model": "m", "messages": [{"role": "user", "content": "hi"}]}\n')
    async with FaultServer() as server:
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "importtime", "-m", "batchrun", "-i", "rows.jsonl", "--base-url", server.base_url),
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": KEY, "PYTHONPATH": str(Path(recipe.__file__).parents[2])},
            stderr=subprocess.PIPE,
        )
        _, said = await run.communicate()
    loaded = set(re.findall(r"^import time:.*\| +([\w.]+)$", said.decode(), re.MULTILINE))
    assert run.returncode == 0
    assert [call.target for call in server.calls if call.body] == ["/v1/chat/completions"]
    assert "aiohttp.client" in loaded  # a parent package is not listed when a module in it is imported by name
    assert not loaded & NOT_NEEDED


async def test_calls_about_files_have_the_same_headers():
    headers = await Client(base_url=ADDRESSES[0], api_key=KEY, environ={}).calls().headers()
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert "content-type" not in {name.lower() for name in headers}
