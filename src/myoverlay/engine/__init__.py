"""Docker asked over its socket, in the background alone: never inside one of its calls, and never waited for."""
