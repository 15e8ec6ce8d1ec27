"""The distribution's Prometheus on loopback: scrapes the agent, loads the alert rules, answers PromQL."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from programs import fetched, free_port, started, until


class Prometheus:
    """One that runs.

    Args:
        url: Where it listens.
        program: Its process.
    """

    def __init__(self, url: str, program: subprocess.Popen[str]) -> None:
        self.url = url
        self._program = program

    def scraped(self) -> None:
        """Wait until the agent's metrics have been here twice, as `rate` needs them, and the rules are evaluated."""
        twice = "count_over_time(mcp_policy_decision_duration_seconds_count[1m]) > 1"
        until("two scrapes", lambda: self.values(twice), self._program)
        until("the alert rules", lambda: {rule["health"] for rule in self.rules()} == {"ok"}, self._program)

    def values(self, query: str, *labels: str) -> dict[tuple[str, ...], float]:
        """What PromQL says now, by the values of labels."""
        result = fetched(f"{self.url}/api/v1/query?query={quote(query)}")["data"]["result"]
        return {tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1]) for one in result}

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules, with their health."""
        return [rule for group in fetched(f"{self.url}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]


@contextmanager
def running(program: str, target: str, rules: Path, folder: Path) -> Iterator[Prometheus]:
    """Prometheus that scrapes one target twice a second."""
    settings = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "agent", "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.json"  # JSON is YAML
    file.write_text(json.dumps(settings))
    port = free_port()
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    with started(command, folder / "prometheus.log") as process:
        until("Prometheus", lambda: fetched(f"{url}/-/ready"), process)
        yield Prometheus(url, process)
