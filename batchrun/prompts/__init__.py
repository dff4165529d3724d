"""Prompts: from a prompt file to the request of a row.

A prompt is loaded once (`load`, `parse`), checked completely at that moment, and then turned into a renderer, a pure
function from a row to the exact bytes of a request. Nothing here reads the environment, opens a connection or keeps
anything between rows that could change a result.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchrun.prompts.bodies import batch_renderer, body_renderer
from batchrun.prompts.caching import Caching, caching_of, key_member, marked, with_members
from batchrun.prompts.definition import InputField, Message, Prompt, Renderer, RenderError
from batchrun.prompts.files import Listing, available, default_places, load
from batchrun.prompts.parse import parse
from batchrun.prompts.request import ask_again, more_room, request_digest
from batchrun.prompts.schema import forms_schema
from batchrun.prompts.spelling import Spelling, check_takes, spelling_of
from batchrun.prompts.variables import ABSENT, cell, check_variables

if TYPE_CHECKING:
    from batchrun.prompts.render import PromptRenderer, renderer

__all__ = [
    "ABSENT",
    "Caching",
    "InputField",
    "Listing",
    "Message",
    "Prompt",
    "PromptRenderer",
    "RenderError",
    "Renderer",
    "Spelling",
    "ask_again",
    "available",
    "batch_renderer",
    "body_renderer",
    "caching_of",
    "cell",
    "check_takes",
    "check_variables",
    "default_places",
    "forms_schema",
    "key_member",
    "load",
    "marked",
    "more_room",
    "parse",
    "renderer",
    "request_digest",
    "spelling_of",
    "with_members",
]


def __getattr__(name: str) -> Any:
    """What needs Jinja2, imported when it is first used: requests that come ready-made do without."""
    if name not in {"PromptRenderer", "renderer"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.render"), name)
