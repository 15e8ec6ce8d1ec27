"""Lets an agent work under a policy, and asks real backends what they saw of it.

    python observability/run.py PHOENIX

PHOENIX is the program of Arize Phoenix. Checks spans in Phoenix, metrics, panels and alerts in Prometheus, and draws
docs/images/phoenix.png; exits with 1 where a check fails or a program is missing. Speaks to loopback alone, in a
network of its own where the machine has them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import phoenix
import prometheus
from phoenix import Phoenix, Span
from programs import printed, started, until

HERE = Path(__file__).parent
ROOT = HERE.parent
DASHBOARD = ROOT / "dashboards" / "grafana.json"
ALERTS = ROOT / "dashboards" / "alerts.yaml"
PICTURE = ROOT / "docs" / "images" / "phoenix.png"
KEPT = ROOT / ".venvs" / "prometheus"

DECISIONS = (
    ("git_status", "allow", "allowed"),
    ("git_log", "allow", "allowed"),
    ("git_log", "deny", "limit_exceeded"),
    ("git_create_branch", "allow", "allowed"),
    ("git_create_branch", "deny", "requirement_unmet"),
    ("git_reset", "deny", "hidden"),
    ("git_add", "allow", "allowed"),
    ("git_commit", "deny", "approval_denied"),
)
"""What `agent.py` is to meet: tool, effect, reason."""

KEYS = {
    "gen_ai.tool.call.id",
    "gen_ai.tool.name",
    "mcp_policy.arguments.keys",
    "mcp_policy.decision.id",
    "mcp_policy.effect",
    "mcp_policy.enforced",
    "mcp_policy.grant",
    "mcp_policy.policy.name",
    "mcp_policy.policy.version",
    "mcp_policy.reason.code",
    "mcp_policy.server",
}
"""Attributes of every decision here, however it ends."""

ROWS = {"Now", "Allows and denials", "Latency", "Limits", "Approvals", "Faults"}
QUIET = {
    "Denials by tool and reason",  # how many more there are, and all were there at the first scrape
    "Faults of telemetry",
    "Calls that could not be decided as written",
    "Allowed without limits",
    "Telemetry that failed",
}
"""Panels of the dashboard that this agent leaves empty."""

Checks = Iterator[tuple[str, bool]]


def check_spans(spans: list[Span]) -> Checks:
    """What the trace must show."""
    by_id = {span["context"]["span_id"]: span for span in spans}
    decisions = [span for span in spans if span["name"].startswith("policy_decision ")]
    approvals = [span for span in spans if span["name"].startswith("policy_approval ")]
    agents = [span for span in spans if span["name"] == "notes-agent"]

    def told(span: Span, *names: str) -> tuple[Any, ...]:
        return tuple(span["attributes"].get(name) for name in names)

    def parent(span: Span) -> Span:
        return by_id.get(span["parent_id"], {"name": "", "attributes": {}, "parent_id": None})

    def ran(span: Span) -> bool:
        return any(one["span_kind"] == "TOOL" and one["parent_id"] == span["parent_id"] for one in spans)

    facts = ("gen_ai.tool.name", "mcp_policy.effect", "mcp_policy.reason.code")
    yield "each call is one decision", Counter(told(span, *facts) for span in decisions) == Counter(DECISIONS)
    yield (
        "decisions and approvals are guardrails",
        all(one["span_kind"] == "GUARDRAIL" for one in decisions + approvals),
    )
    yield (
        "they are below the `tools` step of their call",
        all(parent(one)["name"] == "tools" for one in decisions + approvals),
    )
    yield "which is the agent's", all(parent(parent(one)) in agents for one in decisions) and len(agents) == 1
    yield (
        "and tells the effect itself",
        all(
            told(parent(one), "mcp_policy.decision.id", "mcp_policy.effect")
            == told(one, "mcp_policy.decision.id", "mcp_policy.effect")
            for one in decisions
        ),
    )
    yield (
        "tools ran beside their allows, and none beside a denial",
        all(ran(one) == (told(one, "mcp_policy.effect") == ("allow",)) for one in decisions),
    )
    yield "a denial is no error", all(one["status_code"] == "UNSET" for one in decisions)
    yield "every decision has its attributes", all(one["attributes"].keys() >= KEYS for one in decisions)
    yield (
        "every denial names its rule",
        all(
            ("mcp_policy.rule.name" in one["attributes"]) == (told(one, "mcp_policy.effect") == ("deny",))
            for one in decisions
        ),
    )
    outcomes = Counter(told(one, "gen_ai.tool.name", "mcp_policy.approval.outcome") for one in approvals)
    yield "questions to a person are there", outcomes == Counter([("git_add", "approved"), ("git_commit", "denied")])
    yield "no argument's value is told", "Tell what is new" not in json.dumps(decisions + approvals)


def check_filter(backend: Phoenix, project: str) -> Checks:
    """What a person finds who types a condition into Phoenix's filter bar."""
    for effect in ("allow", "deny"):
        found = backend.filtered(
            project, f"span_kind == 'GUARDRAIL' and attributes['mcp_policy']['effect'] == '{effect}'"
        )
        wanted = [f"policy_decision {tool}" for tool, said, _ in DECISIONS if said == effect]
        yield f"the filter finds each {effect}", Counter(found) == Counter(wanted)


