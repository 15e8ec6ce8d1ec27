"""Arize Phoenix on loopback: started, asked for spans, told to show effects, and photographed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from programs import fetched, free_port, started, until

Span = dict[str, Any]

WINDOW = (1500, 2060)
SCALE = 0.8
MOST_BYTES = 300_000


class Phoenix:
    """One that runs.

    Args:
        url: Where it listens.
        program: Its process.
    """

    def __init__(self, url: str, program: subprocess.Popen[str]) -> None:
        self.url = url
        self._program = program

    @property
    def traces(self) -> str:
        """Where OTLP goes."""
        return f"{self.url}/v1/traces"

    def spans(self, project: str, root: str) -> list[Span]:
        """The spans of a project, once the one named `root`, which ends last, has come in, and no more come."""
        seen = 0

        def ask() -> list[Span] | None:
            nonlocal seen
            before = seen
            spans: list[Span] = fetched(f"{self.url}/v1/projects/{project}/spans?limit=1000")["data"]
            seen = len(spans)
            return spans if seen == before and any(span["name"] == root for span in spans) else None

        return until(f"the span `{root}` in Phoenix", ask, self._program)

    def filtered(self, project: str, condition: str) -> list[str]:
        """The names of the spans that a condition of Phoenix's filter bar leaves, by GraphQL."""
        query = (
            "query($project: ID!, $condition: String!) { node(id: $project) { ... on Project {"
            " spans(first: 100, filterCondition: $condition) { edges { node { name spanKind } } } } } }"
        )
        variables = {"project": self._id(project), "condition": condition}
        answer = fetched(f"{self.url}/graphql", {"query": query, "variables": variables})
        return [edge["node"]["name"] for edge in answer["data"]["node"]["spans"]["edges"]]

    def label(self, spans: list[Span]) -> None:
        """Annotate decisions with their effect: Phoenix's tree of spans shows annotations, and no attributes."""
        labels = [
            {
                "span_id": span["context"]["span_id"],
                "name": "policy",
                "annotator_kind": "CODE",
                "result": {"label": span["attributes"]["mcp_policy.effect"]},
            }
            for span in spans
        ]
        fetched(f"{self.url}/v1/span_annotations?sync=true", {"data": labels})

    def photograph(self, chromium: str, project: str, span: Span, picture: Path, folder: Path) -> None:
        """Draw the trace of a span, with the span chosen, as Chromium shows it.

        Raises:
            OSError: There is no picture, or it is too large for the documentation.
        """
        page = f"{self.url}/projects/{self._id(project)}/traces/{span['context']['trace_id']}"
        shot = folder / "phoenix.png"
        command = [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--force-prefers-reduced-motion",  # or panels are seen as they move in
            "--hide-scrollbars",
            "--virtual-time-budget=30000",
            f"--user-data-dir={folder / 'chromium'}",
            f"--window-size={WINDOW[0]},{WINDOW[1]}",
            f"--force-device-scale-factor={SCALE}",
            f"--screenshot={shot}",
            f"{page}?selectedSpanNodeId={quote(span['id'])}",
        ]
        with started(command, folder / "chromium.log", environment={"HOME": str(folder)}) as browser:
            browser.wait(120)
        if not shot.exists() or shot.stat().st_size > MOST_BYTES:
            raise OSError(f"no picture below {MOST_BYTES} bytes: {(folder / 'chromium.log').read_text()}")
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(shot.read_bytes())

    def _id(self, project: str) -> str:
        projects = fetched(f"{self.url}/v1/projects")["data"]
        return str(next(one["id"] for one in projects if one["name"] == project))


@contextmanager
def running(program: str, folder: Path) -> Iterator[Phoenix]:
    """Phoenix, with nothing kept and nobody told."""
    port, grpc = free_port(), free_port()
    home = folder / "phoenix"
    home.mkdir()
    environment = {
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_WORKING_DIR": str(home),
    }
    url = f"http://127.0.0.1:{port}"
    with started([program, "serve"], folder / "phoenix.log", environment=environment) as process:
        until("Phoenix", lambda: fetched(f"{url}/healthz") is not None, process)
        yield Phoenix(url, process)
