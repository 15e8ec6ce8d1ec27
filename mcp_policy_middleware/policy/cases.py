"""Policy tests as an author writes them: calls in order, and what the policy shall answer.

    policy: policy.json            # a file or a directory beside this file, or a document written here
    grant: support-agent           # a default for every call; so are server, session, context and at
    cases:
      - name: refunds above 100 are denied
        calls:
          - {tool: create_refund, arguments: {amount: 101}, expect: {effect: deny, reason: rule_denied}}
          - {tool: create_refund, arguments: {amount: 1}, outcome: rejected, repeat: 3, expect: allow}

They are read as strictly as policies are: every problem at once, each where it stands (PL-1.2).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ..calls import Outcome, Reason

__all__ = ["MOST_REPEATS", "Case", "CaseCall", "CaseDocument", "Expected", "read_moment"]

NonBlank: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"\S")]
MOST_REPEATS: Final = 10_000
"""How often one entry may call."""

_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 9000


def _problem(message: str, help: str) -> PydanticCustomError:
    return PydanticCustomError("cases", "{message}", {"message": message, "help": help})


def read_moment(text: str) -> datetime:
    """A time as authors write it: `2026-01-15T10:00:00Z`.

    Raises:
        ValueError: It is none, has no zone, or lies where calendars end.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError("not a time of a clock")
    return moment.astimezone(UTC)


def _moment(value: Any) -> Any:
    try:
        return read_moment(value)
    except (TypeError, ValueError):
        advice = "write for example `2026-01-15T10:00:00Z`, quoted in JSON"
        raise _problem("`at` must be a time with its zone", advice) from None


def _spelled_out(value: Any) -> Any:
    if type(value) is str:
        if value not in ("allow", "deny"):
            raise _problem(f"`expect` cannot be `{value[:60]}`", "write `allow`, `deny`, or effect, reason and rule")
        return {"effect": value}
    return value


def _not_empty(value: Any) -> Any:
    if value == []:  # pydantic's own `min_length` counts entries that are wrong as none
        raise PydanticCustomError("too_short", "empty")
    return value


def _policy(value: Any) -> Any:
    if type(value) not in (str, dict) or not value:
        raise _problem("`policy` must be a path or a document", "name a file or a directory beside this file")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Expected(_Part):
    """What a call shall be answered; what is left out may be anything."""

    effect: Literal["allow", "deny"] | None = None
    reason: Annotated[Reason, Field(strict=False)] | None = None
    rule: str | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Expected:
        if self.effect is None and self.reason is None and self.rule is None:
            raise _problem("`expect` expects nothing", "write `allow`, `deny`, or one of effect, reason and rule")
        if self.effect and self.reason and (self.effect == "allow") is not (self.reason is Reason.ALLOWED):
            message = f"effect `{self.effect}` never has reason `{self.reason.value}`"
            raise _problem(message, "keep one of the two")
        return self

    def met_by(self, effect: str, reason: str, rule: str) -> bool:
        """Whether an answer is what was expected."""
        wanted = (self.effect, self.reason, self.rule)
        return all(want is None or want == got for want, got in zip(wanted, (effect, reason, rule), strict=True))

    def __str__(self) -> str:
        words = (self.effect, self.reason and self.reason.value, self.rule)
        return " ".join(word for word in words if word is not None)


Moment: TypeAlias = Annotated[datetime, BeforeValidator(_moment)]


class _Defaults(_Part):
    """What calls may leave out, where the case or the file says it; `at` is when the first call is made."""

    server: NonBlank | None = None
    grant: NonBlank | None = None
    session: NonBlank | None = None
    context: dict[str, Any] | None = None
    at: Moment | None = None

    def taking(self, others: _Defaults, *names: str) -> Self:
        """The same with what it leaves out and the others say; a null written here stays."""
        update = {name: getattr(others, name) for name in names if name not in self.model_fields_set}
        return self.model_copy(update=update)


class CaseCall(_Defaults):
    """One call, made once or several times; without `at`, the clock stands where the call before left it."""

    tool: str
    arguments: Any = None
    outcome: Annotated[Outcome, Field(strict=False)] = Outcome.RETURNED
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] = 1
    expect: Annotated[Expected, BeforeValidator(_spelled_out)]


class Case(_Defaults):
    """Calls in order, on fresh counters."""

    name: NonBlank
    calls: Annotated[tuple[CaseCall, ...], Field(strict=False), BeforeValidator(_not_empty)]


class CaseDocument(_Defaults):
    """Cases, and the policy they are about."""

    description: str | None = None
    policy: Annotated[Any, BeforeValidator(_policy)] = None
    cases: Annotated[tuple[Case, ...], Field(strict=False), BeforeValidator(_not_empty)]
