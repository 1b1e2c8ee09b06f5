"""Small files that say by themselves whether they are still what was written: JSON with its own SHA-256.

Power cuts, worn cards and programs of others change files. What is read back here is what was written, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SUM = "sha256"


def seal(content: Mapping[str, Any]) -> bytes:
    """JSON in one line, its last member the SHA-256 of what it is without that one."""
    return (json.dumps({**content, _SUM: _digest(content)}) + "\n").encode()


def unseal(data: bytes) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: it is not what `seal` wrote.
    """
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("not the JSON that was written") from error
    if not isinstance(content, dict) or _SUM not in content:
        raise ValueError("not what was written")
    del content[_SUM]
    if seal(content) != data:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError("its SHA-256 differs")
    return content  # pyright: ignore[reportUnknownVariableType]


def _digest(content: Mapping[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
