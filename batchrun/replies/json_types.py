"""Types of parsed JSON, and guards for them.

`type(value) is dict` on a `Json` is the same as `is_object`, without a call: for what is read in every reply.
"""

from typing import Any, TypeGuard

Json = dict[str, Any] | list[Any] | str | float | None
"""A parsed value; a float may be an integer or a Boolean."""


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def is_array(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list
