"""`python3 -m myoverlay` is `myoverlay`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The program. `serve`, which stays, is begun without the words' library: what its first process loads stays."""
    if sys.argv[1:] == ["serve"]:
        from myoverlay.cli import serve

        serve.begin(os.environ)
    else:
        from myoverlay.cli.main import main as speak

        speak()


if __name__ == "__main__":
    main()
