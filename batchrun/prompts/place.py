"""Places in a prompt file, for errors."""

from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from batchrun.errors import PromptError

if TYPE_CHECKING:
    from yaml.nodes import Node


class Place(NamedTuple):
    """A value: its YAML node, if any, and the line of its key."""

    path: str
    node: "Node | None" = None
    first_line: int = 1  # of the YAML in the file
    line: int | None = None

    def under(self, key: str | int) -> Self:
        """The place of a member or an element."""
        for number, (name, value) in enumerate(self._members()):
            if key in (number, None if name is None else name.value):
                mark = (value if name is None else name).start_mark
                return self._replace(node=value, line=self.first_line + mark.line)
        return self._replace(node=None)

    def error(self, message: str, hint: str | None = None, *, key: str | None = None) -> PromptError:
        """The error about this value, or its member `key`."""
        line = self.line if key is None else self.under(key).line
        where = self.path if line is None else f"{self.path}:{line}"
        return PromptError(f"{where}: {message}", hint, line)

    def _members(self) -> list[tuple[Any, Any]]:
        """Pairs of key (None in a list) and value."""
        value: Any = None if self.node is None else self.node.value
        listed = cast("list[Any]", value) if isinstance(value, list) else []
        return [pair if isinstance(pair, tuple) else (None, pair) for pair in listed]
