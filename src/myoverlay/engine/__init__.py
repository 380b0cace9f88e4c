"""What is asked of Docker's own API: in the background only, never while Docker waits for an answer of ours."""
