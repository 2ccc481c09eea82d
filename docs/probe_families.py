"""Try on small random models what every family can, and write it to families.json.

The README's table is made from that file, and a test compares it with what it finds itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "families.json"
sys.path.insert(0, str(ROOT / "tests" / "support"))


def main() -> None:
    """Write the table."""
    from capabilities import CAPABILITIES, can

    from prumerge.catalogue import families

    found = {name: {each: can(name, each) for each in CAPABILITIES} for name in families()}
    TABLE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
