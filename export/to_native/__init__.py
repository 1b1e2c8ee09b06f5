"""Network → `.elm`, the native format that the C engine steps."""

from .writer import native_step_file

__all__ = ["native_step_file"]
