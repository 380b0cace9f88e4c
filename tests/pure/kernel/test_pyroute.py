"""What of pyroute2 is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.pure.house.source import PACKAGE

ENVIRON = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def test_it_is_loaded_without_what_it_does_not_use() -> None:
    """The parts for databases, wireless and the like are left out, and what it would be tested with; whoever asks for
    these has all of them.
    """
    code = (
        "import sys; from myoverlay.kernel import pyroute\n"
        "assert not {'pyroute2', 'pyroute2.ndb', 'pyroute2.netlink.nl80211', 'pyroute2.plan9'} & set(sys.modules)\n"
        "assert not {'unittest', 'unittest.mock'} & set(sys.modules)\n"
        "import unittest.mock; assert unittest.TestCase and unittest.mock.Mock().anything().more\n"
        "import pyroute2; assert pyroute2.IPRoute is pyroute.IPRoute\n"
        "from pyroute2.netlink.exceptions import NetlinkError\n"
        "assert pyroute2.NDB and NetlinkError is pyroute.NetlinkError\n"
        "pyroute2.IPRSocket().close()"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRON, check=True, timeout=60)


def test_it_is_the_real_one_where_that_is_there_already() -> None:
    """A program that has loaded pyroute2 before keeps it as it was."""
    code = (
        "import pyroute2, sys; from myoverlay.kernel import pyroute\n"
        "assert pyroute2.IPRoute is pyroute.IPRoute; assert sys.modules['pyroute2'] is pyroute2"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRON, check=True, timeout=60)
