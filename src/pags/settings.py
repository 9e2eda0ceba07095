"""What all settings objects share: frozen, unknown names refused, errors in one line."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pags.errors import UsageError


class Settings(BaseModel):
    """Plain settings, from Python, from the command line or from TOML."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def of(
        cls,
        said: Mapping[str, Any],
        *,
        where: str = "settings",
        suggestion: str = "",
        spelled: Callable[[str], str] = str,
    ) -> Self:
        """Settings from what was said; None stands for the default.

        Args:
            said: values by name.
            where: what holds them, for the error: "settings", "sweep.toml".
            suggestion: what to try; otherwise the names that there are.
            spelled: how the caller writes a name, for the error.

        Raises:
            UsageError: an unknown name, or a value out of range.
        """
        given = {name: value for name, value in said.items() if value is not None}
        return cls._checked(given, where, suggestion, spelled)

    @classmethod
    def _checked(
        cls, given: Mapping[str, Any], where: str = "settings", suggestion: str = "",
        spelled: Callable[[str], str] = str,
    ) -> Self:  # fmt: skip
        try:
            return cls(**given)
        except ValidationError as error:
            raise UsageError(
                f"{where} in their range",
                got=first_problem(error, spelled),
                suggestion=suggestion or f"values of {', '.join(cls.model_fields)}",
            ) from error

    def with_(self, **changes: Any) -> Self:
        """A copy with some values changed, checked again; what was never said counts as unsaid still.

        Args:
            changes: values by name; None takes a value back to its default.

        Raises:
            UsageError: an unknown name, or a value out of range.
        """
        kept = {n: getattr(self, n) for n in self.model_fields_set if n not in changes}
        return self._checked(kept | {n: value for n, value in changes.items() if value is not None})


def first_problem(error: ValidationError, spelled: Callable[[str], str] = str) -> str:
    """The first problem of a validation in words."""
    problem = error.errors()[0]
    place = ".".join(spelled(part) if isinstance(part, str) else str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    said = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] in {"value_error", "missing"} else f" {problem['input']!r}"
    return f"{place}{given}: {said[0].lower()}{said[1:]}{more}".removeprefix(": ")
