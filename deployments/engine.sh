#!/usr/bin/env bash
# Start a Docker engine where none answers, on a Debian machine and as root (CI does); prints the id of the daemon that
# it started, or nothing. `kill ID` ends it.
set -euo pipefail
START_S=60
if docker info >/dev/null 2>&1; then exit; fi
if ! command -v dockerd >/dev/null || ! command -v mmdebstrap >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    docker.io mmdebstrap iptables; } >&2
fi
log=$(mktemp /tmp/dockerd.XXXXXX)
nohup dockerd >"$log" 2>&1 </dev/null &
daemon=$!
for _ in $(seq "$START_S"); do
  if docker info >/dev/null 2>&1; then echo "$daemon"; exit; fi
  kill -0 "$daemon" 2>/dev/null || break
  sleep 1
done
kill "$daemon" 2>/dev/null || true
tail -n 20 "$log" >&2
echo "no Docker engine answers and none could be started; its last lines are above" >&2
exit 1
