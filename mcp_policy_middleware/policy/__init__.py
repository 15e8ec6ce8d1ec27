"""What an author writes: documents, their grammar and their problems."""

from __future__ import annotations

from .model import Dialect, Policy
from .reader import load_directory, load_policy, parse_policy

__all__ = ["Dialect", "Policy", "load_directory", "load_policy", "parse_policy"]
