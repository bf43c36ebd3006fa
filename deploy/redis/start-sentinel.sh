#!/bin/sh
# Starts a Sentinel. Its configuration file records which node is the primary. It is created in /data at the first start.
#   SENTINEL   the name of this Sentinel on the network
#   PRIMARY    the node that is primary when the group starts for the first time
set -eu
config=/data/sentinel.conf
if [ ! -s "$config" ]; then
  {
    cat /etc/inventory/sentinel.conf
    cat <<END
sentinel announce-ip $SENTINEL
sentinel monitor inventory $PRIMARY 6379 2
sentinel down-after-milliseconds inventory 1500
# A restarted primary that loads its data for longer than this is replaced.
sentinel master-reboot-down-after-period inventory 5000
sentinel failover-timeout inventory 6000
sentinel parallel-syncs inventory 1
END
  } > "$config.new"
  mv "$config.new" "$config"
fi
exec redis-server "$config" --sentinel
