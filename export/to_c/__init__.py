"""The `c` format: a folder of C sources that compiles anywhere and holds a model, the engine and a self-test."""

from .project import CProject, export_c, is_c_folder, read_for_c

__all__ = ["CProject", "export_c", "is_c_folder", "read_for_c"]
