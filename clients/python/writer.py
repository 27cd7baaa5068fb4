"""Writes events in the transaction of the change they tell of: by an insert, and by postrider.emit."""

import json
import os
import sys
import uuid

import psycopg


def place(database, order_id):
    """An insert: in order if whatever changes this order is locked before."""
    with database.transaction(), database.cursor() as cursor:
        cursor.execute("insert into purchase (id, state) values (%s, 'placed')", (order_id,))
        cursor.execute(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, %s, %s)",
            (uuid.uuid4(), "order", order_id, "OrderPlaced", json.dumps({"order": order_id})),
        )


def pay(database, order_id):
    """postrider.emit: in order, whoever writes, and it works in every capture mode."""
    with database.transaction(), database.cursor() as cursor:
        cursor.execute("update purchase set state = 'paid' where id = %s", (order_id,))
        cursor.execute(
            "select postrider.emit(%s, %s, %s, %s::json)",
            ("order", order_id, "OrderPaid", json.dumps({"order": order_id})),
        )


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        for number in range(int(sys.argv[1])):
            place(connection, f"python-{number}")
            pay(connection, f"python-{number}")
