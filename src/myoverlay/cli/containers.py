"""Containers by name, for the one command that lets people say a container's. The only place that asks Docker."""

from __future__ import annotations

import os

from myoverlay.errors import Refused, Unavailable, Unknown

#: Seconds that Docker may take to answer.
PATIENCE = 10


class Stopped(Refused):
    """The container has no process, and so no namespace: whatever was attached to it is gone."""


def pid_of(name: str) -> int:
    """The first process of a running container, by its name or id. Raises Unknown, Stopped and Unavailable."""
    import docker
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import RequestException

    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        client = docker.from_env(timeout=PATIENCE)
        try:
            state = client.api.inspect_container(name)["State"]
        finally:
            client.close()
    except NotFound:
        raise Unknown(f"there is no container {name}, and no network namespace of that name") from None
    except APIError as error:
        raise Refused(f"Docker at {where} says of {name}: {error.explanation or error}") from None
    except (DockerException, RequestException, OSError) as error:
        raise Unavailable(
            f"{name} is no network namespace, and whether it is a container cannot be told:"
            f" Docker at {where} does not answer ({_cause(error)})"
        ) from None
    pid = int(state.get("Pid") or 0)
    if not pid:
        raise Stopped(f"container {name} does not run ({state.get('Status', 'stopped')}): start it first")
    return pid


def _cause(error: BaseException) -> str:
    """The innermost reason in the system's words: the libraries nest theirs."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error)
