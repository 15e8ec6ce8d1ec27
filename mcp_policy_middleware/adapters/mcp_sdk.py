"""What differs between the MCP SDK's two lines, 1.x and 2.x, as seen by a client session. No policy here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..calls import Outcome
from ..errors import MissingDependency

try:
    import mcp
    from mcp import ClientSessionGroup, types
    from mcp.client.session import ClientSession
    from pydantic_core import to_jsonable_python
except ModuleNotFoundError as error:
    if error.name != "mcp":
        raise
    raise MissingDependency("guarding MCP sessions", "mcp") from error

__all__ = [
    "ClientSession",
    "ClientSessionGroup",
    "SdkError",
    "asks_for_input",
    "outcome_of",
    "sdk_error",
    "tool_call_params",
    "tool_error",
    "unwrapped_request",
    "with_trace_context",
]

_V2: Final = hasattr(ClientSession, "adopt")
_IS_ERROR: Final = "is_error" if _V2 else "isError"

SdkError: Final[Any] = getattr(mcp, "MCPError", None) or getattr(mcp, "McpError", None)
"""The SDK's own error for a JSON-RPC error answer."""

_CALL: Final = types.CallToolRequest
_CALL_PARAMS: Final = types.CallToolRequestParams
_ROUND: Final[Any] = getattr(types, "InputRequiredResult", ())

_REJECTED: Final = frozenset({-32700, -32600, -32601, -32602, -32020})
"""Codes with which a server refuses a request before acting (PL-5.6); the last is a header mismatch of 2.x,
after which the client sends the same call again."""


def unwrapped_request(request: Any) -> Any:
    """The request itself; 1.x wraps the SDK's own requests in a root model."""
    return request if _V2 else getattr(request, "root", request)


def tool_call_params(request: Any) -> dict[str, Any]:
    """The parameters of a `tools/call` as they will stand on the wire: `name`, `arguments`, `requestState`, ...

    The SDK turns a request into JSON in this very way before it sends it, so models, dates and aliases among the
    arguments are seen as the server will see them. What cannot be turned cannot be sent either, and is handed on
    as it is.
    """
    params = request.params
    try:
        if type(request) is not _CALL or type(params) is not _CALL_PARAMS:  # a vendor's, or one with plain parameters
            dumped = request.model_dump(by_alias=True, mode="json", exclude_none=True).get("params")
            return dumped if isinstance(dumped, dict) else {}
        arguments = to_jsonable_python(params.arguments, by_alias=True, exclude_none=True, inf_nan_mode="null")
    except (ValueError, TypeError, RecursionError):  # pydantic's serialization errors are ValueErrors
        if isinstance(params, dict):
            return params
        arguments = params.arguments
    read = {"name": params.name, "arguments": arguments}
    if _V2 and (params.request_state is not None or params.input_responses is not None):
        read.update(requestState=params.request_state, inputResponses=params.input_responses)
    return read


def with_trace_context(request: Any, carried: Callable[[], dict[str, str]]) -> Any:
    """The request with the caller's trace context in its `_meta`, as 2.x sends it by itself (SEP-414).

    Args:
        request: A `tools/call`; it stays as it is, and so does a `_meta` that has a trace context already.
        carried: Tells what to put there; nothing where nobody traces.
    """
    if _V2:
        return request
    fields = carried()
    inner = unwrapped_request(request)
    params = inner.params
    if isinstance(params, dict):
        known = params.get("_meta") or {}
        if not isinstance(known, dict) or "traceparent" in known or not fields:
            return request
        sent: Any = {**params, "_meta": {**known, **fields}}
    else:
        meta = getattr(params, "meta", None) or types.RequestParams.Meta()
        if not isinstance(params, types.RequestParams) or "traceparent" in (meta.model_extra or {}) or not fields:
            return request
        sent = params.model_copy(update={"meta": meta.model_copy(update=fields)})
    traced = inner.model_copy(update={"params": sent})
    return traced if inner is request else request.model_copy(update={"root": traced})


def tool_error(result_type: Any, text: str, meta: dict[str, Any]) -> Any:
    """A tool error in the awaited type, or None where that type cannot hold one."""
    raw = {"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta}
    try:
        if not _V2:
            result = result_type.model_validate(raw)
        elif hasattr(result_type, "validate_python"):
            result = result_type.validate_python({**raw, "resultType": "complete"}, by_name=False)
        else:
            result = result_type.model_validate({**raw, "resultType": "complete"}, by_name=False)
    except ValueError:  # pydantic's ValidationError is one
        return None
    return result if _IS_ERROR in type(result).model_fields else None


def outcome_of(ended: Any) -> Outcome:
    """What a `tools/call` came to, from its result or its exception (PL-5.6)."""
    if isinstance(ended, SdkError):
        return Outcome.REJECTED if ended.error.code in _REJECTED else Outcome.UNKNOWN
    if isinstance(ended, BaseException):
        return Outcome.UNKNOWN
    return Outcome.RETURNED_ERROR if getattr(ended, _IS_ERROR, False) is True else Outcome.RETURNED


def asks_for_input(result: Any) -> bool:
    """Whether a server of 2.x wants the same call again, with the input it asks for (SEP-2322)."""
    return isinstance(result, _ROUND)


def sdk_error(code: int, message: str, data: Any) -> tuple[Any, ...]:
    """The arguments that the SDK's error takes."""
    return (code, message, data) if _V2 else (types.ErrorData(code=code, message=message, data=data),)
