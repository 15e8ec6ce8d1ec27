"""An audit log: each decision and each call's end as a line of JSON, chained so that tampering shows.

`AuditLog` is handed to the guard; `verify` tells whether a log is whole.
"""

from __future__ import annotations

from .chain import Head
from .log import AuditLog
from .verifying import Break, Log, Note, Verification, verify

__all__ = ["AuditLog", "Break", "Head", "Log", "Note", "Verification", "verify"]
