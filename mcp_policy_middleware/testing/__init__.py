"""For tests of policies and of agents under them: written cases, a clock that stands still, a model on a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency
from .cases import GuardFactory, run_cases
from .clock import FrozenClock
from .coverage import RuleCoverage
from .report import CallResult, Report

if TYPE_CHECKING:
    from ..adapters.langchain.fake_model import FakeToolCallingModel

__all__ = ["CallResult", "FakeToolCallingModel", "FrozenClock", "GuardFactory", "Report", "RuleCoverage", "run_cases"]


def __getattr__(name: str) -> Any:
    if name != "FakeToolCallingModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ..adapters.langchain.fake_model import FakeToolCallingModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        raise MissingDependency(f"`{name}`", "langchain") from error
    return FakeToolCallingModel
