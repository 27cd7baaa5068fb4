#!/usr/bin/env python3
"""Records what real relays tell under real faults, as the series of postrider.rules.test.yml.

`just rules-record` runs it: it starts PostgreSQL and Kafka by `postrider demo --servers-only`, breaks them, and scrapes
the relays each 5 s. Where an alert waits for longer than a fault lasts here, the last scrape is held on: that part of a
series is told at the head of its test. It takes a quarter of an hour. With names of scenes behind the program only those
are recorded; target/rules keeps what was recorded before.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

SCRAPE_SECONDS = 5
HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/debug/postrider"
SETTINGS = ["max_slot_wal_keep_size=96MB", "max_wal_size=128MB", "checkpoint_timeout=30s"]


def figures_of_the_rules():
    with open(os.path.join(HERE, "postrider.rules.yml")) as rules:
        return set(re.findall(r"\bpostrider_[a-z_]+", re.sub("#.*", "", rules.read())))


ASKED = figures_of_the_rules()


class Servers:
    """PostgreSQL and Kafka of the demo."""

    def __init__(self):
        flags = [flag for setting in SETTINGS for flag in ("--postgres-setting", setting)]
        command = [BINARY, "demo", "--servers-only", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.url = self.brokers = None
        for line in self.process.stdout:
            self.url = self.url or value(line, "export DATABASE_URL=")
            self.brokers = self.brokers or value(line, "export POSTRIDER_BROKERS=")
            if self.url and self.brokers:
                break
        assert self.brokers, "the servers did not start"
        tasks = subprocess.check_output(["ps", "-o", "pid=,comm=", "--ppid", str(self.process.pid)], text=True)
        java = [line.split()[0] for line in tasks.splitlines() if line.split()[1] == "java"]
        assert len(java) == 1, "there is one Kafka"
        self.kafka = int(java[0])

    def database(self, name, *migrate):
        """A database of its own, with an outbox."""
        self.sql(self.url, f"create database {name}")
        url = self.url.rsplit("/", 1)[0] + "/" + name
        subprocess.run([BINARY, "migrate", "up", "--buckets", "4", "--database-url", url, *migrate], check=True)
        return url

    def sql(self, url, text):
        command = ["psql", "-qAtX", url, "-v", "ON_ERROR_STOP=1", "-c", text]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def stop(self):
        os.kill(self.kafka, signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


def value(line, start):
    return line.removeprefix(start).strip().strip("'") if line.startswith(start) else None


class Relay:
    """An instance, and what it told."""

    port = 19786

    def __init__(self, servers, url, *flags, log):
        Relay.port += 1
        self.address = f"127.0.0.1:{Relay.port}"
        self.log = open(log, "w")
        command = [BINARY, "run", "--database-url", url, "--brokers", servers.brokers, "--admin-listen", self.address]
        self.process = subprocess.Popen([*command, *flags], stdout=self.log, stderr=self.log)

    def wait_until_it_says(self, words):
        deadline = time.monotonic() + 120
        while words not in self.said():
            assert time.monotonic() < deadline, f"it never said {words!r}: {self.said()}"
            time.sleep(0.2)

    def said(self):
        with open(self.log.name) as log:
            return log.read()

    def scrape(self):
        """Each line that a rule asks for; nothing where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=3) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(number) for name, number in lines if name.split("{")[0] in ASKED}

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(timeout=60)


class Recording:
    """What was told in one scene, at each scrape."""

    def __init__(self, name, relays, grows=None):
        self.name, self.relays, self.grows, self.looks = name, relays, grows or {}, []

    def take(self, seconds, meanwhile=lambda: None):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            meanwhile()
            self.looks.append([relay.scrape() for relay in self.relays])
            time.sleep(max(0.0, SCRAPE_SECONDS - (time.monotonic() - began)))

    def series(self, hold):
        """Lines of YAML, one for each series."""
        for number, _ in enumerate(self.relays):
            names = sorted({name for look in self.looks for name in look[number]})
            for name in names:
                told = [look[number].get(name) for look in self.looks]
                if all(one == 0 for one in told):
                    told_text = "0+0x%d" % (len(told) - 1 + hold)
                else:
                    told_text = runs(told, hold, self.grows.get(name.split("{")[0], 0))
                metric, _, labels = name.partition("{")
                own = f'job="outbox", instance="relay-{number}"'
                labels = f"{own}, {labels.rstrip('}')}" if labels else own
                yield f"      - series: '{metric}{{{labels}}}'\n        values: '{told_text}'\n"


