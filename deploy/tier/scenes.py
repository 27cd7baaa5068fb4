"""What happens to the tier, one thing after the other, and what was seen of it."""

import time

from servers import Failed

CUT_SECONDS = 15
CALM_SECONDS = 120
# The last scene needs that much: the primary is lost, the standby promoted, and all go on.
LAST_SECONDS = 45


def relay_and_databases(lan):
    return [("relay1", "db1"), ("relay1", "db2")]


def relay_and_brokers(lan):
    return [("relay2", "kafka1"), ("relay2", "kafka2"), ("relay2", "kafka3")]


def broker_and_brokers(lan):
    return [("kafka1", "kafka2"), ("kafka1", "kafka3")]


def relay_and_broker(lan):
    return [("relay3", "kafka2")]


def primary_and_standby(lan):
    return [("db1", "db2")]


def relay_and_all(lan):
    return [("relay4", other) for other in lan.others("relay4")]


SCENES = [
    ("relay1 does not reach the databases", relay_and_databases),
    ("relay2 reaches no broker", relay_and_brokers),
    ("kafka1 does not reach the other brokers", broker_and_brokers),
    ("relay3 does not reach kafka2", relay_and_broker),
    ("the primary does not reach its standby: commits wait", primary_and_standby),
    ("relay4's host is cut off", relay_and_all),
]


class Play:
    """The scenes in turns, until the time is over or somebody wants the end."""

    def __init__(self, tier, watch, traffic, wish, say):
        self.tier, self.watch, self.traffic, self.wish, self.say = tier, watch, traffic, wish, say
        self.begin = time.monotonic()
        self.written = 0
        self.notes = []

    def go(self, seconds):
        end = self.begin + seconds if seconds else None
        self.pass_time(10)
        if not seconds:
            self.say("\nYou may cut as well: `cut relay1 db1`, `heal relay1 db1`, `kill relay1`, `start relay1`. Ctrl-C ends it.")
        at = 0
        while not self.wish.is_end.is_set():
            if at == len(SCENES) and not end or end and time.monotonic() + CUT_SECONDS + LAST_SECONDS > end:
                self.lose_the_primary()
                break
            self.scene(*SCENES[at % len(SCENES)])
            at += 1
        while not self.wish.is_end.is_set() and (not end or time.monotonic() < end):
            if not end:
                links = [one for one in SCENES if one[1] is not primary_and_standby]
                self.scene(*links[at % len(links)])
                at += 1
            else:
                self.pass_time(2)
        self.tell_all()

    def scene(self, title, links):
        self.watch.begin()
        before, began = self.traffic.written(), time.monotonic()
        cut = links(self.tier.lan)
        self.say(f"\n== {title}")
        for pair in cut:
            self.tier.lan.cut(*pair)
        self.pass_time(CUT_SECONDS)
        for pair in cut:
            if frozenset(pair) in self.tier.lan.cuts:
                self.tier.lan.heal(*pair)
        self.note(title, before, began, self.calm_down())

    def lose_the_primary(self):
        title = "the primary's host is lost, the standby is promoted"
        self.watch.begin()
        before, began = self.traffic.written(), time.monotonic()
        self.say(f"\n== {title}")
        for other in self.tier.lan.others("db1"):
            self.tier.lan.cut("db1", other)
        self.pass_time(8)
        self.tier.promote()
        self.say("   db1 is switched off, db2 is promoted")
        self.note(title, before, began, self.calm_down())

    def note(self, title, before, began, calm_seconds):
        written, took = self.traffic.written() - before, time.monotonic() - began
        text = f"{title}: {self.watch.seen()}; {written:,} events were written in {took:.0f} s, "
        text += f"all was published {calm_seconds:.0f} s after the links were healed"
        self.say(f"   {text}")
        self.notes.append(text)

    def calm_down(self):
        """How long it took until all was published that was committed by then, and everybody went on."""
        healed = time.monotonic()
        self.say("   healed")
        waiting = self.tier.wait_for_all(CALM_SECONDS)
        while not self.wish.is_end.is_set() and (waiting.poll() is None or not self.watch.are_well()):
            if time.monotonic() > healed + CALM_SECONDS:
                raise Failed(f"not calm {CALM_SECONDS} s after the links were healed: {self.watch.line()}")
            self.pass_time(1)
        if waiting.poll():
            raise Failed(f"what was committed is not published: {waiting.stderr.read()}")
        waiting.kill()
        return time.monotonic() - healed

    def pass_time(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.wish.is_end.is_set():
            self.wish.is_end.wait(min(left, 3))
            self.obey()
            self.tell()

    def tell(self):
        written = self.traffic.written()
        now = time.monotonic() - self.begin
        self.say(f"{now:4.0f} s  {written:8,} written  {self.watch.line()}")

    def obey(self):
        """What somebody typed."""
        for words in self.wish.take():
            try:
                self.do(words)
            except (KeyError, ValueError, AttributeError):
                self.say("   cut HOST HOST, heal HOST HOST, kill RELAY, start RELAY; hosts: " + " ".join(self.tier.lan.addresses))

    def do(self, words):
        lan, (verb, *names) = self.tier.lan, words
        if verb in ("cut", "heal"):
            one, other = names
            if lan.addresses[one] and lan.addresses[other] and (frozenset(names) in lan.cuts) == (verb == "heal"):
                getattr(lan, verb)(one, other)
        elif verb == "kill":
            self.tier.relays[names[0]].end(9)
        elif verb == "start":
            relay = self.tier.relays[names[0]]
            if not relay.is_running():
                relay.start()
        else:
            raise ValueError(verb)

    def tell_all(self):
        self.say(f"\nWhat was seen (the application lost {self.traffic.lost_sessions()} sessions):")
        for note in self.notes:
            self.say(f"* {note}")
