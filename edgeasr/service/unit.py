"""The text of a systemd unit that hears for months and may do little else (systemd.exec(5), systemd.service(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeasr.errors import ServiceError

Scope = Literal["system", "user"]

MARK = "# Written by `edgeasr service install`; changes belong into `systemctl edit`."
STATE_FOLDER = "edgeasr"
AUDIO_GROUP, SERIAL_GROUP = "audio", "dialout"
_RUNTIME = Path("/run")

# Not MemoryDenyWriteExecute: libffi, through which PortAudio calls back, writes code on some machines.
_HARDENED = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectHostname=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077"""
# What a user's manager has no right to: a unit with these does not start there.
_HARDENED_SYSTEM = """\
CapabilityBoundingSet=
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectProc=invisible
KeyringMode=private
RemoveIPC=yes
DevicePolicy=closed
DeviceAllow=char-alsa rw"""
_SERIAL_DEVICES = ("char-ttyACM", "char-ttyUSB", "char-ttyAMA", "char-ttyS")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A service.

    program:    what is started, the program's absolute path first
    arguments:  of it: a command and its options
    scope:      whose manager runs it
    run_as:     in the system's manager: a user; None for one that is made up while it runs
    groups:     that it is in beside its own: sound, serial links
    writable:   folders that it may write to, beside those that the manager makes for it
    read_home:  whether it reads something in a home folder, which it otherwise does not see
    network:    whether it may speak to others than programs on this machine that have a socket file
    online:     whether these may be other machines, so that it starts once the network is there
    serial:     whether it may use serial links
    watchdog_s: without a sign that recognition goes on, after which it is ended and started again
    memory_mb:  above which it is ended and started again
    quiet:      whether what is said is kept out of the journal
    """

    name: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    scope: Scope = "user"
    run_as: str | None = None
    groups: tuple[str, ...] = ()
    writable: tuple[Path, ...] = ()
    read_home: bool = True
    network: bool = False
    online: bool = False
    serial: bool = False
    watchdog_s: float = 30.0
    memory_mb: int = 512
    quiet: bool = False

    def __post_init__(self) -> None:
        if not self.name or not all(char.isascii() and (char.isalnum() or char in "-_.") for char in self.name):
            raise ServiceError(f"got the name {self.name!r} for a service, wanted letters, digits, - and _")
        if self.run_as is not None and self.scope == "user":
            raise ServiceError("got a user to run as for a service of a user: it runs as that user")

    @property
    def file_name(self) -> str:
        return f"{self.name}.service"

    def text(self) -> str:
        """The file."""
        system = self.scope == "system"
        sections = [
            MARK,
            "[Unit]",
            f"Description=edgeasr {self.arguments[0]}: speech recognition on this device",
            *self._order(),
            # A microphone may be unplugged for days.
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            *self._process(),
            "",
            *(self._identity() if system else ()),
            *self._folders(),
            f"ProtectHome={'read-only' if self.read_home else 'yes'}",
            f"RestrictAddressFamilies=AF_UNIX{' AF_INET AF_INET6 AF_NETLINK' if self.network else ''}",
            *(["PrivateNetwork=yes"] if system and not self.network else []),
            _HARDENED,
            *([_HARDENED_SYSTEM] if system else []),
            *([f"DeviceAllow={device} rw" for device in _SERIAL_DEVICES] if system and self.serial else []),
            "",
            "[Install]",
            f"WantedBy={'multi-user' if system else 'default'}.target",
        ]
        return "".join(f"{line}\n" for line in sections)

    def _order(self) -> list[str]:
        after = ["sound.target"] if self.scope == "system" else ["pipewire.socket", "pulseaudio.socket"]
        if self.online and self.scope == "system":
            return [f"After={' '.join([*after, 'network-online.target'])}", "Wants=network-online.target"]
        return [f"After={' '.join(after)}"]

    def _process(self) -> list[str]:
        return [
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={' '.join(quoted(word) for word in (*self.program, *self.arguments))}",
            f"SyslogIdentifier={self.name}",
            *(["StandardOutput=null"] if self.quiet else []),
            "Restart=on-failure",
            "RestartSec=1",
            # 2 is bad input, such as an unknown option, which does not go away by itself.
            "RestartPreventExitStatus=2",
            f"WatchdogSec={self.watchdog_s:g}",
            "TimeoutStartSec=120",
            "TimeoutStopSec=20",
            f"MemoryMax={self.memory_mb}M",
            "TasksMax=128",
        ]

    def _identity(self) -> list[str]:
        lines = ["DynamicUser=yes" if self.run_as is None else f"User={self.run_as}"]
        return lines + [f"SupplementaryGroups={group}" for group in self.groups]

    def _folders(self) -> list[str]:
        lines = [f"ReadWritePaths=-{quoted(str(path))}" for path in self.writable]
        if self.scope == "system" and self.arguments[0] == "serve":
            # For the socket of --wyoming; the manager removes it when the service ends.
            lines += [f"RuntimeDirectory={self.name}"]
        if self.scope == "system" and self.run_as is None:
            lines += [
                f"StateDirectory={STATE_FOLDER}",
                f"CacheDirectory={STATE_FOLDER}",
                "StateDirectoryMode=0700",
                "CacheDirectoryMode=0700",
                "Environment=XDG_DATA_HOME=%S XDG_CACHE_HOME=%C HOME=%S/edgeasr",
            ]
        return lines


def runtime_folder(name: str) -> Path:
    """Which a service of the system has while it runs, to put its sockets into. name: of the service"""
    return _RUNTIME / name


def quoted(word: str) -> str:
    """A word of a command line as systemd reads it back. errors: ServiceError for what cannot be written"""
    if any(ord(char) < 32 and char not in "\n\t" for char in word):
        raise ServiceError(f"got {word!r} for a service, wanted text without control characters")
    plain = word.replace("%", "%%").replace("$", "$$")
    if word and all(char.isalnum() or char in "-_./:=@,+%$" for char in word):
        return plain
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        plain = plain.replace(char, escaped)
    return f'"{plain}"'
