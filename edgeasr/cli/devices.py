"""`edgeasr devices`: boards that are known, and the one that this is."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.terminal import print_note, write_out

if TYPE_CHECKING:
    from edgeasr.devices.profile import DeviceProfile

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

devices = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Boards that are known, and this one.")


@devices.command("list")
def list_devices(json: Json = False) -> None:
    """Print every board that has a profile; the DRAM's GB/s are what one thread reads and writes."""
    from edgeasr.devices.profile import device_profiles

    profiles = device_profiles()
    if json:
        write_out(jsonlib.dumps([profile.to_dict() for profile in profiles]) + "\n")
        return
    write_out("".join(f"{line}\n" for line in _list_lines(profiles)))


@devices.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `edgeasr devices list` has it.")], json: Json = False
) -> None:
    """Print what is known of a board, and where it is known from."""
    from edgeasr.devices.profile import device_profile

    profile = device_profile(name)
    write_out(_json(profile.to_dict()) if json else _show_text(profile))


@devices.command()
def detect(json: Json = False) -> None:
    """Print the profile of this machine; of an unknown one, the nearest, with what the kernel says of it."""
    from edgeasr.devices.detect import detect as detect_device

    found = detect_device()
    if json:
        write_out(_json({"known": found.known, "notes": list(found.notes), "profile": found.profile.to_dict()}))
        return
    for note in found.notes:
        print_note(note)
    write_out(_show_text(found.profile))


def _json(values: dict[str, Any]) -> str:
    return jsonlib.dumps(values, allow_nan=False) + "\n"


def _list_lines(profiles: tuple[DeviceProfile, ...]) -> list[str]:
    from edgeasr.cli.columns import columns

    rows = [("name", "cores", "GHz", "core", "memory", "DRAM GB/s", "set up with", "board")]
    for one in profiles:
        set_up = one.recommended
        rows.append(
            (
                one.name,
                str(one.cores),
                f"{one.clock_hz / 1e9:.2f}",
                one.core,
                _memory(one),
                f"{one.dram_gb_per_s:.1f}",
                f"{set_up.preset} {set_up.precision}",
                one.title,
            )
        )
    return columns(rows, "<>><>><<")


def _memory(profile: DeviceProfile) -> str:
    sizes = [size / 2**30 for size in profile.memory_bytes]
    span = f"{sizes[0]:.2g}" if len(sizes) == 1 else f"{sizes[0]:.2g}-{sizes[-1]:.2g}"
    return f"{span} GB"


def _show_text(profile: DeviceProfile) -> str:
    from edgeasr.cli.columns import columns

    bandwidth, arithmetic, set_up = profile.bandwidth, profile.arithmetic, profile.recommended
    rows = [
        ("name", profile.name),
        ("board", profile.title),
        ("chip", profile.soc),
        ("cores", f"{profile.cores} x {profile.core}, {profile.clock_hz / 1e9:.2f} GHz, {profile.architecture}"),
        ("memory", _memory(profile)),
        *((f"cache L{level.level}", _cache(level.size_bytes, level.shared_by)) for level in profile.caches),
        ("bandwidth", f"{bandwidth.theoretical_gb_per_s:g} GB/s by its bus"),
        ("", f"memcpy {bandwidth.memcpy_mb_per_s:g} MB/s, memset {bandwidth.memset_mb_per_s:g} MB/s, one thread"),
        ("", f"{profile.dram_gb_per_s:.1f} GB/s of one thread, since what memcpy copies is read and written"),
        (
            "arithmetic",
            f"{arithmetic.fp32_flops_per_cycle} fp32, {arithmetic.int8_ops_per_cycle} int8 a core and cycle",
        ),
        ("7-zip rating", f"{arithmetic.single_thread_mips} MIPS, one thread"),
        ("features", _features(profile.features)),
        ("set up with", f"{set_up.backend}, {set_up.preset} {set_up.precision}, chunks of {set_up.chunk_ms} ms"),
        ("", f"{set_up.threads} thread{'s' * (set_up.threads > 1)}"),
        ("power", profile.power),
        ("sources", f"caches: {profile.sources.caches}"),
        ("", f"bandwidth: {profile.sources.bandwidth}"),
        ("", f"arithmetic: {profile.sources.arithmetic}"),
        ("", f"set up with: {profile.sources.recommended}"),
    ]
    return "".join(f"{line}\n" for line in columns(rows, "<<"))


# Those that decide how fast matrix products are.
_SHOWN = ("asimd", "asimdhp", "asimddp", "i8mm", "sve", "neon", "avx2", "avx512f", "avx512_vnni", "avx_vnni")


def _features(features: tuple[str, ...]) -> str:
    return ", ".join(feature for feature in _SHOWN if feature in features) or "none that matter here"


def _cache(size_bytes: int, shared_by: int) -> str:
    return f"{size_bytes / 1024:g} KB {'a core' if shared_by == 1 else f'for {shared_by} cores'}"
