"""A few seconds of each fuzz target on its seeds and on random inputs; `make fuzz` runs them long."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import driver
import fuzz_guard
import fuzz_reader


@pytest.mark.parametrize("module", [fuzz_reader, fuzz_guard], ids=["reader", "guard"])
def test_nothing_is_found_in_a_second(module: object) -> None:
    """Every seed and some hundreds of random inputs run through the target without a finding."""
    target, seeds = module.load()
    for seed in seeds:
        target(seed)
    assert driver.by_hypothesis(target, seeds, 1) >= 50
