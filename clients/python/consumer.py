"""Pays each order once: the effect and the inbox in one transaction, Kafka's offsets behind it."""

import os
import sys

import psycopg
from confluent_kafka import Consumer, KafkaException

CONSUMER = os.environ.get("CONSUMER", "billing")
POLL_RECORDS = 500
ADMIT = """select postrider_inbox.admit(%s, %s::text[], %s::text[], %s::bigint[], %s::numeric[], %s::uuid[])"""


def handle(database, records):
    """One transaction per poll. It may run again for the same records: nothing happens then."""
    headers = [{name: (value or b"").decode() for name, value in record.headers() or []} for record in records]
    with database.transaction(), database.cursor() as cursor:
        cursor.execute(ADMIT, (
            CONSUMER,
            [known.get("aggregatetype", record.topic()) for record, known in zip(records, headers)],
            [record.key().decode() for record in records],
            [known.get("seq") for known in headers],
            [known.get("position") for known in headers],
            [known.get("id") for known in headers],
        ))
        (is_new,) = cursor.fetchone()
        for record, known, new in zip(records, headers, is_new):
            if new:
                cursor.execute("insert into effect (event_id, aggregate_id) values (%s, %s)",
                               (known["id"], record.key().decode()))


def consume(database_url, brokers, topic):
    kafka = Consumer({
        "bootstrap.servers": brokers,
        "group.id": CONSUMER,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    })
    kafka.subscribe([topic])
    with psycopg.connect(database_url, autocommit=True) as database:
        while True:
            records = kafka.consume(POLL_RECORDS, timeout=1.0)
            for record in records:
                if record.error():
                    raise KafkaException(record.error())
            if records:
                handle(database, records)
                kafka.commit(asynchronous=False)


if __name__ == "__main__":
    consume(os.environ["DATABASE_URL"], os.environ["BROKERS"], sys.argv[1])
