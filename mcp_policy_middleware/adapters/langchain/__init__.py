"""LangChain: guarded tools, the middleware of `create_agent`, callbacks, and the MCP bridge (adapters A-2).

Each name is imported when it is first asked for: `guard_tools` needs langchain-core alone, and importing
`langchain.agents`, which `PolicyMiddleware` needs, takes more than a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ...errors import MissingDependency

if TYPE_CHECKING:
    from .callbacks import PolicyCallbackHandler
    from .interceptor import PolicyInterceptor
    from .manual import strip_injected
    from .middleware import PolicyMiddleware
    from .tools import guard_tool, guard_tools

__all__ = [
    "PolicyCallbackHandler",
    "PolicyInterceptor",
    "PolicyMiddleware",
    "guard_tool",
    "guard_tools",
    "strip_injected",
]

_HOMES: Final = {
    "PolicyCallbackHandler": (".callbacks", "langchain"),
    "PolicyInterceptor": (".interceptor", "langchain-mcp"),
    "PolicyMiddleware": (".middleware", "agents"),
    "guard_tool": (".tools", "langchain"),
    "guard_tools": (".tools", "langchain"),
    "strip_injected": (".manual", "langchain"),
}
"""Where each name lives, and the extra that brings what it needs."""

_FRAMEWORKS: Final = frozenset({"langchain", "langchain_core", "langgraph", "mcp"})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _HOMES[name]
    try:
        return getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _FRAMEWORKS:
            raise
        raise MissingDependency(f"`{name}`", extra) from error
