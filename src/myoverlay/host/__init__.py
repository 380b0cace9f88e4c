"""What this host holds and does: all state, all locks, all loops."""
