"""The example's two images, out of Debian packages of this machine's suite; no registry and no Docker is needed.

    python3 examples/compose/images.py [FOLDER]     writes shop-db.tar and shop-web.tar, for `docker load --input`

Run from the repository. Signatures of the packages are checked by apt; nothing is installed on the machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])] if __name__ == "__main__" else []

from lab.packed import Packed  # noqa: E402

IMAGES = (
    Packed(
        "shop/db",
        packages=("redis-server", "busybox-static"),
        command=("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/var/lib/redis"),
        folders=("var/lib/redis",),
    ),
    Packed(
        "shop/web",
        packages=("python3", "busybox-static"),
        files={"srv/web.py": Path(__file__).with_name("web.py")},
        command=("python3", "-u", "/srv/web.py"),
        stop_signal="SIGINT",  # Python as process 1 ignores SIGTERM
    ),
)


def build(folder: Path) -> list[Path]:
    """Write both, or find them there as they should be."""
    return [image.build(folder) for image in IMAGES]


if __name__ == "__main__":
    for file in build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/images")):
        print(file)
