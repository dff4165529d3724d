"""Type guards for parsed JSON."""

from typing import Any, TypeGuard


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def is_array(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list
