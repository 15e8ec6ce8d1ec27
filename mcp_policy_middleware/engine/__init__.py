"""What a policy means: conditions, the compiler, and one decision as a generator."""

from __future__ import annotations

from .compiler import CompiledPolicy, compile_policy
from .flow import Answer, Flow, Peek, Person, Request, Reserve, decide

__all__ = [
    "Answer",
    "CompiledPolicy",
    "Flow",
    "Peek",
    "Person",
    "Request",
    "Reserve",
    "compile_policy",
    "decide",
]
