#!/usr/bin/env bash
# Build the images mace, tensorpot and worker: make images [VARIANT=cpu|cuda] [BASE_IMAGE=NAME] [WHEELS=DIR]
#
#   VARIANT     cpu (default) or cuda; also the images' tag
#   BASE_IMAGE  has Python 3.11 with venv; default python:3.11-slim
#   WHEELS      folder with a CPU wheel of torch; default: the folders in pip's own PIP_FIND_LINKS
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT, HTTPS_PROXY   where and how pip looks, for instance PyTorch's CPU index
#
# Needs a Docker engine and nothing else. Addresses, credentials and certificates are given to the build as secrets and
# are in no image and no history. `deployments/images.sh labels` prints the digests that become labels.
set -euo pipefail
cd "$(dirname "$0")/.."
VARIANT=${VARIANT:-cpu} BASE_IMAGE=${BASE_IMAGE:-python:3.11-slim} WHEELS=${WHEELS:-}
IMAGES=(mace tensorpot worker)

fail() { echo "make images: $*" >&2; exit 1; }

# sha256 of an image's pins, as containers/environment.py computes it
lock_digest() {
  sed 's/#.*//; s/[[:space:]]//g; /^$/d' "containers/$1/requirements.lock" | LC_ALL=C sort -t= -k1,1 \
    | head -c -1 | sha256sum | cut -d' ' -f1
}

sources() { find containers \( -name '*.py' -o -name '*.lock' \) -type f | LC_ALL=C sort; }

# sha256 of the steps' sources, as containers/environment.py computes it
sources_digest() { sources | tr '\n' '\0' | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

# A client that builds with BuildKit: one with buildx, or one so old that it has BuildKit inside
builder() {
  local client
  type -p docker >/dev/null || fail "there is no program docker. Install one: https://docs.docker.com/engine/install"
  while read -r client; do
    if "$client" buildx version >/dev/null 2>&1 || [ "$(major "$client")" -lt 23 ]; then echo "$client"; return; fi
  done < <(type -ap docker)
  fail "no docker client that can build with BuildKit: install docker's buildx plugin"
}

major() {
  local version
  version=$("$1" version --format '{{.Client.Version}}' 2>/dev/null || true)
  echo "${version%%.*}" | grep -E '^[0-9]+$' || echo 99
}

# What pip must know of this host: one file, given as a secret
pip_conf() {
  local proxy=${HTTPS_PROXY:-${https_proxy:-}} links
  links=$(tr -s '[:space:]' '\n' <<<"${PIP_FIND_LINKS:-}" | grep -E '^https?://' | tr '\n' ' ' || true)
  echo "[global]"
  [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
  [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
  [ -z "$links" ] || echo "find-links = $links"
  [ -z "$proxy" ] || echo "proxy = $proxy"
  [ ! -s "$scratch/ca.pem" ] || echo "cert = /run/secrets/ca.pem"
}

# torch's CPU wheel from the folders that were given, for the image mace: PyPI's is the CUDA build
wheels() {
  local pattern folder folders=("$WHEELS")
  pattern="torch-$(sed -n 's/^torch==//p' containers/mace/requirements.lock)+cpu-cp311-*.whl"
  [ -n "$WHEELS" ] || read -ra folders <<<"${PIP_FIND_LINKS:-}"
  [ -z "$WHEELS" ] || [ -d "$WHEELS" ] || fail "WHEELS is not a folder: $WHEELS"
  for folder in "${folders[@]}"; do
    [ ! -d "$folder" ] || find "$folder/" -maxdepth 1 -name "$pattern" -exec cp -t "$scratch/wheels" {} +
  done
  [ -z "$WHEELS" ] || compgen -G "$scratch/wheels/*" >/dev/null || fail "there is no $pattern in $WHEELS"
}

# The files of an image's build as a tar: step images see no flows, and no file of the host
context() {
  local extra=(-C "$scratch" wheels)
  {
    sources
    echo "containers/$1/Dockerfile"
    [ "$1" != worker ] || find flows tasks deployments examples prefect.yaml -type f -not -path '*/.*' -not -name '*.pyc'
  } >"$scratch/files"
  [ "$1" != worker ] || extra=()
  tar -c --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime=@0 --verbatim-files-from \
    --files-from="$scratch/files" "${extra[@]}"
}

build() {
  echo "building mace-to-ace/$1:$VARIANT" >&2
  context "$1" | DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 "$docker" build --progress=plain \
    --file "containers/$1/Dockerfile" --tag "mace-to-ace/$1:$VARIANT" \
    --secret "id=pip.conf,src=$scratch/pip.conf" --secret "id=ca.pem,src=$scratch/ca.pem" \
    --build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg "VARIANT=$VARIANT" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" --build-arg "LOCK=$(lock_digest "$1")" --build-arg "SOURCES=$(sources_digest)" - \
    >"$scratch/$1.log" 2>&1 || explain "$1"
  "$docker" image inspect --format '{{.Size}} {{.Id}}' "mace-to-ace/$1:$VARIANT" \
    | awk -v name="mace-to-ace/$1:$VARIANT" '{ printf "%-28s %5.2f GB  %s\n", name, $1 / 1e9, $2 }'
}

# Why a build failed: in one sentence where we know it, else its last lines
explain() {
  if grep -q 'No matching distribution found for torch==.*+cpu' "$scratch/$1.log"; then
    fail "no CPU build of torch was found. Give the folder with its wheel (WHEELS=DIR) or PyTorch's CPU index" \
      "(PIP_EXTRA_INDEX_URL=ADDRESS; it is on PyTorch's page 'Get started', compute platform CPU), then: make images"
  fi
  tail -n 40 "$scratch/$1.log" >&2
  fail "the image $1 was not built; its last lines are above"
}

if [ "${1:-}" = labels ]; then
  for image in "${IMAGES[@]}"; do echo "$image.lock $(lock_digest "$image")"; done
  echo "sources $(sources_digest)"
  exit
fi
[ $# -eq 0 ] || fail "unknown argument: $*. Settings are variables: make images VARIANT=cuda"
case $VARIANT in cpu | cuda) ;; *) fail "VARIANT is cpu or cuda, not $VARIANT" ;; esac
docker=$(builder)
"$docker" info >/dev/null 2>&1 || fail "no Docker engine answers (docker info). Start one: https://docs.docker.com/engine"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/wheels"
touch "$scratch/ca.pem"
certificates=${PIP_CERT:-${SSL_CERT_FILE:-}}
[ -z "$certificates" ] || cp "$certificates" "$scratch/ca.pem"
pip_conf >"$scratch/pip.conf"
[ "$VARIANT" = cuda ] || wheels
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
for image in "${IMAGES[@]}"; do build "$image"; done
