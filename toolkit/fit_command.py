"""`edgelstm fit`: what of a bundle can run on which device, what it needs there, and why the rest cannot."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ..devices import DeviceProfile, Fit, find_profile, fit, profiles
from ..runtime.bundle import Bundle
from ..runtime.table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder)")
    parser.add_argument(
        "--device", default="all", metavar="NAME", help="of `edgelstm devices`, a .toml file, or all (default)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; exit status 1 if nothing of the bundle can run on the device that was asked for."""
    bundle = Bundle.open(args.model)
    chosen = list(profiles().values()) if args.device == "all" else [find_profile(args.device)]
    fits = {profile.id: fit(bundle, profile) for profile in chosen}
    runs = any(not each.problem for found in fits.values() for each in found)
    if args.json:
        described = {name: [asdict(each) for each in found] for name, found in fits.items()}
        print(json.dumps({"bundle": str(bundle.path), "devices": described}))
    elif args.device == "all":
        _show_all(chosen, fits)
    else:
        _show_one(chosen[0], fits[chosen[0].id])
    return 0 if runs else 1


def _show_all(chosen: list[DeviceProfile], fits: dict[str, list[Fit]]) -> None:
    rows: list[list[str]] = []
    for profile in chosen:
        good = [each for each in fits[profile.id] if not each.problem]
        best = next((each for each in good if each.microseconds is not None), None)
        estimate = "" if best is None else f"{best.artifact} {_time(best.microseconds)}"
        rows.append([profile.id, _grouped(good) or "nothing", estimate])
    print(table(["device", "what can run there", "fastest step (estimate)"], rows))
    print("\n`edgelstm fit BUNDLE --device NAME` gives bytes, the basis of the estimates, and why the rest cannot.")


def _grouped(fits: list[Fit]) -> str:
    """Such as `native float32 float16, onnx float32`."""
    groups: dict[str, list[str]] = {}
    for each in fits:
        format_, _, rest = each.artifact.partition(" ")
        groups.setdefault(format_, []).append(rest)
    return ", ".join(f"{format_} {' '.join(precisions)}" for format_, precisions in groups.items())


def _show_one(profile: DeviceProfile, fits: list[Fit]) -> None:
    print(f"{profile.name}: {profile.processor}, {profile.clock_hz / 1e6:,.0f} MHz\n")
    good = [each for each in fits if not each.problem]
    rows = [
        [
            each.artifact,
            f"{each.flash:,}",
            "" if each.ram is None else f"{each.ram:,}",
            f"{each.state:,}",
            "" if each.instructions is None else f"{each.instructions:,}",
            _time(each.microseconds),
        ]
        for each in good
    ]
    if rows:
        print(table(["can run", "flash", "RAM a stream", "of it state", "instructions a step", "estimated step"], rows))
        for basis in dict.fromkeys(each.basis for each in good if each.basis):
            print(f"\n{basis}")
    bad = [[each.artifact, each.problem] for each in fits if each.problem]
    if bad:
        print(("\n" if rows else "") + table(["cannot", "why"], bad))
    print(f"\n{profile.notes}")


def _time(microseconds: float | None) -> str:
    if microseconds is None:
        return ""
    return f"{microseconds:.1f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"
