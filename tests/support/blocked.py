"""Code for a process that has to do without some modules."""

# Refuses the modules that the first argument names, as a machine does that lacks them.
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split())
sys.meta_path.insert(0, Blocker())
for name in BLOCKED:
    assert name not in sys.modules, name
"""
