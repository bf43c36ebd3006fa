#!/bin/sh
# Creates a Redis Cluster of empty nodes. In a cluster that exists it only adds the nodes that belong to none, as replicas of
# their shard: after a node was replaced, run it again. It completes a creation that was interrupted.
#   NODES   host:port host:port …   The primaries, in the order of SLOTS, then the replicas: the first one of the first primary,
#           the second one of the second, and so on, then from the first primary again.
#   SLOTS   0-5460 5461-10922 10923-16383   The slots of each primary; `npm run cluster:plan` prints them.
# `redis-cli --cluster create` would divide the slots evenly, not the buckets, and choose replicas by address, not by zone.
# REDISCLI_AUTH is the password; REDIS_CLI may add options, such as `redis-cli --tls`.
set -eu
redis_cli=${REDIS_CLI:-redis-cli}
wait_seconds_max=${WAIT_SECONDS_MAX:-120}

say() { echo "create-cluster: $1"; }
fail() {
  say "$1" >&2
  exit 1
}

# at HOST:PORT COMMAND…; without carriage returns.
at() {
  address=$1
  shift
  # shellcheck disable=SC2086 # Options in REDIS_CLI are words.
  timeout 5 $redis_cli -h "${address%:*}" -p "${address##*:}" "$@" | tr -d '\r'
}
# at_ok HOST:PORT COMMAND…: the command must reply OK.
at_ok() {
  reply=$(at "$@")
  [ "$reply" = OK ] || fail "$*: $reply"
}
info() { at "$1" cluster info | sed -n "s/^$2://p"; }
myself() { at "$1" cluster nodes | grep myself; }
id() { at "$1" cluster myid; }
# The slots of a node: 0-5460; nothing for a replica.
slots() { myself "$1" | cut -s -d ' ' -f 9-; }
is_replica() { myself "$1" | grep -q 'myself,slave'; }

# until_true WHAT COMMAND…
until_true() {
  what=$1
  shift
  attempts=0
  until "$@" 2>/dev/null; do
    attempts=$((attempts + 1))
    [ $attempts -lt $((wait_seconds_max * 5)) ] || fail "Not within $wait_seconds_max s: $what"
    sleep 0.2
  done
}
responds() { [ "$(at "$1" ping)" = PONG ]; }
knows_all() { [ "$(info "$1" cluster_known_nodes)" -ge "$nodes_count" ]; }
replicates() { [ "$(at "$1" cluster replicate "$2")" = OK ]; }
is_in_step() { at "$1" info replication | grep -q '^master_link_status:up'; }
sees_replicas() { [ "$(at "$1" cluster nodes | grep -cE ' (myself,)?slave ')" -ge $((nodes_count - shards)) ]; }
is_ok() { [ "$(info "$1" cluster_state)" = ok ]; }

nodes_count=$(echo "$NODES" | wc -w)
shards=$(echo "$SLOTS" | wc -w)
[ "$nodes_count" -ge $((2 * shards)) ] || fail "NODES has $nodes_count nodes: $shards primaries need as many replicas at least"

for node in $NODES; do until_true "$node responds" responds "$node"; done

# Whether a node knows others: then the slots have been assigned.
joined=
for node in $NODES; do [ "$(info "$node" cluster_known_nodes)" -eq 1 ] || joined=${joined:-$node}; done

if [ -z "$joined" ]; then
  for node in $NODES; do
    [ "$(at "$node" dbsize)" -eq 0 ] || fail "$node has keys: a cluster is created of empty nodes"
  done
  epoch=0
  for range in $SLOTS; do
    epoch=$((epoch + 1))
    node=$(echo "$NODES" | cut -d ' ' -f $epoch)
    [ "$(info "$node" cluster_my_epoch)" -ne 0 ] || at_ok "$node" cluster set-config-epoch $epoch
    assigned=$(slots "$node")
    if [ -z "$assigned" ]; then
      at_ok "$node" cluster addslotsrange "${range%-*}" "${range#*-}"
    elif [ "$assigned" != "$range" ]; then
      fail "$node has the slots $assigned, and not $range"
    fi
    joined=${joined:-$node}
  done
  say "The slots are assigned"
fi

for node in $NODES; do
  [ "$(info "$node" cluster_known_nodes)" -eq 1 ] || continue
  [ "$node" != "$joined" ] || continue
  [ "$(at "$node" dbsize)" -eq 0 ] || fail "$node has keys: only an empty node is added"
  # CLUSTER MEET takes addresses only.
  ip=$(getent ahosts "${node%:*}" | sed -n '1s/ .*//p')
  at_ok "$joined" cluster meet "$ip" "${node##*:}"
  say "$node is added"
done
for node in $NODES; do until_true "$node knows all nodes" knows_all "$node"; done

# The node of a shard, counted from 0, that has its slots. A failover may have made it another than the first.
primary_of() {
  index=0
  for member in $NODES; do
    if [ $((index % shards)) -eq "$1" ] && [ -n "$(slots "$member")" ]; then
      echo "$member"
      return
    fi
    index=$((index + 1))
  done
}
position=0
for node in $NODES; do
  shard=$((position % shards))
  position=$((position + 1))
  ! is_replica "$node" || continue
  [ -z "$(slots "$node")" ] || continue
  primary=$(primary_of $shard)
  [ -n "$primary" ] || fail "No node of the shard of $node has slots"
  # A node that it still exchanges handshakes with is unknown to it.
  until_true "$node becomes a replica of $primary" replicates "$node" "$(id "$primary")"
  say "$node is a replica of $primary"
done

for node in $NODES; do
  ! is_replica "$node" || until_true "$node is in step with its primary" is_in_step "$node"
  until_true "$node sees all replicas" sees_replicas "$node"
  until_true "the cluster is ok for $node" is_ok "$node"
done
say "$shards primaries, $((nodes_count - shards)) replicas, all slots served"
