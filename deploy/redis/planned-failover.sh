#!/bin/sh
# Moves the primary to another node without losing an acknowledged change, for example before work on its machine.
#
# `sentinel failover` alone loses changes: it promotes one replica while the primary still accepts writes that the other
# replica acknowledges. So the primary refuses writes first, and its replicas catch up. Callers get UNAVAILABLE for
# some seconds and retry.
#   SENTINELS   host:port host:port host:port
set -eu

replicas_refusing=999
wait_seconds_max=30

fail() {
  echo "planned-failover: $1" >&2
  exit 1
}

# Runs a command on the first Sentinel that responds.
ask_sentinel() {
  for sentinel in $SENTINELS; do
    if timeout 2 redis-cli -e -h "${sentinel%:*}" -p "${sentinel#*:}" "$@" 2>/dev/null; then
      return 0
    fi
  done
  return 1
}

# Prints host and port of the primary.
named_primary() { ask_sentinel sentinel get-master-addr-by-name inventory | tr '\n' ' '; }

# Runs a command on the node at the host and port in $former.
ask_former() {
  # shellcheck disable=SC2086
  set -- $former "$@"
  host=$1 port=$2
  shift 2
  timeout 2 redis-cli -e -h "$host" -p "$port" "$@"
}

replication() { ask_former info replication | tr -d '\r'; }

# Whether each online replica has everything up to offset $1, and there is at least one.
have_caught_up() {
  replication | awk -v goal="$1" '
    /^slave[0-9]+:/ && /state=online/ {
      replicas++
      split($0, parts, "offset="); split(parts[2], value, ",")
      if (value[1] + 0 < goal + 0) behind++
    }
    END { exit !(replicas > 0 && behind == 0) }'
}

is_replaced() { [ "$(named_primary)" != "$former" ] && replication | grep -q '^role:slave'; }

# Waits until the command "$@" succeeds.
await() {
  tries=$((wait_seconds_max * 5))
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.2
  done
}

former=$(named_primary)
[ -n "$former" ] || fail "no Sentinel of $SENTINELS names a primary"
needed=$(ask_former config get min-replicas-to-write | sed -n 2p)
[ -n "$needed" ] || fail "the primary $former does not respond"
[ "$needed" != "$replicas_refusing" ] || needed=1
# Also if this script is interrupted.
trap 'ask_former config set min-replicas-to-write "$needed" >/dev/null' EXIT
trap 'exit 1' INT TERM

echo "planned-failover: the primary ${former% } refuses writes"
ask_former config set min-replicas-to-write "$replicas_refusing" >/dev/null
offset=$(replication | sed -n 's/^master_repl_offset://p')
await have_caught_up "$offset" || fail "the replicas did not catch up; nothing was changed"
ask_sentinel sentinel failover inventory >/dev/null || fail "the Sentinels refused; nothing was changed"
await is_replaced || fail "the Sentinels did not replace the primary within $wait_seconds_max s; it accepts writes again"
echo "planned-failover: the primary is $(named_primary)"
