"""The resolver: a process of its own, one thread, told by the daemon what there is and given its sockets by it."""
