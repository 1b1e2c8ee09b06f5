"""`edgelstm sign`: puts a signature into a bundle, by the system's ssh-keygen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..runtime.bundle import MANIFEST, Bundle, Manifest, add_signature, read_manifest
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


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    key = args.key.expanduser()
    manifest = read_manifest(args.model)
    bundle = Bundle(args.model, Manifest.from_bytes(manifest, str(args.model)))
    for entry in bundle.manifest.files:
        bundle.read(entry)  # Sign nothing that is damaged.
    add_signature(args.model, sign_manifest(manifest, key))
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    line = f'you@example.com namespaces="{NAMESPACE}" {_public(public)}'
    if args.json:
        print(json.dumps({"bundle": str(args.model), "key": str(key), "signed": MANIFEST}))
        return 0
    print(f"signed {args.model}. A board trusts it whose file of allowed signers has the line\n\n{line}")
    return 0


def _public(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8").split()[:2])
    except (OSError, UnicodeDecodeError):
        return "(the public key)"
