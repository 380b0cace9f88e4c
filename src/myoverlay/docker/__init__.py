"""Docker's words in, Docker's words out. This room decides nothing."""
