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
export REDIS=redis_primary

# ask JSON METHOD: calls a method as a client with the role ops. OPS_TOKEN is its token.
ask() {
  grpcurl -plaintext -H "authorization: Bearer ${OPS_TOKEN:?set OPS_TOKEN to a token of the role ops}" -d "$1" "$SERVER" "$2"
}
