"""What the machine has to give: a network of one's own, and the distribution's programs."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

_MARK = "MCP_POLICY_OBSERVED_ALONE"
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


def alone() -> bool:
    """Whether this process has a network of its own, with loopback and nothing else.

    The first time, the program begins anew in one, where the machine lets it.
    """
    if os.environ.get(_MARK):
        _raise_loopback()
        return True
    unshare = shutil.which("unshare")
    for way in (["--net"], ["--net", "--map-root-user"]):
        trial = [unshare or "", *way, sys.executable, "-c", ""]
        if unshare and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            os.environ[_MARK] = "1"
            os.execv(unshare, [unshare, *way, sys.executable, *sys.argv])
    return False


def _raise_loopback() -> None:
    """`ip link set lo up`, where there may be no `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16xh14x", fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack("16s16x", b"lo")))[0]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def program(name: str, kept: Path) -> str | None:
    """Where a program of the distribution is; it is unpacked into `kept` or installed where it is missing, if apt can.

    Prometheus is unpacked, for installing it starts a service. Chromium needs libraries, so root installs it.
    """
    unpacked = kept / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    if found or os.environ.get(_MARK) or not shutil.which("apt-get"):  # marked: it was tried before
        return found
    is_root = os.geteuid() == 0
    if is_root:
        _quiet(["apt-get", "update", "-qq"])
    if name == "prometheus":
        kept.mkdir(parents=True, exist_ok=True)
        _quiet(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name], kept)
        for package in kept.glob(f"{name}_*.deb"):
            _quiet(["dpkg", "--extract", package.name, "."], kept)
            package.unlink()
        return str(unpacked) if unpacked.exists() else None
    if is_root:
        _quiet(["apt-get", "install", "-y", "-qq", "--no-install-recommends", name])
    return shutil.which(name)


def _quiet(command: list[str], folder: Path | None = None) -> None:
    """Run a command, and show what it says only where it fails; what is missing then is told by the caller."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ran = subprocess.run(command, capture_output=True, check=False, cwd=folder, encoding="utf-8", env=environment)
    if ran.returncode:
        print(ran.stderr.strip(), file=sys.stderr)
