"""What the relays tell of themselves, looked at each second, and the page in a browser on this machine."""

import json
import selectors
import socket
import threading
import urllib.request

from servers import ADMIN_PORT


class Watch:
    """The last answer of each relay, and what was seen since `begin`."""

    def __init__(self, lan, relays):
        self.lan, self.relays = lan, relays
        self.told = {}
        self.is_ending = threading.Event()
        self.begin()
        for name in relays:
            threading.Thread(target=self.look, args=(name,), daemon=True).start()

    def begin(self):
        """Of a new scene nothing was seen yet."""
        self.states = {name: [] for name in self.relays}

    def look(self, name):
        url = f"http://{self.lan.addresses[name]}:{ADMIN_PORT}/api/v1/"
        while not self.is_ending.wait(1):
            try:
                with urllib.request.urlopen(url + "status", timeout=2) as answer:
                    told = json.load(answer)
            except OSError:
                told = {"state": "no-answer"}
            self.told[name] = told
            states = self.states[name]
            if not states or states[-1] != told["state"]:
                states.append(told["state"])

    def are_well(self):
        return all(told["state"] in ("publishing", "standing-by") for told in self.told.values())

    def line(self):
        return "  ".join(self.word(name) for name in self.relays)

    def word(self, name):
        told = self.told.get(name, {"state": "no-answer"})
        rate = round((told.get("rate") or {}).get("out") or 0)
        buckets = sum(len(shard["buckets"]) for shard in told.get("shards") or [])
        return f"{name} {told['state']} {buckets}b {rate}/s"

    def seen(self):
        """Of each relay that did anything but publish: its states, one after the other."""
        told = {name: states for name, states in self.states.items() if states not in ([], ["publishing"])}
        return ", ".join(f"{name} {' > '.join(states)}" for name, states in told.items()) or "all go on publishing"


class Doors:
    """Listeners on this machine's own 127.0.0.1, opened outside; what comes in goes on to a relay's page."""

    def __init__(self, lan, relays, listeners):
        for name, listener in zip(relays, listeners):
            target = (lan.addresses[name], ADMIN_PORT)
            threading.Thread(target=self.serve, args=(listener, target), daemon=True).start()

    def serve(self, listener, target):
        while True:
            inside, _ = listener.accept()
            threading.Thread(target=self.carry, args=(inside, target), daemon=True).start()

    @staticmethod
    def carry(inside, target):
        """Bytes both ways until one side ends, or says nothing for a minute."""
        try:
            with inside, socket.create_connection(target, timeout=3) as outside, selectors.DefaultSelector() as ready:
                ready.register(inside, selectors.EVENT_READ, outside)
                ready.register(outside, selectors.EVENT_READ, inside)
                while found := ready.select(60):
                    for key, _ in found:
                        piece = key.fileobj.recv(65536)
                        if not piece:
                            return
                        key.data.sendall(piece)
        except OSError:
            # The host is cut off or the browser is gone: he who waits sees that his connection ended.
            return
