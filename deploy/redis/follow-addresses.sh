#!/bin/sh
# Runs beside a node of a Redis Cluster whose address changes when it restarts, as that of a pod does. Nodes announce their new
# addresses to those that they know; nodes that restarted at the same time have only old addresses of each other, and need this.
#   NODES   host:port host:port …   all nodes of the cluster
set -eu

while sleep "${INTERVAL_SECONDS:-2}"; do
  known=$(redis-cli -p "${PORT:-6379}" cluster nodes 2>/dev/null) || continue
  for node in $NODES; do
    name=${node%:*}
    # Empty for nodes that were never added, and for those whose address is unknown.
    listed=$(echo "$known" | sed -nE "s/^[0-9a-f]+ ([^ ]+):[0-9]+@[0-9]+,$name[, ].*/\1/p")
    address=$(getent ahosts "$name" | sed -n '1s/ .*//p') || true
    [ -n "$listed" ] && [ -n "$address" ] || continue
    ! echo "$listed" | grep -qxF "$address" || continue
    echo "follow-addresses: $name is now at $address"
    redis-cli -p "${PORT:-6379}" cluster meet "$address" "${node##*:}" || true
  done
done
