"""`mcp-policy explain`: one decision, stage by stage (PL-4), without a call."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..calls import ToolCall, shown
from ..engine.counters import Counter
from ..engine.trace import Judgement, Trace, trace
from ..errors import DocumentError
from ..policy import load_policy
from ..policy.cases import read_moment
from ..policy.syntax import reason_of
from ..printable import visible
from ..selection import select
from ..steps import drive
from ..stores.memory import MemoryStore
from .output import Format, fail, fail_with, write

__all__ = ["explain"]


def explain(
    policy: Annotated[Path, typer.Argument(help="A policy file, or a directory with a policy for each server.")],
    tool: Annotated[str, typer.Option(help="The tool that would be called.")],
    arguments: Annotated[str, typer.Option(help="Its arguments as JSON; `@FILE` reads a file, `-` the input.")] = "{}",
    server: Annotated[str | None, typer.Option(help="The server's name; left out, a tool of no server.")] = None,
    grant: Annotated[str, typer.Option(help="The grant under which the agent calls.")] = "default",
    session: Annotated[str | None, typer.Option(help="The run or conversation it belongs to.")] = None,
    context: Annotated[str, typer.Option(help="What the application passes in, as `--arguments`.")] = "{}",
    at: Annotated[str | None, typer.Option(help="When, as `2026-01-15T10:00:00Z`; left out, now.")] = None,
    format: Annotated[Format, typer.Option(help="How the answer is printed.")] = Format.TEXT,
) -> None:
    """Tell what would become of a call, and why: every stage, what each condition saw, the counters.

    Values of arguments are not shown, only their kinds. Counters are fresh. Exit status 0, whatever the decision
    is; 2 where the policy or an option does not read.
    """
    try:
        policies = select(policy if policy.is_dir() else load_policy(policy))
    except DocumentError as error:
        raise fail_with(error.problems) from None
    moment = _moment(at)
    known = _json("--context", context)
    if type(known) is not dict:
        raise fail("`--context` must be a JSON object")
    call = ToolCall(tool, _json("--arguments", arguments), server=server, grant=grant, session=session)
    store = MemoryStore()
    steps = trace(policies.policy_for(server, grant), call, grant, session, known)
    told = drive(steps, lambda request: store.peek(request.charges, moment.timestamp()))
    if format is Format.JSON:
        write(json.dumps({"tool": tool, "server": server, "grant": grant, **told.as_dict()}, indent=2) + "\n")
    else:
        where = "" if server is None else f" on {shown(server)}"
        title = f"{shown(tool)}{where} for {shown(grant)} at {moment:%Y-%m-%dT%H:%M:%SZ}"
        console = Console(soft_wrap=True, highlight=False)
        with console.capture() as printed:
            _print(title, told, console)
        write(printed.get())


def _json(option: str, text: str) -> Any:
    """JSON from an option, a file or the input; what it holds is not repeated."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise fail(f"`{option}` cannot be read: {reason_of(error)}") from None
    except json.JSONDecodeError as error:
        what = error.msg.lower().removesuffix(" at").removesuffix(" starting")
        raise fail(f"`{option}` is not JSON: {what}, line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise fail(f"`{option}` is not JSON in UTF-8 that can be read") from None


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        return read_moment(text)
    except ValueError:
        raise fail("`--at` must be a time with its zone, such as `2026-01-15T10:00:00Z`") from None


def _print(title: str, told: Trace, console: Console) -> None:
    console.print(f"[bold]{escape(title)}[/]")
    for step in told.steps:
        _print_step(step, console)
    decision = told.decision
    color = "green" if decision.effect == "allow" else "red"
    words = " ".join(filter(None, (decision.reason.value, decision.rule)))
    console.print(f"[{color} bold]{decision.effect}[/]  {escape(visible(words))}")
    if decision.message:
        console.print(f"       {escape(visible(decision.message))}")
    if not decision.enforced:
        console.print("       [dim]in shadow mode: the call goes on[/]")
    for counter in told.counters:
        console.print(f"counter {escape(visible(_described(counter)))}")


def _print_step(step: Judgement, console: Console) -> None:
    answer = "-" if not step.rule and step.answer == "skipped" else step.answer
    mark = "[red]»[/]" if step.decides else " "
    style = "dim" if step.answer == "skipped" else "bold" if step.decides else "default"
    line = f"{step.stage:2} {step.name:<16} {answer:<11} {step.rule}".rstrip()
    console.print(f"{mark} [{style}]{escape(visible(line))}[/]")
    for seen in step.conditions:
        said = f"{seen.path} {seen.operator}: saw {seen.saw}, {seen.answer}"
        console.print(f"{'':33}[dim]{escape(visible(said))}[/]")


def _described(counter: Counter) -> str:
    every = counter.window if isinstance(counter.window, str) else f"{counter.window} s"
    after = f"{counter.before} + {counter.charge}" if counter.after is None else counter.after
    return f"{counter.counter}: {counter.before} -> {after} of {counter.max} per {every}, scope {counter.scope}"
