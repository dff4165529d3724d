"""Prompts: from a file, checked when loaded, to the request of a row."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchrun.prompts.bodies import batch_renderer, body_renderer
from batchrun.prompts.caching import Caching, caching_of, key_member, marked, with_members
from batchrun.prompts.definition import ABSENT, Message, Prompt, Renderer, RenderError, cell, check_variables
from batchrun.prompts.parse import Listing, available, default_places, load, parse
from batchrun.prompts.request import (
    Spelling,
    check_takes,
    request_digest,
    spelling_of,
    with_correction,
    with_larger_limit,
)
from batchrun.prompts.schema import forms_schema

if TYPE_CHECKING:
    from batchrun.prompts.render import PromptRenderer, renderer

__all__ = [
    "ABSENT",
    "Caching",
    "Listing",
    "Message",
    "Prompt",
    "PromptRenderer",
    "RenderError",
    "Renderer",
    "Spelling",
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
    "parse",
    "renderer",
    "request_digest",
    "spelling_of",
    "with_correction",
    "with_larger_limit",
    "with_members",
]


def __getattr__(name: str) -> Any:
    # imports what needs Jinja2 on first use
    if name not in {"PromptRenderer", "renderer"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.render"), name)
