"""What runs on a host of the laboratory, as a process of it: `python -m bench.inside.NAME`."""
