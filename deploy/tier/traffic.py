"""The application: it writes orders and their events, survives what happens to the servers, and knows in the end what was
committed. The audit is that of `postrider-load verify`, which compares this with what lies in the topic."""

import json
import os
import subprocess
import threading
import time

from servers import DATABASE, LIBPQ, PARTITIONS, PASSWORD, Failed, psql

HOST = "app"
WRITERS = 4
ORDERS_EACH = 250
PAYLOAD_BYTES = 200
TOPIC = "outbox.event.order"

# An order's version goes up in the transaction that writes its event, so the tables know what was committed, also where the
# answer to a commit was lost. The payload is what the audit reads: run, aggregate, version, writer, transaction, time.
TABLES = f"""
create table orders (number integer primary key, version integer not null default 0);
insert into orders (number) select generate_series(0, {WRITERS * ORDERS_EACH - 1});
create function payload(number integer, version integer) returns json language sql as $$
    select (fields || repeat('x', greatest(0, {PAYLOAD_BYTES} - length(fields) - 2)) || '"}}')::json
      from format('{{"r":1,"a":%s,"v":%s,"w":0,"t":0,"s":%s,"d":0,"p":"', number, version,
                  (extract(epoch from clock_timestamp()) * 1e6)::bigint) as fields
$$;
create function change(first integer, last integer) returns bigint language sql as $$
    with changed as (
        update orders set version = version + 1 where number between first and last returning number, version)
    select count(postrider.emit('order', 'order-' || number, 'OrderChanged', payload(number, version))) from changed
$$;
grant select, update on orders to shop;
"""


class Writer:
    """One connection after the other; each owns some orders, and goes through them again and again."""

    def __init__(self, lan, databases, number, batch, pause_seconds):
        url = f"postgres://shop:{PASSWORD}@{','.join(databases)}/{DATABASE}?target_session_attrs=read-write&{LIBPQ}"
        self.command = ["ip", "netns", "exec", HOST, "psql", "-qAtX", url, "-v", "ON_ERROR_STOP=1"]
        self.first, self.batch, self.pause_seconds = number * ORDERS_EACH, batch, pause_seconds
        self.written, self.lost_sessions, self.at = 0, 0, 0
        self.is_ending = threading.Event()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def write(self):
        while not self.is_ending.is_set():
            # What it says of a lost server is what we want; it comes again with another session.
            session = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                self.use(session)
            except BrokenPipeError:
                pass
            session.kill()
            session.wait()
            if not self.is_ending.wait(1):
                self.lost_sessions += 1

    def use(self, session):
        """Until it ends, or we do."""
        due = time.monotonic()
        while not self.is_ending.is_set():
            first = self.first + self.at
            session.stdin.write(f"select change({first}, {first + self.batch - 1});\n")
            session.stdin.flush()
            answer = session.stdout.readline()
            if not answer:
                return
            self.written += int(answer)
            self.at = (self.at + self.batch) % ORDERS_EACH
            due = max(due + self.pause_seconds, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


class Traffic:
    """All writers."""

    def __init__(self, lan, databases, rate):
        batch = 10
        pause = batch * WRITERS / rate
        self.writers = [Writer(lan, databases, number, batch, pause) for number in range(WRITERS)]

    def written(self):
        return sum(writer.written for writer in self.writers)

    def lost_sessions(self):
        return sum(writer.lost_sessions for writer in self.writers)

    def end(self):
        for writer in self.writers:
            writer.is_ending.set()
        for writer in self.writers:
            writer.thread.join(timeout=60)
            if writer.thread.is_alive():
                raise Failed("a writer still waits for its commit")


def audit(folder, load, url, brokers):
    """Whether the topic holds what was committed; prints what the auditor says."""
    versions = [int(line) for line in psql(url, "-c", "select version from orders order by number").splitlines()]
    manifest = {"schema": "postrider-load/manifest/1", "run": 1, "payload_bytes": PAYLOAD_BYTES, "topic": TOPIC,
                "from": [0] * PARTITIONS, "versions": versions}
    with open(os.path.join(folder, "manifest.json"), "w") as file:
        json.dump(manifest, file)
    servers = ",".join(f"{name}:9092" for name in brokers)
    print(f"audit of {sum(versions):,} committed events:", flush=True)
    return subprocess.run([load, "verify", folder, "--brokers", servers]).returncode == 0
