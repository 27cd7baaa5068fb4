"""Hosts and links: each host is a network namespace of Linux, and all hang on one bridge.

The bridge lies in the namespace of whoever calls, who is a host himself, the desk. `tier.py` gives him one of his own, so
that nothing of this is seen from the machine's own network, and all of it is gone when he is.
"""

import os
import subprocess

NETWORK = "10.77.0."
DESK = "desk"
# Nobody has this address: what is sent there is lost, and nobody says so, as where a cable is cut.
NOBODY = "02:00:00:00:00:ff"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Lan:
    """The hosts by name, and the links that are cut."""

    def __init__(self):
        self.addresses = {DESK: NETWORK + "1"}
        self.cuts = set()
        # `ip netns` keeps names there; this one is seen by nobody else.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        os.makedirs("/run/netns")
        ip("link", "set", "lo", "up")
        ip("link", "add", "lan", "type", "bridge")
        ip("link", "set", "lan", "up")
        ip("address", "add", self.addresses[DESK] + "/24", "dev", "lan")

    def add(self, name, number):
        self.addresses[name] = NETWORK + str(number)
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", "lan", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "address", "add", self.addresses[name] + "/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")

    def name_all(self, folder):
        """Whoever asks for a host by name finds it."""
        path = os.path.join(folder, "hosts")
        with open(path, "w") as hosts:
            hosts.write("127.0.0.1 localhost\n")
            hosts.writelines(f"{address} {name}\n" for name, address in self.addresses.items())
        os.chmod(path, 0o644)
        subprocess.run(["mount", "--bind", path, "/etc/hosts"], check=True)

    def others(self, name):
        return [other for other in self.addresses if other not in (name, DESK)]

    def cut(self, one, other):
        self.cuts.add(frozenset((one, other)))
        for here, there in ((one, other), (other, one)):
            ip("-n", here, "neighbour", "replace", self.addresses[there], "lladdr", NOBODY, "nud", "permanent", "dev", "eth0")

    def heal(self, one, other):
        self.cuts.discard(frozenset((one, other)))
        for here, there in ((one, other), (other, one)):
            ip("-n", here, "neighbour", "del", self.addresses[there], "dev", "eth0")

    def heal_all(self):
        for pair in list(self.cuts):
            self.heal(*pair)
