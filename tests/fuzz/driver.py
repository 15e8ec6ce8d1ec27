"""Runs a fuzz target: with atheris, guided by coverage, where it is installed; else with Hypothesis; for so long.

python tests/fuzz/fuzz_reader.py --seconds 600
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["Target", "by_hypothesis", "main"]

Target = Callable[[bytes], None]
"""Takes any bytes; whatever it raises is a finding."""


def by_hypothesis(target: Target, seeds: list[bytes], seconds: float) -> int:
    """Run a target on random bytes and on damaged seeds until the time is over; tells how many it was run on."""
    count = 0
    ends = time.monotonic() + seconds

    def damaged(seed: bytes, cut: int, drop: int, insert: bytes) -> bytes:
        at = cut % (len(seed) + 1)
        return seed[:at] + insert + seed[at + drop :]

    damage = st.builds(
        damaged, st.sampled_from(seeds), st.integers(0, 1 << 16), st.integers(0, 30), st.binary(max_size=12)
    )

    @settings(
        max_examples=100, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.binary(max_size=200) | damage | st.sampled_from(seeds))
    def batch(data: bytes) -> None:
        nonlocal count
        count += 1
        if time.monotonic() < ends:
            target(data)

    while time.monotonic() < ends:
        batch()
    return count


def by_atheris(target: Target, seeds: list[bytes], seconds: int) -> None:
    """Run a target under libFuzzer; it ends the process, with status 0 where nothing was found."""
    import atheris

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for index, seed in enumerate(seeds):
        (corpus / f"seed-{index}").write_bytes(seed)
    arguments = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=4096", "-max_len=4096", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *arguments, f"-artifact_prefix={corpus}{os.sep}crash-", str(corpus)], target)
    atheris.Fuzz()


def main(load: Callable[[], tuple[Target, list[bytes]]]) -> None:
    """Read the command line and run a target.

    Args:
        load: Imports what is fuzzed and gives the target and its seeds; under atheris the imports are instrumented.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="how long to run")
    seconds = parser.parse_args().seconds
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: random inputs by Hypothesis, without coverage")
        print(f"{by_hypothesis(*load(), seconds)} inputs, nothing found")
        return
    import atheris

    with atheris.instrument_imports(include=["mcp_policy_middleware"]):
        target, seeds = load()
    by_atheris(target, seeds, seconds)
