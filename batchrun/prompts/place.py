"""Where in a prompt file a complaint belongs: the path, and the line of the key that it is about."""

from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from batchrun.errors import PromptError

if TYPE_CHECKING:
    from yaml.nodes import Node


class Place(NamedTuple):
    """A value of the file: its node of the YAML, if there is one, and the line of its key, from 1."""

    path: str
    node: "Node | None" = None
    first_line: int = 1
    """The line of the file where the YAML starts."""
    line: int | None = None

    def under(self, key: str | int) -> Self:
        """The place of a member of a mapping, or of an element of a list."""
        for number, (name, value) in enumerate(self._members()):
            if key in (number, None if name is None else name.value):
                return self._replace(node=value, line=self._line(value if name is None else name))
        return self._replace(node=None)

    def error(self, message: str, hint: str | None = None, *, key: str | None = None) -> PromptError:
        """The error that says what is wrong here, or with the member `key`."""
        line = self.line if key is None else self.under(key).line
        where = self.path if line is None else f"{self.path}:{line}"
        return PromptError(f"{where}: {message}", hint, line)

    def _line(self, node: "Node") -> int:
        return self.first_line + node.start_mark.line

    def _members(self) -> list[tuple[Any, Any]]:
        """Pairs of key and value; elements of a list have no key."""
        value: Any = None if self.node is None else self.node.value
        listed = cast("list[Any]", value) if isinstance(value, list) else []
        return [pair if isinstance(pair, tuple) else (None, pair) for pair in listed]
