"""Write the pinned list of the broker's jars, with the sha256 of each, after a look at what changed.

.venv/bin/python scripts/pin_jars.py
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from easyremote.deploy.jars import ENDPOINT, PINS_FILE, resolve_jars


def main() -> int:
    old = json.loads(PINS_FILE.read_text()) if PINS_FILE.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        new = {
            jar.name: hashlib.sha256(jar.read_bytes()).hexdigest()
            for jar in sorted(resolve_jars(Path(cache)), key=lambda path: path.name)
        }
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}")
    PINS_FILE.write_text(json.dumps(new, indent=1) + "\n")
    print(f"{ENDPOINT}: {len(new)} jars pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
