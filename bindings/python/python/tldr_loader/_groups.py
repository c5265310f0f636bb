"""What the groups of options have in common."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

__all__ = ["Group"]


class Group:
    """A group of options: immutable, compared by value, shown by what differs from the defaults."""

    def _fields_given(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        own = ((field, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return {field.name: value for field, value in own if not _is(value, _default(field))}

    def __repr__(self) -> str:
        secret = {field.name for field in fields(self) if not field.repr}  # type: ignore[arg-type]
        given = self._fields_given().items()
        shown = (f"{name}={'(hidden)' if name in secret else repr(value)}" for name, value in given)
        return f"{type(self).__name__}({', '.join(shown)})"


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is(value: Any, default: Any) -> bool:
    """Whether a value is the default, and of its type: 1 is not True."""
    return type(value) is type(default) and bool(value == default)
