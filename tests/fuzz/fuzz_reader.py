"""Any bytes are a policy or raise `DocumentError`, and a policy that reads decides calls without raising.

python tests/fuzz/fuzz_reader.py --seconds 600
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from driver import Target, main

DATA = Path(__file__).parent.parent / "data"
NAMES = ("p.json", "p.yaml", "p")
CALLS = ({}, {"a": 1, "amount": 5000}, {"a": [{"k": "x"}], "url": "http://x", "path": "/tmp/x"})


def load() -> tuple[Target, list[bytes]]:
    """The target, and documents of the test data as seeds."""
    from mcp_policy_middleware import Decision, DocumentError, Guard, Reason, ToolCall, parse_policy
    from mcp_policy_middleware.stores import MemoryStore

    def target(data: bytes) -> None:
        """The first byte tells the document's name, and so how it is read; the others are its text."""
        try:
            policy = parse_policy(data[1:], NAMES[data[0] % len(NAMES) if data else 0])
        except DocumentError as error:
            refused = error
        else:
            refused = None
        if refused is not None:
            assert refused.problems
            assert str(refused)
            return
        assert policy.digest.startswith("sha256:")
        guard = Guard(policy, store=MemoryStore(), telemetry=False)
        for tool in [*list(policy.tools)[:5], "t", ""]:
            for arguments in CALLS:
                decision = guard.begin(ToolCall(tool, arguments, context={"tier": "gold"}))
                assert isinstance(decision, Decision)
                assert decision.reason is not Reason.EVALUATION_ERROR

    return target, seeds()


def seeds() -> list[bytes]:
    """Good documents in JSON and in YAML, and bad ones."""
    found = []
    for case in yaml.safe_load((DATA / "language_cases.yaml").read_text("utf-8")):
        if "policy" in case:
            found.append(b"\0" + json.dumps(case["policy"]).encode())
            found.append(b"\1" + yaml.safe_dump(case["policy"]).encode("utf-8", "replace"))
    for case in yaml.safe_load((DATA / "invalid_documents.yaml").read_text("utf-8")):
        text = case["text"].replace("«", "").encode("utf-8", "surrogatepass")
        found.append((b"\1" if case["as"] == "yaml" else b"\0") + text)
    return found


if __name__ == "__main__":
    main(load)