def check_metrics(backend: prometheus.Prometheus) -> Checks:
    """What PromQL must answer."""
    count = "mcp_policy_decision_duration_seconds_count"
    labels = ("gen_ai_tool_name", "mcp_policy_effect", "mcp_policy_reason_code")
    counted = backend.values(f"sum by ({', '.join(labels)}) ({count})", *labels)
    yield "decisions are counted by tool, effect and reason", counted == Counter(DECISIONS)
    used = backend.values("mcp_policy_limit_used_ratio", "mcp_policy_counter_name")
    yield "a full limit is seen", 1.0 in used.values()
    outcome = "mcp_policy_approval_outcome"
    answers = backend.values(f"sum by ({outcome}) (mcp_policy_approval_duration_seconds_count)", outcome)
    yield "answers are counted", answers == {("approved",): 1, ("denied",): 1}
    empty = {
        panel["title"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        if not any(backend.values(_entered(target["expr"])) for target in panel.get("targets", ()))
    }
    yield "each panel shows what there is", empty == ROWS | QUIET
    yield "alert rules are evaluated", {rule["health"] for rule in backend.rules()} == {"ok"}


def _entered(query: str) -> str:
    """A panel's query as Grafana sends it."""
    for variable in ("__rate_interval", "__range"):
        query = query.replace(f"${variable}", "1m")
    return query.replace("$job", ".*").replace("$tool", ".*")


def observe(program: str, folder: Path, browser: str | None, scraper: str | None) -> Checks:
    """Run everything once."""
    with phoenix.running(program, folder) as backend:
        with started([sys.executable, HERE / "agent.py", backend.traces], folder / "agent.log", prints=True) as agent:
            told = json.loads(until("the agent", lambda: printed(agent), agent))
            spans = backend.spans(told["project"], "request")
            yield from check_spans(spans)
            yield from check_filter(backend, told["project"])
            if scraper:
                with prometheus.running(scraper, told["metrics"], ALERTS, folder) as metrics:
                    metrics.scraped()
                    yield from check_metrics(metrics)
        if browser:
            decisions = [span for span in spans if span["name"].startswith("policy_decision ")]
            backend.label(decisions)
            denied = next(span for span in decisions if span["attributes"]["mcp_policy.effect"] == "deny")
            backend.photograph(browser, told["project"], denied, PICTURE, folder)
            yield f"the trace is drawn: {PICTURE.relative_to(ROOT)}", True


def main() -> int:
    """Check everything that can be."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended
    found = {name: machine.program(name, KEPT) for name in ("chromium", "prometheus")}
    if machine.alone():
        print("in a network of its own: nothing here can reach or be reached", flush=True)
    else:
        print("in the machine's network, for `unshare` may not make another: Phoenix's gRPC port is open to others now")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="mcp-policy-observability-") as place:
        folder = Path(place)
        try:
            for name, holds in observe(sys.argv[1], folder, found["chromium"], found["prometheus"]):
                print(f"{'ok' if holds else 'NOT SO':7} {name}", flush=True)
                wrong += not holds
        except (OSError, subprocess.TimeoutExpired) as error:
            wrong += 1
            print(f"FAILED  {error}")
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}")
    for name in (name for name, path in found.items() if path is None):
        wrong += 1
        print(f"MISSING {name}: install it (Debian: `apt-get install {name}`), and run this again")
    print("green" if not wrong else f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
