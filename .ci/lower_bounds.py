"""Print the lower bound of each direct requirement as `name==version`, or of one by name; torch and triton are README's."""

import re
import sys
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
lines = [*project["dependencies"], *project["optional-dependencies"]["gguf"], *project["optional-dependencies"]["peft"]]
bounds = {}
for line in lines:
    name, bound = re.match(r"([\w.-]+)(?:\[.*?\])?\s*[>=]=\s*([^,;\s]+)", line).groups()
    bounds[name] = bound
if len(sys.argv) > 1:
    print(bounds[sys.argv[1]])
else:
    print("\n".join(f"{name}=={bound}" for name, bound in bounds.items() if name not in ("torch", "triton")))
