"""What runs on the hosts: PostgreSQL with a standby, brokers, relays. Each has a folder of its own, and a log in it."""

import os
import signal
import subprocess
import time

DATABASE = "shop"
PARTITIONS = 6
PASSWORD = "of-this-tier-alone"
RELAY_USER = 65532
ADMIN_PORT = 9786
# A server that hears nothing of a client for so long ends its session, and so does a client.
PATIENCE = ["wal_sender_timeout = 5s", "wal_receiver_timeout = 5s", "tcp_user_timeout = 5s", "tcp_keepalives_idle = 5",
            "tcp_keepalives_interval = 1", "tcp_keepalives_count = 3"]
LIBPQ = "connect_timeout=3&tcp_user_timeout=5000&keepalives_idle=5&keepalives_interval=1&keepalives_count=3"


class Failed(Exception):
    """The tier cannot be what it is to be; its words say why."""


def wait_until(what, is_so, seconds=90):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.2)


class Service:
    """A program on a host, as a user who is not root."""

    def __init__(self, lan, host, folder, user, command):
        self.lan, self.host, self.user, self.command = lan, host, user, command
        self.folder = os.path.join(folder, host)
        self.log = os.path.join(self.folder, "log")
        self.process = None
        subprocess.run(["install", "-d", "-m", "700", "-o", str(user), "-g", str(user), self.folder], check=True)

    def words(self, command):
        as_user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return ["ip", "netns", "exec", self.host, *as_user, *command]

    def run(self, *command):
        """A step of the set-up, to its end."""
        done = subprocess.run(self.words(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Failed(f"{command[0]} on {self.host}: {done.stdout.strip()}")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def end(self, how=signal.SIGTERM, seconds=60):
        if self.is_running():
            self.process.send_signal(how)
            self.process.wait(timeout=seconds)

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-15:])


class Postgres(Service):
    """A primary, or the standby of one."""

    def __init__(self, lan, host, folder, user, parts):
        self.bin = parts["postgres_folder"]
        self.data = os.path.join(folder, host, "data")
        super().__init__(lan, host, folder, user, [f"{self.bin}/postgres", "-D", self.data])

    def make_primary(self):
        secret = os.path.join(self.folder, "secret")
        with open(secret, "w") as file:
            file.write(PASSWORD)
        os.chown(secret, self.user, self.user)
        self.run(f"{self.bin}/initdb", "-D", self.data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "-N")
        self.settings("listen_addresses = '*'", f"unix_socket_directories = '{self.folder}'", "max_connections = 200", *PATIENCE)
        with open(os.path.join(self.data, "pg_hba.conf"), "a") as rules:
            rules.write("host all all samenet scram-sha-256\nhost replication all samenet scram-sha-256\n")

    def settings(self, *lines):
        with open(os.path.join(self.data, "postgresql.conf"), "a") as file:
            file.writelines(line + "\n" for line in lines)

    def make_standby_of(self, primary):
        place = f"host={primary.host} user=postgres password={PASSWORD} application_name={self.host}"
        self.run(f"{self.bin}/pg_basebackup", "-d", place, "-D", self.data, "-R", "-c", "fast", "-C", "-S", self.host)
        self.settings(f"unix_socket_directories = '{self.folder}'")

    def promote(self):
        self.run(f"{self.bin}/pg_ctl", "promote", "--wait", "-D", self.data)

    def sql(self, text, database="postgres"):
        """Asked from the desk, as the superuser."""
        url = f"postgres://postgres:{PASSWORD}@{self.host}/{database}?{LIBPQ}"
        return psql(url, "-c", text)


def psql(url, *words):
    command = ["psql", "-qAtX", url, "-v", "ON_ERROR_STOP=1", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"psql {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


class Broker(Service):
    """One of some that are broker and controller at once."""

    def __init__(self, lan, host, folder, user, parts, number, all_hosts):
        self.java, self.number = parts["java"], number
        place = os.path.join(folder, host)
        base = [self.java, "-Xms128m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Djava.io.tmpdir={place}",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-classpath", parts["kafka_class_path"]]
        self.properties = os.path.join(place, "server.properties")
        super().__init__(lan, host, folder, user, [*base, "kafka.Kafka", self.properties])
        voters = ",".join(f"{n}@{name}:9093" for n, name in enumerate(all_hosts, 1))
        with open(self.properties, "w") as file:
            file.write(f"""\
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
listeners=BROKER://{host}:9092,CONTROLLER://{host}:9093
advertised.listeners=BROKER://{host}:9092
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={place}/data
num.partitions={PARTITIONS}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
log.cleaner.dedupe.buffer.size=8388608
""")
        os.chmod(self.properties, 0o644)
        identity = "cG9zdHJpZGVyLXRpZXIwMA"
        self.run(*base, "kafka.tools.StorageTool", "format", "--cluster-id", identity, "--config", self.properties)


class Relay(Service):
    """An instance of postrider."""

    def __init__(self, lan, host, folder, postrider, databases, brokers):
        secret = os.path.join(folder, host, "password")
        url = f"postgres://relay@{','.join(databases)}/{DATABASE}?target_session_attrs=read-write"
        self.access = ["--database-url", url, "--database-password-file", secret]
        command = [postrider, "run", *self.access, "--brokers", ",".join(f"{name}:9092" for name in brokers),
                   "--admin-listen", f"0.0.0.0:{ADMIN_PORT}", "--log-format", "text"]
        super().__init__(lan, host, folder, RELAY_USER, command)
        with open(secret, "w") as file:
            file.write(PASSWORD + "\n")
        os.chown(secret, RELAY_USER, RELAY_USER)
        os.chmod(secret, 0o600)
