"""Whose call it is: grant, session and context come from the application, never from the model (adapters A-1.10)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from ..calls import ServerName, ToolCall, Unreadable
from ..errors import PolicyError, log_failure

__all__ = ["IdentityOf", "identified_call"]

IdentityOf: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Takes the framework's own object of a call; returns any of `grant`, `session`, `context` and `mcp_session_id`."""

_LOG: Final = logging.getLogger(__name__)
_KEYS: Final = frozenset({"grant", "session", "context", "mcp_session_id"})


def identified_call(
    tool: str,
    arguments: Any,
    *,
    server: ServerName,
    identity_of: IdentityOf | None,
    seen: Any,
    call_id: str | None = None,
    as_sent: Callable[[], Any] | None = None,
) -> ToolCall:
    """The call, under the identity that the application gives it.

    An `identity_of` that raises, or returns something else, makes a call that is denied as `invalid_call`:
    without knowing whose call it is nobody can say what it may do.
    """
    if identity_of is None:
        return ToolCall(tool, arguments, server=server, call_id=call_id, as_sent=as_sent)
    try:
        identity = dict(identity_of(seen))
        if unknown := identity.keys() - _KEYS:
            raise PolicyError(f"`identity_of` returned {sorted(map(str, unknown))}: known are {sorted(_KEYS)}")
        for key in ("grant", "session"):  # an empty one must not fall back to the guard's own
            if key in identity and not (isinstance(identity[key], str) and identity[key]):
                raise PolicyError(f"`{key}` of an identity is a text that is not empty, or is left out")
        return ToolCall(tool, arguments, server=server, call_id=call_id, as_sent=as_sent, **identity)
    except Exception as error:  # the application's own code may raise anything
        log_failure(_LOG, "a call was denied because `identity_of` failed", error)
        return ToolCall(tool, Unreadable("it is not known whose call this is"), server=server, call_id=call_id)
