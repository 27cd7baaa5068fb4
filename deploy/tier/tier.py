#!/usr/bin/env python3
"""A tier, seen: tier.py FOLDER-OF-PROGRAMS [SECONDS]

Five relays, three brokers, a primary and its synchronous standby, and an application, each on a host of its own (a network
namespace). Links between them are cut and mended, at last the primary's host is lost and the standby promoted; what is seen
is told, each relay's page is open at 127.0.0.1. In the end an audit says whether each committed event is in Kafka, in
order: exit code 1 where not. Without SECONDS it goes on until Ctrl-C. Needs root, for the namespaces; nothing is made on the
machine itself but a temporary folder. All of it is gone in the end, also after Ctrl-C or `kill`; a `kill -9` ends all
processes and namespaces, too, and leaves the folder.

FOLDER-OF-PROGRAMS has `postrider`, `postrider-load` and `examples/parts` (`just tier` builds them).
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import traffic
from lan import Lan
from scenes import Play
from servers import DATABASE, PASSWORD, Broker, Failed, Postgres, Relay, psql, wait_until
from watch import Doors, Watch

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FIRST_PORT = 19781
DATABASES = ["db1", "db2"]
BROKERS = ["kafka1", "kafka2", "kafka3"]
RELAYS = ["relay1", "relay2", "relay3", "relay4", "relay5"]
RATE = 1000
SHORTEST_SECONDS = 60


def say(words):
    print(words, flush=True)


class Tier:
    """All that runs, and who ends it."""

    def __init__(self, folder, parts, programs):
        self.folder, self.programs = folder, programs
        self.lan = Lan()
        hosts = DATABASES + BROKERS + RELAYS + [traffic.HOST]
        for number, name in enumerate(hosts, 11):
            self.lan.add(name, number)
        self.lan.name_all(folder)
        user = unprivileged()
        self.databases = {name: Postgres(self.lan, name, folder, user, parts) for name in DATABASES}
        self.primary = "db1"
        say("three brokers and a primary start")
        self.brokers = [Broker(self.lan, name, folder, user, parts, n, BROKERS) for n, name in enumerate(BROKERS, 1)]
        postrider = os.path.join(folder, "postrider")
        self.relays = {name: Relay(self.lan, name, folder, postrider, DATABASES, BROKERS) for name in RELAYS}

    def start(self):
        for broker in self.brokers:
            broker.start()
        self.start_databases()
        for broker in self.brokers:
            wait_until(f"{broker.host} listens", lambda: listens(broker.host, 9092))
        say("five relays start")
        for relay in self.relays.values():
            relay.start()
        for name in self.relays:
            wait_until(f"{name} is ready", lambda: listens(name, 9786))

    def start_databases(self):
        primary, standby = self.databases["db1"], self.databases["db2"]
        primary.make_primary()
        primary.start()
        wait_until("the primary listens", lambda: listens("db1", 5432))
        self.make_outbox(primary)
        standby.make_standby_of(primary)
        standby.start()
        primary.sql("alter system set synchronous_standby_names = 'db2'")
        primary.sql("select pg_reload_conf()")
        ask = "select count(*) from pg_stat_replication where sync_state = 'sync'"
        wait_until("the standby streams", lambda: primary.sql(ask) == "1")

    def make_outbox(self, primary):
        """As docs/production.md has it: an owner, the outbox, two groups, a login for each side."""
        for role in ("owner createrole", "relay", "shop"):
            primary.sql(f"create role {role} login password '{PASSWORD}'")
        primary.sql(f"create database {DATABASE} owner owner")
        url = self.url("owner")
        subprocess.run([os.path.join(self.programs, "postrider"), "migrate", "up", "--database-url", url],
                       check=True, stdout=subprocess.DEVNULL)
        psql(url, "-f", os.path.join(SOURCE, "sql", "roles.sql"))
        psql(url, "-c", "grant postrider_relay to relay", "-c", "grant postrider_writer to shop", "-c", traffic.TABLES)

    def url(self, user):
        return f"postgres://{user}:{PASSWORD}@{self.primary}/{DATABASE}"

    def services(self):
        return [*self.relays.values(), *self.databases.values(), *self.brokers]

    def promote(self):
        """The steps of docs/tier.md: the old primary is switched off, the standby promoted, its commits wait for nobody."""
        self.databases["db1"].end(signal.SIGKILL)
        self.databases["db2"].promote()
        self.primary = "db2"

    def wait_for_all(self, seconds):
        command = [os.path.join(self.programs, "postrider"), "wait", "--database-url", self.url("owner"), "--timeout", f"{seconds}s"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def judge(self, written):
        """Waits until all is published, and audits."""
        say(f"the application got an answer to {written:,} events; waiting until all that was committed is published")
        waiting = self.wait_for_all(120)
        if waiting.wait():
            raise Failed(f"what was committed is not published: {waiting.stderr.read()}")
        load = os.path.join(self.programs, "postrider-load")
        return traffic.audit(self.folder, load, self.url("owner"), BROKERS)

    def end(self):
        for relay in self.relays.values():
            if relay.is_running():
                relay.process.terminate()
        for relay in self.relays.values():
            relay.end()


def unprivileged():
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise Failed("there is neither a user postgres nor nobody, and root runs no PostgreSQL")


def listens(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


def inside(folder, programs, seconds, control, listeners, parts):
    """In namespaces of our own. `control` has commands by line; it ends when somebody wants the end."""
    shutil.copy(os.path.join(programs, "postrider"), folder)
    tier = Tier(folder, parts, programs)
    wish = Wish(control)
    try:
        tier.start()
        say("\nThe page of each relay:")
        for name, listener in zip(RELAYS, listeners):
            say(f"  {name}  http://127.0.0.1:{listener.getsockname()[1]}/")
        Doors(tier.lan, RELAYS, listeners)
        watch = Watch(tier.lan, RELAYS)
        writers = traffic.Traffic(tier.lan, DATABASES, RATE)
        try:
            Play(tier, watch, writers, wish, say).go(seconds)
        finally:
            tier.lan.heal_all()
            writers.end()
        watch.is_ending.set()
        is_well = tier.judge(writers.written())
        tier.end()
    except (Failed, subprocess.CalledProcessError) as failure:
        say(f"FAILED: {failure}")
        for service in tier.services():
            if service.process is not None:
                say(f"\n{service.host}:\n{service.last_words()}")
        is_well = False
    return 0 if is_well else 1


class Wish:
    """What the caller asks for while it runs."""

    def __init__(self, control):
        self.is_end = threading.Event()
        self.lines, self.lock = [], threading.Lock()
        threading.Thread(target=self.listen, args=(control,), daemon=True).start()

    def listen(self, control):
        with os.fdopen(control) as lines:
            for line in lines:
                with self.lock:
                    self.lines.append(line.split())
        self.is_end.set()

    def take(self):
        with self.lock:
            taken, self.lines = self.lines, []
        return taken


def find_parts(programs):
    told = subprocess.run([os.path.join(programs, "examples", "parts")], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split("=", 1) for line in told.splitlines())


def listen_on_this_machine():
    listeners = []
    for number, _ in enumerate(RELAYS):
        listener = socket.create_server(("127.0.0.1", FIRST_PORT + number))
        listeners.append(listener)
    return listeners


def outside(programs, seconds):
    """Opens the doors, makes the namespaces, and cleans up behind whoever was in them."""
    for program in ("ip", "setpriv", "unshare", "psql"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: install iproute2, util-linux and postgresql-client")
    parts = find_parts(programs)
    listeners = listen_on_this_machine()
    folder = tempfile.mkdtemp(prefix="postrider-tier-")
    os.chmod(folder, 0o755)
    read, write = os.pipe()
    # Whatever is in these namespaces ends with their first process, that with `unshare`, and that with us.
    command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--ipc", "--mount", "--pid", "--fork", "--kill-child",
               "--mount-proc", sys.executable, os.path.abspath(__file__), "--inside", folder, programs, str(seconds or 0), str(read)]
    doors = [listener.fileno() for listener in listeners]
    words = [f"{name}={value}" for name, value in parts.items()]
    child = subprocess.Popen([*command, ",".join(map(str, doors)), *words], pass_fds=[read, *doors],
                             stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(read)
    try:
        return attend(child, write)
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(folder)


def attend(child, write):
    """Hands on what is typed. The first Ctrl-C asks for the end and the audit, the second one does not wait for them."""
    def stop(*_):
        if stop.is_asked:
            raise KeyboardInterrupt
        stop.is_asked = True
        os.close(write)

    stop.is_asked = False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if sys.stdin.isatty():
        threading.Thread(target=hand_on, args=(write,), daemon=True).start()
    try:
        return child.wait()
    except KeyboardInterrupt:
        return 130


def hand_on(write):
    try:
        for line in sys.stdin:
            os.write(write, line.encode())
    except OSError:
        # The end was asked for.
        return


def main():
    if sys.argv[1:2] == ["--inside"]:
        folder, programs, seconds, control, doors, *words = sys.argv[2:]
        listeners = [socket.socket(fileno=int(door)) for door in doors.split(",")]
        parts = dict(word.split("=", 1) for word in words)
        return inside(folder, programs, int(seconds), int(control), listeners, parts)
    if len(sys.argv) not in (2, 3) or not all(word.isdigit() for word in sys.argv[2:]):
        sys.exit(__doc__)
    seconds = int(sys.argv[2]) if len(sys.argv) == 3 else None
    if seconds is not None and seconds < SHORTEST_SECONDS:
        sys.exit(f"{seconds} s are too few to see anything: at least {SHORTEST_SECONDS}, or none for until Ctrl-C")
    if os.geteuid():
        sys.exit("network namespaces are made by root: sudo just tier")
    return outside(os.path.abspath(sys.argv[1]), seconds)


if __name__ == "__main__":
    sys.exit(main())
