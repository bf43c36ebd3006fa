#!/bin/sh
# Starts a node of a Redis Cluster. A new node belongs to no cluster until create-cluster.sh adds it.
#   NODE       the name under which the service reaches this node, with PORT
#   NODES      host:port host:port …   all nodes of the cluster
#   PORT       6379 unless given
#   DATA       the folder of its data, /data unless given
#   ADDRESS    the address that it announces; without it, the one at which the other nodes reach it
set -eu
data=${DATA:-/data}
port=${PORT:-6379}

has_data() { [ -e "$data/appendonlydir" ] && [ -e "$data/nodes.conf" ]; }

# Prints a line for each node that lists this one as a primary that serves slots.
listed_as_primary() {
  for node in $NODES; do
    timeout 2 redis-cli -h "${node%:*}" -p "${node##*:}" cluster nodes 2>/dev/null |
      grep -E ":$port@[0-9]+,$NODE(,[^ ]*)? master(,fail\?)? .* [0-9]+(-[0-9]+)?\$" || true
  done
}

if ! has_data; then
  # A primary that returned with its identity and without its data would make its replicas copy the empty data. One that
  # returned under a new identity at the same address would keep them from being promoted: the others would take it for a node
  # whose address is unknown, and not for a failed one. So it stays away until a replica is promoted, and returns as a new node.
  said=
  while [ -n "$(listed_as_primary)" ]; do
    [ -n "$said" ] || echo "start-cluster-node: $data is empty and $NODE has slots: waiting until a replica is promoted"
    said=yes
    sleep 0.5
  done
  rm -f "$data/nodes.conf"
fi

cd "$(dirname "$0")"
exec redis-server cluster.conf --dir "$data" --port "$port" \
  --cluster-announce-hostname "$NODE" ${ADDRESS:+--cluster-announce-ip "$ADDRESS"}
