"""How one live session gets its guard: it changes to a subclass of its own class."""

from __future__ import annotations

from typing import Any, TypeVar

from ..errors import PolicyError
from .mcp_calls import Binding

__all__ = ["attach", "guarded_class", "named_after"]

T = TypeVar("T")


def attach(session: T, binding: Binding) -> T:
    """Guard a session; doing so again with an equal binding changes nothing.

    Raises:
        PolicyError: The session is guarded already, by another guard or under another name.
    """
    guarded: Any = session
    known: Binding | None = vars(guarded).get("_policy_binding")
    if known is None:
        guarded.__class__ = guarded_class(type(session))  # first: what has a binding is guarded
        vars(guarded)["_policy_binding"] = binding
    elif known != binding:
        raise PolicyError(f"the session is guarded already, as server {known.server!r}: guard each session once")
    return session


def guarded_class(base: Any) -> Any:
    """A subclass with the methods of a session that matter.

    A plain subclass, and not a mixin in front, because a live session can change to it.
    """

    class Guarded(base):  # type: ignore[misc]  # the session's own class, whatever it is
        _policy_binding: Binding

        async def send_request(self, request: Any, result_type: Any, *args: Any, **kwargs: Any) -> Any:
            """Send a request; a tool call only where the policy admits it."""
            forward = super().send_request  # looked up at each call: others may have wrapped it since
            return await self._policy_binding.send(
                request, result_type, lambda sent: forward(sent, result_type, *args, **kwargs)
            )

        async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
            """List the server's tools without the hidden ones, page by page."""
            return self._policy_binding.without_hidden(await super().list_tools(*args, **kwargs))

        if hasattr(base, "_absorb_tool_listing"):  # 2.x: lists that its client has cached pass here

            def _absorb_tool_listing(self, *args: Any, **kwargs: Any) -> Any:
                return self._policy_binding.without_hidden(super()._absorb_tool_listing(*args, **kwargs))

    return named_after(base, Guarded)


def named_after(base: Any, subclass: Any) -> Any:
    """The subclass under its base's name: what is guarded looks as it did."""
    subclass.__name__, subclass.__qualname__ = base.__name__, base.__qualname__
    subclass.__module__, subclass.__doc__ = base.__module__, base.__doc__
    return subclass
