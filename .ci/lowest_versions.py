"""Print pip constraints: the lowest version of every dependency that pyproject.toml allows to the toolkit."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
lowest: dict[str, str] = {}
# The toolkit's bounds come last: TensorFlow takes a later NumPy than the runtime alone.
for requirement in (*project["dependencies"], *project["optional-dependencies"]["toolkit"]):
    bound = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
    if bound is None:
        sys.exit(f"{requirement}: a dependency of the toolkit is written name>=version, the lowest that is tested")
    lowest[bound[1]] = bound[2]
for name, version in lowest.items():
    print(f"{name}=={version}")
