"""Keeps a table of the newest state of each product and of the units sold per product and day, from the topic `inventory`.

Reads to the end of the topic, prints the tables and exits. The next run continues where this one ended. Settings:
KAFKA_BROKERS (127.0.0.1:9092), KAFKA_INVENTORY_TOPIC (inventory), DATABASE (units-sold.db).
"""

import argparse
import json
import os
import sqlite3
import sys
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

TIMEOUT_S = 10
MESSAGES_PER_TRANSACTION = 500
# Where a total of a ledger would exceed 2**31 - 1, this many units are subtracted from `adjusted` and `sold`.
TOTALS_STEP = 1_073_741_824

# The offsets are in the same database, so that a crash neither loses a message nor counts one twice.
SCHEMA = """
CREATE TABLE IF NOT EXISTS product (
  product_id TEXT PRIMARY KEY, version INTEGER, available INTEGER, on_hand INTEGER, sold INTEGER, deleted INTEGER);
CREATE TABLE IF NOT EXISTS units_sold (product_id TEXT, day TEXT, units INTEGER, PRIMARY KEY (product_id, day));
CREATE TABLE IF NOT EXISTS next_offset (topic TEXT, number INTEGER, offset INTEGER, PRIMARY KEY (topic, number));
"""


def apply(database: sqlite3.Connection, change: dict[str, Any]) -> None:
    """Applies one StockChanged. Drops what is not newer: messages arrive at least once."""
    product_id, version, ledger = change["productId"], int(change["version"]), change["ledger"]
    previous = database.execute(
        "SELECT version, on_hand, sold FROM product WHERE product_id = ?", (product_id,)
    ).fetchone()
    if previous is not None and version <= previous[0]:
        return
    database.execute(
        "REPLACE INTO product VALUES (?, ?, ?, ?, ?, ?)",
        (product_id, version, ledger["available"], ledger["onHand"], ledger["sold"], ledger["deleted"]),
    )
    units = 0 if previous is None else units_sold_since(previous, change)
    if units != 0:
        database.execute(
            "INSERT INTO units_sold VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET units = units + excluded.units",
            (product_id, change["changeTime"][:10], units),
        )


def units_sold_since(previous: tuple[int, int, int], change: dict[str, Any]) -> int:
    """The units sold, less units returned, since the state before. Days are those of UTC."""
    version, on_hand, sold = previous
    ledger = change["ledger"]
    if int(change["version"]) == version + 1:
        # A sale or return changes nothing else that counts towards onHand.
        is_sale = change["cause"] in ("CHANGE_CAUSE_COMMITTED", "CHANGE_CAUSE_RETURNED")
        return on_hand - ledger["onHand"] if is_sale else 0
    # A gap: the changes in between will never arrive, and only the totals say what was sold. It counts for this day.
    units = ledger["sold"] - sold
    return units + TOTALS_STEP if units < -TOTALS_STEP // 2 else units


def read_to_end(consumer: Consumer, database: sqlite3.Connection, topic: str) -> None:
    """Reads every partition from its stored offset to its present end."""
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    stored = dict(database.execute("SELECT number, offset FROM next_offset WHERE topic = ?", (topic,)))
    unread = set(metadata.partitions)
    consumer.assign([TopicPartition(topic, number, stored.get(number, OFFSET_BEGINNING)) for number in unread])
    while unread:
        messages = consumer.consume(MESSAGES_PER_TRANSACTION, timeout=1)
        with database:
            for message in messages:
                error = message.error()
                if error is None:
                    read(database, message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)


def read(database: sqlite3.Connection, message: Message) -> None:
    if dict(message.headers() or []).get("MessageType") == b"StockChanged":
        apply(database, json.loads(message.value()))
    database.execute(
        "REPLACE INTO next_offset VALUES (?, ?, ?)",
        (message.topic(), message.partition(), message.offset() + 1),
    )


def report(database: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    def rows(query: str) -> list[dict[str, Any]]:
        cursor = database.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor]

    return {
        "products": rows("SELECT product_id, version, available FROM product WHERE NOT deleted ORDER BY product_id"),
        "units_sold": rows("SELECT day, product_id, units FROM units_sold ORDER BY day, product_id"),
    }


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(f"{value!s:<12}" for value in row.values()).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    database = sqlite3.connect(os.environ.get("DATABASE") or "units-sold.db")
    database.executescript(SCHEMA)
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ.get("KAFKA_BROKERS") or "127.0.0.1:9092",
            # Required, but without a use: partitions are assigned and offsets stored here.
            "group.id": "units-sold",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # The stored offset may be older than what the topic keeps.
            "auto.offset.reset": "earliest",
            # The client logs every attempt to connect, 20 a second. Faults arrive as KafkaException.
            "log_level": 2,
        }
    )
    try:
        read_to_end(consumer, database, os.environ.get("KAFKA_INVENTORY_TOPIC") or "inventory")
    except KafkaException as error:
        sys.exit(f"The topic cannot be read: {error.args[0].str()}")
    finally:
        consumer.close()
    tables = report(database)
    if arguments.json:
        json.dump(tables, sys.stdout)
    else:
        print_table("Product, version, available", tables["products"])
        print_table("Day, product, units sold", tables["units_sold"])


if __name__ == "__main__":
    main()
