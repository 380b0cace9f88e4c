"""What one change costs a watching host, against the size of the overlay: `make bench-scale`.

Real: Consul, its protocol, the whole daemon of each watching host and its resolver's process. On paper: the kernel of
the watching hosts, and the hosts that write, which are the store's real code without a daemon.
"""
