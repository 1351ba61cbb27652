"""Install `edgeasr listen` as a service of a real systemd, stop it, kill it, look at its sandbox. Run by `make soak`.

The systemd is one of our own, in name spaces of its own: it starts nothing but what is installed here, and nothing of
it is left. It needs root; without it, or without systemd, the reason is printed and that is all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).parents[1]
CLIP = REPOSITORY / "edgeasr" / "models" / "demo.flac"
UNIT = "edgeasr-listen"
SYSTEMD = "/lib/systemd/systemd"
PATIENCE_S = 120.0
WATCHDOG_S = 4
TARGETS = ("basic", "sysinit", "multi-user", "shutdown", "paths", "slices", "sockets", "timers", "umount", "sound")

# What this installation is made of in home folders is there as well, but anybody may read it.
START = """
set -e
mount --make-rprivate /
{keep}
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
mkdir -p /run/systemd/system /run/lock /run/units
for state in /var/lib/private /var/cache/private; do mkdir -p $state; mount -t tmpfs -o mode=700 tmpfs $state; done
mount -o bind,ro /sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
for name in {targets}; do printf '[Unit]\\nDefaultDependencies=no\\n' > /run/units/$name.target; done
export container=other SYSTEMD_UNIT_PATH=/run/units:/etc/systemd/system
exec {systemd} --system --unit=basic.target --log-target=null --show-status=no
"""
# Run for every final: says what it could do.
PROBE = """
for folder in / /etc /home /root /usr /var; do touch $folder/.owned 2>/dev/null && echo writes $folder; done
id -nG | grep -qw audio && echo sound
grep -q 'CapBnd:.*[1-9a-f]' /proc/self/status && echo capable
grep -q 'Seccomp:.*2' /proc/self/status && echo filtered
python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)' 2>/dev/null && echo packets
true
"""


class Manager:
    """The systemd, and commands that are run where it is."""

    def __init__(self, folder: Path) -> None:
        script = START.format(keep=_keep(folder), targets=" ".join(TARGETS), systemd=SYSTEMD)
        spaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child"]
        self._process = subprocess.Popen(
            ["unshare", *spaces, "bash", "-c", script], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_until(self._runs, "systemd")

    def _runs(self) -> bool:
        assert self._process.poll() is None, self._process.stderr.read().decode()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._pid = children[0] if children else ""
        return bool(self._pid) and self.run("systemctl", "is-system-running").stdout.strip() == "running"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command, run where the systemd is."""
        inside = ["nsenter", "-t", self._pid, "-m", "-p", "-i", "-C", "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    def edgeasr(self, command: str, *arguments: str) -> None:
        """`edgeasr service` of the system. errors: AssertionError where it fails"""
        program = str(Path(sys.executable).with_name("edgeasr"))
        done = self.run(program, "service", command, "--system", *arguments)
        assert done.returncode == 0, done.stderr

    def property(self, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", UNIT).stdout.strip()

    def signal_service(self, number: signal.Signals) -> float:
        """Seconds until another process is ready in its place."""
        before, began_s = self.property("MainPID"), time.monotonic()
        self.run("kill", f"-{number.name.removeprefix('SIG')}", before)
        wait_until(
            lambda: self.property("MainPID") not in ("0", before) and self.property("ActiveState") == "active",
            f"the service to be back after {number.name}",
        )
        return time.monotonic() - began_s

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()


def _keep(folder: Path) -> str:
    """Commands that put open folders in the place of closed ones, with what is needed of them inside."""
    parts = {Path(part) for part in (sys.base_prefix, sys.prefix, REPOSITORY)}
    parts = {part for part in parts if part.parts[1] in ("root", "home")}
    parts = {part for part in parts if not parts & set(part.parents)}
    aside = {part: folder / f"kept{number}" for number, part in enumerate(sorted(parts))}
    lines = [f"mkdir {place} && mount --bind {part} {place}" for part, place in aside.items()]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs /{top}" for top in sorted({part.parts[1] for part in parts})]
    lines += [f"mkdir -p {part} && mount --move {place} {part}" for part, place in aside.items()]
    return "\n".join(lines)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """errors: AssertionError after PATIENCE_S"""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(0.05)


def missing() -> str:
    """Why this cannot be done here; empty where it can."""
    if os.geteuid():
        return "it needs root"
    needed = ("unshare", "nsenter", "systemctl", SYSTEMD)
    return next((f"{name} is not installed" for name in needed if shutil.which(name) is None), "")


def tried(folder: Path) -> dict[str, object]:
    """What was seen. errors: AssertionError"""
    samples, rate_hz = soundfile.read(CLIP, dtype="float32")
    recording, probe, could = folder / "long.flac", folder / "probe.sh", folder / "open" / "could"
    soundfile.write(recording, np.tile(np.concatenate([samples, np.zeros(rate_hz, np.float32)]), 60), rate_hz)
    probe.write_text(PROBE)
    could.parent.mkdir()
    could.parent.chmod(0o777)
    folder.chmod(0o755)
    listen = ("--source", str(recording), "--real-time", "--json", "--remember")
    listen += ("--exec", f"sh -c 'sh {probe} > {could}.new; mv {could}.new {could}'")
    manager = Manager(folder)
    try:
        began_s = time.monotonic()
        manager.edgeasr(
            *("install", "--watchdog", str(WATCHDOG_S), "--writable", str(could.parent), "listen", "--", *listen)
        )
        wait_until(lambda: manager.property("ActiveState") == "active", "the service")
        ready_s = time.monotonic() - began_s
        wait_until(lambda: manager.property("StatusText").startswith("heard"), "a sign of recognition")
        wait_until(could.exists, "a final")
        stopped_s = manager.signal_service(signal.SIGSTOP)
        killed_s = manager.signal_service(signal.SIGKILL)
        restarts = manager.property("NRestarts")
        manager.edgeasr("status")
        state = manager.run("ls", "/var/lib/private/edgeasr").stdout
        manager.edgeasr("uninstall")
        left = manager.property("LoadState")
    finally:
        manager.close()
    assert "memory.db" in state
    found = could.read_text().split()
    assert found == ["sound", "filtered"], f"what it starts could do {found}"
    assert (restarts, left) == ("2", "not-found")
    return {
        "installed_and_ready_s": round(ready_s, 2),
        "back_after_a_standstill_s": round(stopped_s, 2),
        "watchdog_s": WATCHDOG_S,
        "back_after_a_kill_s": round(killed_s, 2),
        "what_it_starts_has": found,
    }


def main() -> None:
    """Print one JSON object."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    reason = missing()
    if reason:
        print(json.dumps({"skipped": reason}))
        return
    with tempfile.TemporaryDirectory(dir="/srv") as folder:
        print(json.dumps(tried(Path(folder))))


if __name__ == "__main__":
    main()
