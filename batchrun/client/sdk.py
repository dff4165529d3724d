"""The OpenAI SDK builds requests, for addresses, headers and tokens that expire; the session sends them."""

from collections.abc import Mapping

import httpx2
from multidict import CIMultiDict
from openai import APIStatusError, AsyncOpenAI, OpenAI
from yarl import URL

from batchrun.client.recipe import NO_KEY, belongs, lasting, sdk_path
from batchrun.client.session import SessionWire, headers_of
from batchrun.client.wire import Answer, Recipe, Token
from batchrun.models import Endpoint

_DONE_WITH = frozenset({"content-encoding", "content-length", "set-cookie", "transfer-encoding"})


def recipe(base_url: str, api_key: str | None, headers: Mapping[str, str]) -> Recipe:
    seen: list[httpx2.Request] = []

    def record(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200)

    with OpenAI(
        api_key=api_key or NO_KEY,
        base_url=base_url,
        default_headers=headers,
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(record), trust_env=False),
    ) as client:
        for endpoint in Endpoint:
            client.post(sdk_path(endpoint), content=b"{}", cast_to=httpx2.Response)
    urls = {endpoint: URL(str(request.url), encoded=True) for endpoint, request in zip(Endpoint, seen, strict=True)}
    return Recipe(urls, lasting(CIMultiDict(seen[0].headers.multi_items()), seen[0].url.host, api_key, headers))


class SdkWire:
    def __init__(self, session: SessionWire, base_url: str, token: Token, headers: Mapping[str, str]) -> None:
        self._session = session
        self._client = AsyncOpenAI(
            api_key=token,
            base_url=base_url,
            default_headers=headers,
            max_retries=0,
            timeout=None,
            http_client=httpx2.AsyncClient(
                transport=httpx2.MockTransport(self._carry), trust_env=False, follow_redirects=False, timeout=None
            ),
        )

    async def open(self) -> None:
        await self._session.open()

    async def close(self) -> None:
        await self._client.close()
        await self._session.close()

    def renew(self) -> None:
        self._session.renew()

    async def post(self, endpoint: Endpoint, body: bytes) -> Answer:
        try:
            response = await self._client.post(sdk_path(endpoint), content=body, cast_to=httpx2.Response)
        except APIStatusError as error:
            response = error.response
        return response.status_code, response.headers, response.content

    async def _carry(self, request: httpx2.Request) -> httpx2.Response:
        sent = ((name, value) for name, value in request.headers.multi_items() if belongs(name, request.url.host))
        headers = CIMultiDict([*sent, ("accept-encoding", "identity")])
        headers.update(headers_of(request.content))  # the SDK sends forms that it makes itself alone
        url = URL(str(request.url), encoded=True)
        status, answered, body = await self._session.carry(url, headers, request.content)
        kept = [(name, value) for name, value in answered.items() if name.lower() not in _DONE_WITH]
        return httpx2.Response(status, headers=kept, content=body)