def written(number):
    return "Inf" if number == float("inf") else f"{number:g}" if number < 1e6 else f"{number:.0f}"


def runs(told, hold, growth):
    """As promtool writes them: a+0xN for what stays the same, _ for what is absent."""
    parts, at = [], 0
    while at < len(told):
        same = at
        while same + 1 < len(told) and told[same + 1] == told[at]:
            same += 1
        count = same - at
        if told[at] is None:
            # Prometheus marks a series that was there and is not; one that never was is only absent.
            parts.append("stale" if at else "_")
            parts += [f"_x{count}"] if count else []
        else:
            number = written(told[at])
            parts.append(f"{number}+0x{count}" if count and number != "Inf" else " ".join([number] * (count + 1)))
        at = same + 1
    last = told[-1]
    if hold and last is None:
        parts.append(f"_x{hold}")
    elif hold and last == float("inf"):
        parts.append(" ".join(["Inf"] * hold))
    elif hold:
        parts.append(f"{written(last + growth)}+{growth:g}x{hold - 1}")
    return " ".join(parts)


class Stage:
    """The servers, and a database with its relays for each scene."""

    def __init__(self, servers, folder):
        self.servers, self.folder, self.relays, self.sessions = servers, folder, [], []

    def begin(self, name, *flags, relays=1, migrate=(), until="relaying"):
        self.url = self.servers.database(name, *migrate)
        log = os.path.join(self.folder, name)
        started = [Relay(self.servers, self.url, *flags, log=f"{log}-{n}.log") for n in range(relays)]
        self.relays += started
        for relay in started:
            relay.wait_until_it_says(until)
        return started

    def sql(self, text):
        self.servers.sql(self.url, text)

    def emit(self, count=200, kind="order", payload="{}"):
        text = f"select count(postrider.emit('{kind}', 'a' || n, 'T', '{payload}')) from generate_series(1, {count}) n"
        self.sql(text)

    def session(self, text):
        """One that stays open."""
        self.sessions.append(subprocess.Popen(["psql", "-qAtX", self.url, "-c", text], stdout=subprocess.DEVNULL))

    def kafka(self, how):
        os.kill(self.servers.kafka, how)

    def end(self):
        self.kafka(signal.SIGCONT)
        for session in self.sessions:
            session.terminate()
        if self.sessions:
            self.sql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)' "
                     "and pid <> pg_backend_pid()")
        for relay in self.relays:
            relay.end()
        self.relays, self.sessions = [], []


def calm(stage):
    scene = Recording("events come and go", stage.begin("calm"))
    scene.take(60, stage.emit)
    return scene


def stalled(stage):
    grows = {"postrider_bucket_oldest_age_seconds": SCRAPE_SECONDS}
    # More waits than may be in flight.
    relays = stage.begin("stalled", "--max-in-flight-bytes", "1MiB")
    scene = Recording("Kafka is frozen", relays, grows=grows)
    scene.take(20, stage.emit)
    stage.kafka(signal.SIGSTOP)
    scene.take(75, lambda: stage.emit(1_000, payload='{"a": "' + "x" * 1_000 + '"}'))
    return scene


def locked(stage):
    scene = Recording("somebody locks the outbox's sequence", stage.begin("locked"))
    scene.take(10, stage.emit)
    stage.session("begin; select postrider.emit('order', 'its own', 'T', '{}'); select pg_sleep(600)")
    time.sleep(1)
    stage.session("alter sequence outbox_seq_seq cache 1")
    # Whoever writes waits as well. A look at what waits is given up after 30 s.
    scene.take(60)
    return scene


def paused(stage):
    scene = Recording("somebody pauses", stage.begin("paused"))
    scene.take(10, stage.emit)
    subprocess.run([BINARY, "pause", "--database-url", stage.url, "--reason", "a new Kafka"], check=True)
    scene.take(15, stage.emit)
    return scene


def parked(stage):
    scene = Recording("an event has headers that are no object", stage.begin("parked"))
    scene.take(10, stage.emit)
    stage.sql("insert into outbox (aggregatetype, aggregateid, type, payload, headers) values "
              "('order', 'a1', 'T', '{}', '[]')")
    scene.take(25, stage.emit)
    return scene


