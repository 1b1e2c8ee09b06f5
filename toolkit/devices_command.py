"""`edgelstm devices`: the targets that are known."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ..devices import DeviceProfile, find_profile, profiles
from ..runtime.table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("device", nargs="?", help="one of them, with the source of every figure; or a .toml file")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.device is not None:
        profile = find_profile(args.device)
        print(json.dumps(asdict(profile)) if args.json else _whole(profile))
        return 0
    known = list(profiles().values())
    if args.json:
        print(json.dumps({"devices": [asdict(profile) for profile in known]}))
        return 0
    rows = [
        [
            p.id,
            p.processor,
            f"{p.clock_hz / 1e6:,.0f}",
            size(p.ram),
            size(p.flash) or "file system",
            ", ".join(p.formats),
        ]
        for p in known
    ]
    print(table(["device", "processor", "MHz", "RAM", "flash", "formats"], rows))
    return 0


def size(n: int) -> str:
    """Bytes in the unit that devices are sold by; empty for none."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:g} {name}"
    return ""


def _whole(profile: DeviceProfile) -> str:
    lines = [f"{profile.name} ({profile.id})", ""]
    for key, value in asdict(profile).items():
        if key in ("id", "name", "notes", "sources") or value in ("", ()):
            continue
        text = ", ".join(value) if isinstance(value, tuple) else f"{value:,}" if isinstance(value, int) else str(value)
        lines.append(f"{key:<14}{text}")
        if key in profile.sources:
            lines.append(f"{'':<14}  source: {profile.sources[key]}")
    return "\n".join([*lines, "", profile.notes])
