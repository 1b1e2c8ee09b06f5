"""`edgelstm sign`: puts a signature into a bundle, by the system's ssh-keygen."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from ..runtime.bundle import MANIFEST, Bundle, Manifest, add_signature, read_manifest
from ..runtime.errors import InputError
from ..runtime.signature import NAMESPACE, sign_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, help="a bundle (.edge or folder); an older signature in it is replaced")
    parser.add_argument(
        "--key",
        type=Path,
        default=Path("~/.ssh/id_ed25519"),
        metavar="FILE",
        help="an SSH key; a public one's private key may be in the agent (default ~/.ssh/id_ed25519)",
    )
    parser.add_argument(
        "--counter",
        type=int,
        metavar="N",
        help="a board takes no bundle of this name with a smaller one than the last (default: the time in seconds)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    key = args.key.expanduser()
    bundle = Bundle(args.model, Manifest.from_bytes(read_manifest(args.model), str(args.model)))
    for entry in bundle.manifest.files:
        bundle.read(entry)  # Sign nothing that is damaged.
    counter = args.counter
    if counter is None:  # Grows from export to export too, without a place where the last one is kept.
        counter = max(bundle.manifest.counter + 1, int(time.time()))
    if not 0 <= counter < 2**63:
        raise InputError(f"--counter {counter}: a whole number from 0 to 2⁶³ - 1")
    manifest = replace(bundle.manifest, counter=counter).to_bytes()
    add_signature(args.model, manifest, sign_manifest(manifest, key))
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    line = f'you@example.com namespaces="{NAMESPACE}" {_public(public)}'
    if args.json:
        print(json.dumps({"bundle": str(args.model), "key": str(key), "signed": MANIFEST, "counter": counter}))
        return 0
    trusted = "A board trusts it whose file of allowed signers has the line"
    print(f"signed {args.model}, counter {counter}. {trusted}\n\n{line}")
    return 0


def _public(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8").split()[:2])
    except (OSError, UnicodeDecodeError):
        return "(the public key)"
