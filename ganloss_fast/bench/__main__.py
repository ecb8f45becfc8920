"""``python -m ganloss_fast.bench``."""

from __future__ import annotations

import importlib.util
import sys

INTERRUPTED = 130
NEEDED = ("rich", "jinja2", "matplotlib")


def main() -> int:
    """The command, or one line about what it is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        print(f"ganloss-bench needs {names}: pip install {names}", file=sys.stderr)
        return 2
    try:  # the imports take seconds, too
        from ganloss_fast.bench import command

        return command.main()
    except KeyboardInterrupt:
        print("ganloss-bench: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
