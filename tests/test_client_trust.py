"""Whom the client talks to, and what it says when it may not or cannot."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import http_exceptions
from engine import PLAN, until
from waiting import PATIENCE, a_while
from wire import CA_FILE, FaultServer, Proxy, chat, hang, raw
from yarl import URL

from batchrun.client import Client, wire
from batchrun.client.late_certificates import LateContext
from batchrun.client.trust import is_loopback, proxy_for
from batchrun.client.wire import TooLargeError
from batchrun.engine.connect import connected
from batchrun.errors import HostError, RefusedError
from batchrun.models import Endpoint, Fault, Request
from batchrun.plan.keys import Key
from batchrun.plan.resolve import Access
from batchrun.secrecy import Mask

ASK = Request(Endpoint.CHAT, b'{"model": "m"}', None)
PROVIDER = "https://provider.test/v1"
KEY = "sk-canary-0123456789"


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name but localhost is found, whatever the network of this machine."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str | None, *args: object, **kwargs: object) -> object:
        if host in {"localhost", "127.0.0.1", None}:
            return real(host, *args, **kwargs)  # type: ignore[arg-type]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("sk-abc\n", "line break"),
        (" sk-abc", "blank"),
        ("sk abc", "blank"),
        ("sk-abc\x00", "control character"),
        ('"sk-abc"', "quotes"),
        ("'sk-abc'", "quotes"),
        ("sk-äbc", "ASCII"),
        ("sk\u2011abc", "ASCII"),
    ],
)
def test_a_key_that_was_pasted_badly_is_refused_without_being_shown(key: str, complaint: str):
    with pytest.raises(RefusedError, match=complaint) as caught:
        Client(base_url=PROVIDER, api_key=key, environ={})
    assert "abc" not in caught.value.message


@pytest.mark.parametrize(
    "base_url", ["", "api.openai.com/v1", "ftp://x/v1", "https://", "http://[::1", "file:///etc/passwd"]
)
def test_an_address_that_is_none_is_refused(base_url: str):
    with pytest.raises(RefusedError, match="base_url"):
        Client(base_url=base_url, environ={})


def test_credentials_in_the_address_are_refused_and_not_shown():
    with pytest.raises(RefusedError) as caught:
        Client(base_url="https://me:hunter2-hunter2@host/v1", environ={})
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("header", [{"X-A": "b\r\nX-C: d"}, {"X A": "b"}, {"": "b"}, {"X-A": "ü"}])
def test_a_header_that_http_cannot_carry_is_refused(header: dict[str, str]):
    with pytest.raises(RefusedError, match="header"):
        Client(base_url=PROVIDER, headers=header, environ={})


@pytest.mark.parametrize(
    "secret", [{"api_key": KEY}, {"headers": {"api-key": KEY}}, {"headers": {"Authorization": "x"}}]
)
def test_a_secret_does_not_cross_the_network_unencrypted(secret: dict[str, object]):
    with pytest.raises(RefusedError, match="unencrypted") as caught:
        Client(base_url="http://10.0.0.5:8000/v1", environ={}, **secret)  # type: ignore[arg-type]
    assert KEY not in str(caught.value)
    Client(base_url="http://10.0.0.5:8000/v1", environ={}, allow_insecure_http=True, **secret)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "base_url", ["http://localhost:8000", "http://127.0.0.1", "http://127.8.8.8", "http://[::1]:80"]
)
def test_loopback_needs_no_encryption(base_url: str):
    Client(base_url=base_url, api_key=KEY, environ={})


@pytest.mark.parametrize("host", ["127.0.0.1.example", "localhost.example", "10.0.0.1", "::2", "notlocalhost", ""])
def test_other_hosts_are_not_loopback(host: str):
    assert not is_loopback(host)


def test_a_server_without_a_key_may_be_plain_http():
    assert Client(base_url="http://10.0.0.5:8000/v1", environ={}).describe().host == "10.0.0.5:8000"


P = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (PROVIDER, {}, None),
        (PROVIDER, {"HTTPS_PROXY": P}, P),
        (PROVIDER, {"https_proxy": P, "HTTPS_PROXY": "http://no"}, P),
        (PROVIDER, {"HTTP_PROXY": P}, None),
        (PROVIDER, {"ALL_PROXY": P}, P),
        (PROVIDER, {"HTTPS_PROXY": "proxy.test:3128"}, P),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "provider.test"}, None),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": ".test, other"}, None),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "*"}, None),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "der.test"}, P),
        (PROVIDER, {"HTTPS_PROXY": P, "no_proxy": "provider.test:443"}, None),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "PROVIDER.Test"}, None),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "provider.test:444"}, P),
        (PROVIDER, {"HTTPS_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, P),
        ("https://10.1.2.3/v1", {"HTTPS_PROXY": P, "NO_PROXY": "192.168.0.0/16,10.0.0.0/8"}, None),
        (PROVIDER, {"HTTPS_PROXY": ""}, None),
        ("http://provider.test", {"HTTP_PROXY": P}, P),
        ("http://provider.test", {"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None),
        ("http://localhost:1", {"HTTP_PROXY": P, "ALL_PROXY": P}, None),
        ("https://127.0.0.1:1", {"HTTPS_PROXY": P}, None),
        ("http://[::1]:1", {"HTTP_PROXY": P}, None),
    ],
)
def test_the_proxy_of_the_environment(url: str, environ: dict[str, str], expected: str | None):
    proxy = proxy_for(URL(url), environ)
    assert proxy == (None if expected is None else URL(expected))


def test_a_socks_proxy_is_refused():
    with pytest.raises(RefusedError, match="not an HTTP proxy"):
        Client(base_url=PROVIDER, environ={"ALL_PROXY": "socks5://127.0.0.1:1080"})


def test_the_target_is_described_without_credentials():
    client = Client(base_url=PROVIDER, environ={"HTTPS_PROXY": "http://me:hunter2-hunter2@proxy.test:3128"})
    assert str(client.describe()) == "provider.test through http://proxy.test:3128"
    assert client.mask("407 for me:hunter2-hunter2") == "407 for me:[key]"


def test_a_ca_file_that_is_none_is_refused(tmp_path: os.PathLike[str]):
    with pytest.raises(RefusedError, match="nothere"):
        Client(base_url=PROVIDER, ca_file=f"{tmp_path}/nothere.pem", environ={})
    with pytest.raises(RefusedError, match="no certificate"):
        Client(base_url=PROVIDER, ca_file=__file__, environ={})


@pytest.mark.parametrize("text", [KEY, f"Bearer {KEY}.", "c2stY2FuYXJ5LTAxMjM0NTY3ODk=", f'"{KEY}"'])
def test_the_key_is_masked_in_every_spelling(text: str):
    masked = Mask([KEY]).text(text)
    assert "[key]" in masked
    assert KEY not in masked
    assert "c2stY2FuYXJ5" not in masked


def test_words_that_stand_in_for_a_key_do_not_spoil_texts():
    assert Mask(["none", "", "ollama"]).text("none of ollama's") == "none of ollama's"


async def test_azure_gets_its_key_in_its_own_header():
    client = Client(base_url="https://mine.openai.azure.com/openai/v1", api_key=KEY, environ={})
    client.prepare()
    wire = client._wire
    assert wire._headers["api-key"] == KEY
    assert "authorization" not in wire._headers
    assert str(wire._urls[Endpoint.CHAT]) == "https://mine.openai.azure.com/openai/v1/chat/completions"


async def test_a_trusted_certificate_is_accepted():
    async with (
        FaultServer(certificate="trusted") as server,
        Client(base_url=server.base_url, api_key=KEY, ca_file=CA_FILE, environ={}) as client,
    ):
        await client.preflight()
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.body, len(server.calls)) == (200, chat(), 1)


async def test_ssl_cert_file_is_obeyed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", CA_FILE)
    async with FaultServer(certificate="trusted") as server, Client(base_url=server.base_url, environ={}) as client:
        assert (await client.send(ASK, timeout=PATIENCE)).status == 200


async def test_the_lanes_of_a_run_read_the_certificates_once_and_the_next_run_reads_them_again(
    monkeypatch: pytest.MonkeyPatch,
):
    contexts: list[ssl.SSLContext] = []
    usual = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: contexts.append(usual()) or contexts[-1])
    async with FaultServer(certificate="trusted") as first, FaultServer(certificate="trusted") as second:
        lanes = tuple({"name": str(at), "base_url": server.base_url} for at, server in enumerate((first, second)))
        plan = replace(PLAN, lanes=lanes, ca_file=CA_FILE)
        access = Access(Key(KEY, "OPENAI_API_KEY"), {}, Mask([KEY]))
        for run in (1, 2):
            async with connected(plan, replace(access, lanes=(access, access)), None) as members:
                assert len(contexts) == run
                for member in members:
                    assert member.client is not None
                    assert (await member.client.send(ASK, timeout=PATIENCE)).status == 200
        assert [len(server.calls) for server in (first, second)] == [2, 2]


@pytest.mark.parametrize(
    ("certificate", "ca_file", "cause"),
    [
        ("expired", CA_FILE, "it has expired"),
        ("other_host", CA_FILE, "it belongs to another host"),
        ("self_signed", CA_FILE, "it is self-signed"),
        ("trusted", None, "unable to get local issuer certificate"),
    ],
)
async def test_an_untrusted_certificate_is_named_and_gets_no_request(certificate: str, ca_file: str | None, cause: str):
    async with (
        FaultServer(certificate=certificate) as server,
        Client(base_url=server.base_url, api_key=KEY, ca_file=ca_file, environ={}) as client,
    ):
        with pytest.raises(HostError, match=cause) as caught:
            await client.preflight()
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert f"localhost:{server.port}" in caught.value.message
    assert caught.value.hint
    assert (exchange.fault, exchange.sent) == (Fault.TLS, False)
    assert server.calls == []


async def test_plain_http_on_an_https_address_is_named():
    async with (
        FaultServer(on_connect=raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server,
        Client(base_url=f"https://localhost:{server.port}", environ={}) as client,
    ):
        with pytest.raises(HostError, match="does not use TLS") as caught:
            await client.preflight()
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert "http://" in (caught.value.hint or "")
    assert (exchange.fault, exchange.sent) == (Fault.TLS, False)


async def test_nobody_listening_is_named_with_the_command_that_starts_it(unused_port: int):
    async with Client(base_url=f"http://127.0.0.1:{unused_port}/v1", environ={}) as client:
        with pytest.raises(HostError, match="connection refused") as caught:
            await client.preflight()
    assert f"127.0.0.1:{unused_port}" in caught.value.message
    assert "running" in (caught.value.hint or "")


async def test_both_addresses_of_localhost_refusing_is_one_reason(unused_port: int):
    async with Client(base_url=f"http://localhost:{unused_port}/v1", environ={}) as client:
        with pytest.raises(HostError, match=r"cannot be reached: connection refused\.\n"):
            await client.preflight()


@pytest.mark.usefixtures("no_names")
async def test_a_name_that_is_not_found_is_named():
    async with Client(base_url="https://nowhere.invalid/v1", api_key=KEY, environ={}) as client:
        with pytest.raises(HostError, match=r"nowhere\.invalid is not found"):
            await client.preflight()
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.fault, exchange.sent) == (Fault.DNS, False)


async def test_preflight_asks_nothing():
    async with FaultServer() as server, Client(base_url=server.base_url, environ={}) as client:
        await client.preflight()
        await until(lambda: server.connections > 0)
        await a_while(0.02)
    assert (server.connections, server.calls) == (1, [])


async def test_preflight_does_not_wait_for_ever():
    async with (
        FaultServer(on_connect=hang) as server,
        Client(base_url=f"https://localhost:{server.port}", environ={}) as client,
    ):
        with pytest.raises(HostError, match=r"does not answer within 0\.1 s"):
            await client.preflight(seconds=0.1)


BASIC = "Basic bWU6aHVudGVyMi1odW50ZXIy"


@pytest.mark.usefixtures("no_names")
async def test_https_goes_through_a_tunnel_of_the_proxy():
    async with FaultServer(certificate="trusted") as server, Proxy(server.port, password=BASIC) as proxy:
        environ = {"HTTPS_PROXY": f"http://me:hunter2-hunter2@127.0.0.1:{proxy.port}"}
        async with Client(base_url=PROVIDER, api_key=KEY, ca_file=CA_FILE, environ=environ) as client:
            await client.preflight()
            exchange = await client.send(ASK, timeout=PATIENCE)
    assert exchange.status == 200
    assert [call.target for call in proxy.calls] == ["provider.test:443", "provider.test:443"]
    assert "authorization" not in proxy.calls[1].headers
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert "proxy-authorization" not in server.calls[0].headers


@pytest.mark.usefixtures("no_names")
async def test_http_goes_through_the_proxy():
    async with FaultServer() as server, Proxy(server.port, password=BASIC) as proxy:
        environ = {"HTTP_PROXY": f"http://me:hunter2-hunter2@127.0.0.1:{proxy.port}"}
        async with Client(base_url="http://provider.test/v1", environ=environ) as client:
            await client.preflight()
            exchange = await client.send(ASK, timeout=PATIENCE)
    assert exchange.status == 200
    assert proxy.calls[0].target == "http://provider.test/v1/chat/completions"


@pytest.mark.usefixtures("no_names")
async def test_a_proxy_that_wants_a_password_is_named():
    async with Proxy(1, password=BASIC) as proxy:
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
        async with Client(base_url=PROVIDER, api_key=KEY, environ=environ) as client:
            with pytest.raises(HostError, match="407") as caught:
                await client.preflight()
            exchange = await client.send(ASK, timeout=PATIENCE)
    assert "password" in (caught.value.hint or "")
    assert (exchange.fault, exchange.sent) == (Fault.PROXY, False)


async def test_a_proxy_that_is_down_is_named(unused_port: int):
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{unused_port}"}
    async with Client(base_url=PROVIDER, api_key=KEY, environ=environ) as client:
        with pytest.raises(HostError, match=f"The proxy 127.0.0.1:{unused_port} cannot be reached"):
            await client.preflight()
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.fault, exchange.sent) == (Fault.PROXY, False)


def subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_of_the_wire_has_a_fault():
    kinds = {*wire.WIRE_ERRORS, *subclasses(aiohttp.ClientError), *subclasses(http_exceptions.HttpProcessingError)}
    rules = tuple(kind for kind, _ in wire._RULES)
    assert [kind for kind in kinds if not issubclass(kind, rules)] == []
    assert wire.explain(TooLargeError("x")).fault is Fault.TOO_LARGE


def test_no_rule_hides_another():
    kinds = [kind for kind, _ in wire._RULES]
    hidden = [later for index, later in enumerate(kinds) if issubclass(later, tuple(kinds[:index]) or ())]
    assert hidden == []


def test_the_certificates_of_the_system_are_read_at_the_first_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", CA_FILE)
    context = LateContext(ssl.PROTOCOL_TLS_CLIENT)
    assert context.cert_store_stats()["x509_ca"] == 0
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    read = context.cert_store_stats()["x509_ca"]
    assert read >= 1
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    assert context.cert_store_stats()["x509_ca"] == read


def test_importing_the_client_reads_no_certificate() -> None:
    script = (
        "import ssl, sys, batchrun.client, aiohttp.connector as made\n"
        "for context in (made._SSL_CONTEXT_VERIFIED, made._SSL_CONTEXT_UNVERIFIED):\n"
        "    print(type(context).__name__, context.cert_store_stats()['x509'], context.verify_mode.name)\n"
        "ssl.create_default_context()\n"
        "print(type(ssl.create_default_context()).__name__, vars(ssl.SSLContext).get('set_default_verify_paths'))\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["LateContext 0 CERT_REQUIRED", "LateContext 0 CERT_NONE", "SSLContext None"]
