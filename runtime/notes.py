"""What a command says beside its output."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Say something on standard error that is no error."""
    print(f"edgelstm: note: {text}", file=sys.stderr, flush=True)
