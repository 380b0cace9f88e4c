"""What should be: pure functions from values to values. No I/O, clock, thread or log in this room."""
