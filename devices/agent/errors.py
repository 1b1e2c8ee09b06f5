"""What the agent cannot do."""

from __future__ import annotations


class RefusedError(Exception):
    """What cannot be done, in words."""
