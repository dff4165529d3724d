"""The addresses and headers of all requests, as the OpenAI SDK sends them.

Known ones do without the SDK, whose import takes 0.4 s of CPU.
"""

import os
import re
from collections.abc import Mapping
from importlib.metadata import version

from multidict import CIMultiDict
from yarl import URL

from batchrun.client.wire import Recipe
from batchrun.models import Endpoint

NO_KEY = "none"

# versions of the SDK that tests/test_client_recipe.py compares; any other is imported
TRIED = ("3.",)

# addresses that need no normalization
_PLAIN = re.compile(
    r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:(?!80\b|443\b)[0-9]{1,5})?(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)*/?"
)

_PER_MESSAGE = frozenset({"host", "connection", "content-length", "accept-encoding", "transfer-encoding"})
_OF_OPENAI_ONLY = frozenset({"openai-organization", "openai-project"})
_OF_ENVIRONMENT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


def recipe(base_url: str, api_key: str | None, headers: Mapping[str, str]) -> Recipe:
    if (found := known(base_url, api_key, headers)) is not None:
        return found
    from batchrun.client import sdk  # noqa: PLC0415 # imports the SDK

    return sdk.recipe(base_url, api_key, headers)


def known(base_url: str, api_key: str | None, headers: Mapping[str, str]) -> Recipe | None:
    """The recipe without the SDK, unless something is unusual."""
    number = version("openai")
    if not number.startswith(TRIED) or "OPENAI_CUSTOM_HEADERS" in os.environ or not _PLAIN.fullmatch(base_url):
        return None
    root = base_url.removesuffix("/")
    urls = {endpoint: URL(f"{root}{sdk_path(endpoint)}", encoded=True) for endpoint in Endpoint}
    sent = CIMultiDict({"Authorization": f"Bearer {api_key or NO_KEY}"})
    sent.update({"Accept": "application/json", "Content-Type": "application/json"})
    sent["User-Agent"] = f"OpenAI/Python {number}"
    sent.update({name: os.environ[of] for of, name in _OF_ENVIRONMENT.items() if of in os.environ})
    sent.update(headers)
    return Recipe(urls, lasting(sent, urls[Endpoint.CHAT].host or "", api_key, headers))


def sdk_path(endpoint: Endpoint) -> str:
    return endpoint.value.removeprefix("/v1")


def lasting(sent: CIMultiDict[str], host: str, api_key: str | None, chosen: Mapping[str, str]) -> Mapping[str, str]:
    """`chosen` are the user's headers."""
    kept = CIMultiDict((name, value) for name, value in sent.items() if belongs(name.lower(), host))
    own = {name.lower() for name in chosen}
    if "authorization" not in own:
        if api_key is None:
            kept.pop("authorization", None)
        elif host.endswith(_AZURE_HOSTS):
            kept.pop("authorization", None)
            if "api-key" not in own:
                kept["api-key"] = api_key
    # Replies are small, or vectors that hardly shrink: unpacking costs more than it saves, and none invites a bomb.
    kept.setdefault("accept-encoding", "identity")
    return kept


def belongs(name: str, host: str) -> bool:
    """Whether to send a header: none of one message, of this machine, or of OpenAI at another host."""
    if name in _OF_OPENAI_ONLY:
        return host == "openai.com" or host.endswith(".openai.com")
    return name not in _PER_MESSAGE and not name.startswith("x-stainless-")
