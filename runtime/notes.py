"""What a command says beside its output: in a few words, whatever it quotes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# Characters of what is quoted, names of a list, and characters of all that is said at once.
_QUOTED, _LISTED, _SAID = 60, 20, 4000


def note(text: str) -> None:
    """Say something on standard error that is no error."""
    print(f"edgelstm: note: {shortened(text)}", file=sys.stderr, flush=True)


def quoted(value: object) -> str:
    """A value as it is quoted in a message: its beginning, where there is much of it."""
    if isinstance(value, str):
        more = f"… ({len(value):,} characters)" if len(value) > _QUOTED else ""
        return repr(value[:_QUOTED]) + more
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # A whole number of too many digits, lists in lists in lists.
        return f"such a {type(value).__name__}"
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def listed(names: Sequence[object]) -> str:
    """Names as they are listed in a message: the first of them, where there are many."""
    text = ", ".join(map(quoted, names[:_LISTED]))
    return text if len(names) <= _LISTED else f"{text}, … ({len(names):,} in all)"


def shortened(text: str) -> str:
    """What is said: never more than a reader would read."""
    return text if len(text) <= _SAID else f"{text[:_SAID]}… ({len(text):,} characters)"
