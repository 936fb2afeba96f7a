#!/usr/bin/env bash
# make container-test [BUILD_OPTIONS=...]: build the image with buildah, serve the mixed site from it as any
# user, read each device. Without a registry it stands on a small Debian of the same Python.
set -euo pipefail
cd "$(dirname "$0")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
base=docker.io/library/python:3.13-slim

stand_in() {
  local container folder
  folder=$(mktemp -d)
  mmdebstrap --quiet --variant=apt --include=python3,python3-venv,ca-certificates trixie "$folder/base.tar"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$folder/base.tar" /
  buildah run "$container" ln -s /usr/bin/python3 /usr/local/bin/python
  buildah commit --quiet --rm "$container" "$base"
  rm -r "$folder"
}

read_device() {
  "${VENV:-.venv}/bin/dertwin" read --rtu-over-tcp "127.0.0.1:$1" "$2" "$3"
}

buildah inspect --type image "$base" >/dev/null 2>&1 || buildah pull "$base" 2>/dev/null || stand_in
# In Docker's own format: OCI's has no health check.
buildah build --format docker --pull-never --tag dertwin-simulator "$@" .
container=$(buildah from --pull-never dertwin-simulator)
# A chroot ends none of its processes; a process namespace does.
unshare --pid --fork --kill-child --mount-proc \
  buildah run --user 12345:12345 --env CONFIG_PATH=/app/configs/mixed_protocol_config.json \
  "$container" -- python -m bench.container &
served=$!
trap 'kill -KILL $served 2>/dev/null || true; wait $served 2>/dev/null || true; buildah rm "$container" >/dev/null' EXIT
health=$(sed -n 's/^ *CMD \["sh", "-c", \(".*"\)\]$/\1/p' Dockerfile | python3 -c 'import json; print(json.loads(input()))')
for _ in {1..60}; do
  kill -0 $served
  sh -c "$health" && read_device 56002 energy_meter_modbus.yaml frequency && break
  sleep 1
done
read_device 56001 pv_inverter_modbus.yaml active_power
"${VENV:-.venv}/bin/dertwin" read 127.0.0.1:55001 bess_modbus.yaml soc
echo "The image works."
