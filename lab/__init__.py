"""The laboratory: several real Docker engines of different age on one machine, each on a host of its own.

Start at `lab.lab.Lab`. A *host* here is one process tree in namespaces of its own (network, mount, UTS, IPC, PID,
cgroup); nothing of it lives anywhere but below `.lab/` and in the kernel objects its first process holds.
"""

from lab.errors import LabError
from lab.lab import HostSpec, Lab, attach

__all__ = ["HostSpec", "Lab", "LabError", "attach"]