def topic_held(stage):
    scene = Recording("a topic cannot be made", stage.begin("topics"))
    scene.take(10, lambda: stage.emit(kind="a.b"))
    stage.emit(10, kind="a_b")
    # What waits is looked at each 5 s, or more seldom where a look takes long.
    scene.take(60, stage.emit)
    return scene


def open_transaction(stage):
    grows = {"postrider_open_transaction_age_seconds": SCRAPE_SECONDS}
    scene = Recording("a transaction stays open", stage.begin("open"), grows=grows)
    scene.take(10, stage.emit)
    stage.session("begin; select postrider.emit('order', 'its own', 'T', '{}'); select pg_sleep(600)")
    scene.take(25, stage.emit)
    return scene


def ring(stage):
    scene = Recording("a reader keeps the outbox", stage.begin("ring", migrate=("--generation-seconds", "5")))
    scene.take(10, stage.emit)
    stage.session("begin; lock table outbox in access share mode; select pg_sleep(600)")
    scene.take(40, stage.emit)
    return scene


def bucket_free(stage):
    relays = stage.begin("free", "--lease-seconds", "10", relays=2)
    scene = Recording("one of two is frozen, and a session locks its cursors", relays[:1])
    scene.take(10, stage.emit)
    os.kill(relays[1].process.pid, signal.SIGSTOP)
    stage.session("begin; select from postrider.cursor where owner like '%:' || "
                  f"'{relays[1].process.pid}' || ':%' for update; select pg_sleep(600)")
    scene.take(30, stage.emit)
    return scene


def sessions(stage):
    scene = Recording("somebody ends all sessions again and again", stage.begin("sessions"))
    scene.take(10, stage.emit)

    def cut():
        stage.emit(20)
        stage.sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                  "and datname = current_database()")

    scene.take(60, cut)
    return scene


def producer(stage):
    kinds = [f"kind{number}" for number in range(6)]
    # After a refusal all limits are looked at again, so two producers go and no more: the test lets that happen each minute.
    grows = {"postrider_producer_replaced_total": 2 * SCRAPE_SECONDS / 60}
    scene = Recording("topics take less than they did", stage.begin("producer"), grows=grows)
    scene.take(10, lambda: [stage.emit(3, kind=kind) for kind in kinds])
    admin = KafkaAdminClient(bootstrap_servers=stage.servers.brokers)

    def shrink():
        if not kinds:
            return
        kind = kinds.pop()
        topic = ConfigResource(ConfigResourceType.TOPIC, f"outbox.event.{kind}", {"max.message.bytes": "300"})
        admin.alter_configs([topic])
        stage.emit(1, kind=kind, payload='{"a": "' + os.urandom(400).hex() + '"}')

    scene.take(70, shrink)
    return scene


def slot(stage):
    scene = Recording("Kafka is frozen, and WAL is written", stage.begin("slot", "--capture", "wal", until="reading the log"))
    scene.take(15, stage.emit)
    stage.kafka(signal.SIGSTOP)
    scene.take(60, lambda: stage.emit(4_000, payload='{"a": "' + os.urandom(1_500).hex() + '"}'))
    return scene


def standby(stage):
    scene = Recording("a standby has no slot", stage.begin("standby", "--capture", "message", until="reading the log"))
    scene.take(10, stage.emit)
    folder = os.path.join(stage.folder, "standby")
    bin_folder = subprocess.check_output(["pg_config", "--bindir"], text=True).strip()
    as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(["install", "-d", "-m", "700", "-o", "postgres", "-g", "postgres", folder], check=True)
    subprocess.run([*as_owner, f"{bin_folder}/pg_basebackup", "-d", stage.url, "-D", folder, "-R", "-c", "fast"], check=True)
    # A standby needs what its primary has, which was given on the command line there.
    names = ("max_connections", "max_wal_senders", "max_worker_processes", "max_prepared_transactions")
    ask = ["psql", "-qAtX", stage.url, "-c", f"select name || '=' || setting from pg_settings where name in {names}"]
    same = subprocess.check_output(ask, text=True).split()
    settings = [*same, "listen_addresses=", f"unix_socket_directories={folder}"]
    command = [f"{bin_folder}/postgres", "-D", folder, *(word for one in settings for word in ("-c", one))]
    log = open(f"{folder}.log", "w")
    server = subprocess.Popen([*as_owner, *command], stdout=log, stderr=log)
    scene.take(45, stage.emit)
    server.send_signal(signal.SIGINT)
    server.wait(timeout=60)
    return scene


