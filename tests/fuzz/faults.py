"""Bugs that are planted into the decoders, in memory: the fuzzing must find each of them."""

from __future__ import annotations

from typing import NamedTuple

from tests.fuzz.run import BLOCK, Finding, block
from tests.pure.model.faults import Fault, plant

#: Blocks that a bug may take to be found.
BLOCKS = 80


class Planted(NamedTuple):
    """A bug in the decoders of a target."""

    target: str
    fault: Fault


FAULTS = {
    "a body that is nested without end is a bug of ours": Planted(
        "http", Fault("docker.wire", "    except (ValueError, RecursionError) as error:", "    except ValueError as error:")
    ),
    "the gateway is not looked at": Planted(
        "http", Fault("docker.driver", "if gateway is not None and not subnet.is_host(gateway):", "if False:")
    ),
    "an endpoint's cable stays": Planted(
        "http", Fault("docker.driver", "            gone = local.delete_endpoint(call.endpoint, deadline)", "            gone = None")
    ),
    "a VNI is read by whatever name": Planted(
        "records", Fault("store.records", "            if not _VNI.fullmatch(vni):", "            if False:")
    ),
    "one bad key stops the reader": Planted(
        "records", Fault("store.typed", "        except ValueError as error:", "        except TypeError as error:")
    ),
    "what Consul says is read until the stack ends": Planted(
        "records",
        Fault(
            "store.consul",
            "except (ConsulException, msgspec.MsgspecError, ValueError, RecursionError):",
            "except (ConsulException, msgspec.MsgspecError, ValueError):",
        ),
    ),
    "a message may reach over the end": Planted(
        "netlink", Fault("kernel.neigh", "len(raw) not in (4, 16)", "len(raw) not in (4, 5, 16)")
    ),
    "a member of no length goes on for ever": Planted(
        "netlink",
        Fault("kernel.rtnetlink", "        if length < ATTRIBUTE.size or start + length > len(raw):", "        if start + length > len(raw):"),
    ),
    "an address that is cut off is read": Planted(
        "netlink", Fault("kernel.underlay", "        if len(body) < IFADDR.size:\n            continue\n", "")
    ),
    "whoever answers is believed": Planted(
        "frames", Fault("kernel.frames", "    if not to == target == us.packed or by != sender", "    if by != sender")
    ),
    "an echo's length is not looked at": Planted(
        "frames", Fault("kernel.frames", " or _ETHERNET.size + length > len(frame):", ":")
    ),
    "an unknown host is heard": Planted(
        "probe",
        Fault(
            "kernel.probe",
            "            if answer is not None and answer in self._known:\n                heard.append(Heard(self._known[answer]))",
            "            if answer is not None:\n                heard.append(Heard(self._known.get(answer, self.me)))",
        ),
    ),
    "a short ping is read": Planted(
        "probe", Fault("kernel.ping", "    if len(packet) < start + _ECHO.size:\n        return set()\n", "")
    ),
    "an answer is answered": Planted("dns", Fault("names.questions", "    if flags & _QR:\n        return None\n", "")),
    "more is said than fits": Planted(
        "dns", Fault("names.questions", "fitting = max(0, room - bare) // (2 + 10 + 4)", "fitting = max(0, 65535 - bare) // (2 + 10 + 4)")
    ),
}  # fmt: skip


def found(name: str, seed: str, blocks: int = BLOCKS) -> tuple[int, Finding | None]:
    """How many inputs it took with the bug in the code, and the finding; none after so many blocks."""
    inputs = 0
    with plant(FAULTS[name].fault):
        for number in range(blocks):
            count, finding = block(FAULTS[name].target, f"{seed}-{number}", BLOCK)
            inputs += count
            if finding is not None:
                return inputs, finding
    return inputs, None


def proof(seed: str) -> bool:
    """Tell of each bug whether it is found, by how many inputs, and by what; were all of them?"""
    missed = 0
    for name, one in FAULTS.items():
        inputs, finding = found(name, seed)
        missed += finding is None
        told = " ".join(finding.told.split())[:90] if finding is not None else "NOT FOUND"
        print(f"{one.target:8} {name:52} {inputs:7,} inputs  {told}", flush=True)
    return not missed
