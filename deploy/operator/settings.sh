# Read by bash at its start. The commands of docs/operations.md use these.
export ADMIN=${ADMIN:-http://inventory-1:9090}
export SERVER=${SERVER:-inventory-orders:8080}

# Runs redis-cli on the primary, as the first Sentinel that responds names it.
redis_primary() {
  local sentinel primary
  for sentinel in sentinel-1 sentinel-2 sentinel-3; do
    primary=$(timeout 2 redis-cli -h "$sentinel" -p 26379 sentinel get-master-addr-by-name inventory 2>/dev/null | head -n 1)
    [ -z "$primary" ] || break
  done
  redis-cli -h "${primary:?no Sentinel names a primary}" "$@"
}

# Runs redis-cli on the first node of REDIS_CLUSTER that responds, and follows redirections. With --scan as the first argument it
# runs on every primary in REDIS_CLUSTER.
redis_cluster() {
  local node role
  for node in ${REDIS_CLUSTER//,/ }; do
    role=$(timeout 2 redis-cli -h "${node%:*}" -p "${node##*:}" role 2>/dev/null | head -n 1)
    if [ "$1" != --scan ]; then
      [ -n "$role" ] || continue
      redis-cli -c -h "${node%:*}" -p "${node##*:}" "$@"
      return
    fi
    [ "$role" != master ] || redis-cli -h "${node%:*}" -p "${node##*:}" "$@"
  done
  [ "$1" = --scan ] || { echo "No node of REDIS_CLUSTER responds" >&2 && return 1; }
}
if [ -n "${REDIS_CLUSTER-}" ]; then REDIS=redis_cluster; else REDIS=redis_primary; fi
export REDIS

# ask JSON METHOD: calls a method as a client with the role ops. OPS_TOKEN is its token.
ask() {
  grpcurl -plaintext -H "authorization: Bearer ${OPS_TOKEN:?set OPS_TOKEN to a token of the role ops}" -d "$1" "$SERVER" "$2"
}
