#!/bin/sh
# Starts a Redis node in the role that a majority of the Sentinels assigns: the primary, or a replica of the one that they
# name. A former primary that chose its own role would accept writes.
#   NODE        the name of this node on the network
#   SENTINELS   host:port host:port host:port
set -eu

sentinels_count() { echo "$SENTINELS" | wc -w; }

# Asks each Sentinel for `$@`; prints the first line of each reply.
ask_sentinels() {
  for sentinel in $SENTINELS; do
    timeout 2 redis-cli -h "${sentinel%:*}" -p "${sentinel#*:}" "$@" 2>/dev/null | head -n 1 || true
  done
}

# Prints the primary that a majority names; nothing if there is none.
named_primary() {
  ask_sentinels sentinel get-master-addr-by-name inventory | sort | uniq -c | sort -rn | {
    read -r votes name || exit 0
    [ $((votes * 2)) -le "$(sentinels_count)" ] || echo "$name"
  }
}

has_data() { [ -e /data/appendonlydir ]; }
# Prints a line for each Sentinel that has seen a replica of the primary.
replicas_seen() { ask_sentinels sentinel replicas inventory | grep . || true; }
is_serving() { [ "$(timeout 2 redis-cli -h "$1" ping 2>/dev/null)" = PONG ]; }

said=
say() {
  [ "$1" = "$said" ] || echo "start-node: $1"
  said=$1
}

while true; do
  primary=$(named_primary)
  if [ -z "$primary" ]; then
    say "Waiting for a majority of the Sentinels $SENTINELS to name the primary"
  elif [ "$primary" = "$NODE" ]; then
    if has_data || [ -z "$(replicas_seen)" ]; then
      say "Starting as the primary"
      exec redis-server /etc/inventory/redis.conf --dir /data --replica-announce-ip "$NODE"
    fi
    # Its replicas would copy the empty data.
    say "Not starting as the primary: /data is empty and the group has replicas. Waiting for the Sentinels to promote one"
  elif is_serving "$primary"; then
    say "Starting as a replica of $primary"
    exec redis-server /etc/inventory/redis.conf --dir /data --replica-announce-ip "$NODE" --replicaof "$primary 6379"
  else
    # A replica that has just been started may lack the newest writes, which the Sentinels cannot detect: it must not be
    # available for promotion.
    say "Waiting for the primary $primary to respond"
  fi
  sleep 0.5
done
