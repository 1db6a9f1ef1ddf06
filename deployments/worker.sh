#!/usr/bin/env bash
# Prefect server and worker in containers, as the calling user: deployments/worker.sh FOLDER [compose command, default: up]
#
#   FOLDER        work root: gets store/ and runs/, and must hold the inputs; made if missing
#   PREFECT_PORT  (variable) of the server on localhost, default 4200
set -euo pipefail
fail() { echo "worker.sh: $*" >&2; exit 1; }

[ $# -gt 0 ] || fail "name the work root: deployments/worker.sh FOLDER"
mkdir -p "$1"
DISTILL_WORK_ROOT=$(realpath "$1")
DOCKER_GID=$(stat -L -c %g /var/run/docker.sock) || fail "no engine's socket at /var/run/docker.sock"
WORKER_USER=${WORKER_USER:-$(id -u):$(id -g)}
export DISTILL_WORK_ROOT DOCKER_GID WORKER_USER
shift
image=${WORKER_IMAGE:-mace-to-ace/worker:cpu}
docker info >/dev/null 2>&1 || fail "no Docker engine answers (docker info)"
docker image inspect "$image" >/dev/null 2>&1 || fail "the engine has no image $image. Build it: make images"
if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else fail "neither 'docker compose' nor docker-compose is installed"; fi
exec "${compose[@]}" --project-name "${PROJECT:-mace-to-ace}" --file "$(dirname "$0")/compose.yaml" "${@:-up}"