def none(stage):
    relays = stage.begin("none")
    scene = Recording("the only instance is killed", relays)
    scene.take(15, stage.emit)
    relays[0].end(signal.SIGKILL)
    scene.take(10, stage.emit)
    return scene


# Scene, scrapes that are held on, and what fires when: minutes from the beginning, and the alerts.
SCENES = [
    (calm, 240, [(1, []), (20, [])]),
    (none, 60, [(0.25, []), (4, ["PostriderNoInstance"])]),
    (stalled, 240, [
        (0.25, []),
        (3.5, ["PostriderNotReady", "PostriderStalled"]),
        (8, ["PostriderBehind", "PostriderNotReady", "PostriderStalled"]),
        (18, ["PostriderBehind", "PostriderNeverEmpty", "PostriderNotReady", "PostriderStalled"]),
    ]),
    (locked, 60, [(0.25, []), (3.5, ["PostriderNotReady"])]),
    (paused, 780, [(50, []), (63, ["PostriderPausedLong"])]),
    (parked, 60, [(0.25, []), (4, ["PostriderParked"])]),
    (topic_held, 60, [(1, []), (5, ["PostriderParked", "PostriderTopicHeld"])]),
    (open_transaction, 160, [(9, []), (13, ["PostriderOpenTransaction"])]),
    (ring, 420, [(20, []), (35, ["PostriderRingFull"])]),
    (bucket_free, 60, [(0.25, []), (4, ["PostriderBucketFree"])]),
    (sessions, 60, [(0.25, []), (2, ["PostriderSessionsEnding"])]),
    (producer, 60, [(0.25, []), (5, ["PostriderParked", "PostriderProducerReplaced"])]),
    (slot, 60, [(0.25, []), (3.5, ["PostriderNotReady", "PostriderSlotNearLost", "PostriderStalled"])]),
    (standby, 90, [(1, []), (7, ["PostriderSlotNotSynced"])]),
]


def test_of(scene, hold, expected):
    """One test of promtool."""
    yield f"  # {scene.name[0].upper()}{scene.name[1:]}: recorded for {len(scene.looks)} scrapes, held on for {hold}"
    yield "".join(f", in which {name} goes on growing" for name in scene.grows) + ".\n"
    yield f"  - name: {scene.name}\n    interval: {SCRAPE_SECONDS}s\n    input_series:\n"
    yield from scene.series(hold)
    yield "    promql_expr_test:\n"
    for minutes, alerts in expected:
        yield "      - expr: count by (alertname) (ALERTS{alertstate=\"firing\"})\n"
        yield f"        eval_time: {round(minutes * 60)}s\n        exp_samples:{'' if alerts else ' []'}\n"
        for alert in alerts:
            yield f"          - labels: '{{alertname=\"{alert}\"}}'\n            value: 1\n"


HEAD = """\
# What real relays told under real faults, and which alerts it makes: written by record.py (`just rules-record`), and not
# by hand. A test names all alerts that fire at a moment, so one that fires too much is seen as well.
rule_files: [postrider.rules.yml]
evaluation_interval: 15s

tests:
"""


def record(scenes, parts):
    folder = subprocess.check_output(["mktemp", "-d", "/tmp/postrider-rules-XXXXXX"], text=True).strip()
    os.chmod(folder, 0o755)
    print(f"logs are in {folder}")
    servers = Servers()
    stage = Stage(servers, folder)
    try:
        for play, hold, expected in scenes:
            print(f"{play.__name__} ...", flush=True)
            try:
                scene = play(stage)
            finally:
                stage.end()
            with open(os.path.join(parts, play.__name__), "w") as part:
                part.write("".join(test_of(scene, hold, expected)))
    finally:
        servers.stop()


def main():
    parts = os.path.join(HERE, "..", "..", "target", "rules")
    os.makedirs(parts, exist_ok=True)
    only = sys.argv[2:] or [play.__name__ for play, _, _ in SCENES]
    record([one for one in SCENES if one[0].__name__ in only], parts)
    tests = []
    for play, _, _ in SCENES:
        with open(os.path.join(parts, play.__name__)) as part:
            tests.append(part.read())
    with open(os.path.join(HERE, "postrider.rules.test.yml"), "w") as file:
        file.write(HEAD + "\n".join(tests))


if __name__ == "__main__":
    main()
