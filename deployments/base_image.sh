#!/usr/bin/env bash
# Print the name of a base image with Python 3.11 for `make images`: the public one if the engine has it or can pull it,
# else one made of Debian packages (needs mmdebstrap and root; kept under the name below for the next time).
set -euo pipefail
PUBLIC=python:3.11-slim
MADE=mace-to-ace/base:bookworm

for image in "$MADE" "$PUBLIC"; do
  if docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; exit; fi
done
if timeout 120 docker pull --quiet "$PUBLIC" >&2; then echo "$PUBLIC"; exit; fi
echo "$PUBLIC cannot be pulled: making $MADE of Debian packages" >&2
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed: apt-get install mmdebstrap" >&2; exit 1; }
exclude=()
for folder in doc locale man info; do exclude+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
# shellcheck disable=SC2016  # $1 is the hook's
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates "${exclude[@]}" \
  --customize-hook='rm -rf "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/apt/sources.list' bookworm - \
  | docker import - "$MADE" >&2
echo "$MADE"
