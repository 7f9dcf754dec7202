#!/usr/bin/env bash
# Verifies the container image: builds it, runs it as docker-compose.yml does, uses it, stops it and kills it.
# Exits with 0 only if every check passes; removes its containers, volumes and images.
#
#   deploy/verify_image.sh          uses docker, or podman if there is no docker
#   HERE=1 deploy/verify_image.sh   if no image can be pulled: builds the base image from Debian packages and runs
#                                   containers without systemd. Needs root on Debian 12 and the packages podman (which
#                                   builds with buildah), runc, netavark, iptables and debootstrap
#
#   EXTRA=gpu    verify the image for NVIDIA GPUs (on the CPU if there is no GPU)
#   BASE=IMAGE   base image to use instead of the Dockerfile's
#   MODELS=DIR   models to serve instead of the image's
#   STATE=DIR    with HERE: folder that keeps the base image and the build cache for the next run
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${EXTRA:-cpu}
image=localhost/vireid-proof:$extra
container=vireid-proof-$$
volume=vireid-proof-$$
port=8000
engine=docker
options=()
if ! command -v docker >/dev/null; then
    engine=podman
    options=(--read-only-tmpfs=false) # as in docker: no other folder becomes writable
fi

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() {
    say "FAILED: $*" >&2
    "$engine" logs "$container" >&2 || true
    exit 1
}

clean_up() {
    {
        "$engine" rm --force "$container"
        "$engine" volume rm --force "$volume"
        "$engine" rmi --force "$image"
        [[ -z ${scratch:-} ]] || rm -rf --one-file-system "$scratch"
    } >/dev/null 2>&1 || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Store containers and images in a separate folder, and build the base image from Debian packages.
prepare_here() {
    local state=${STATE:-}
    [[ -n $state ]] || state=$(mktemp --directory) scratch=$state
    mkdir -p "$state"
    cat >"$state/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    cat >"$state/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$state/images"
runroot = "$state/run"
CONF
    export CONTAINERS_CONF=$state/containers.conf CONTAINERS_STORAGE_CONF=$state/storage.conf
    engine=podman options=(--read-only-tmpfs=false --no-healthcheck) # without systemd no timer would run it
    BASE=localhost/vireid-base
    if ! "$engine" image exists "$BASE"; then
        rm -rf --one-file-system "$state/base"
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$state/base" \
            >"$state/debootstrap.log" || { tail "$state/debootstrap.log" >&2 && exit 1; }
        cp /etc/ssl/certs/ca-certificates.crt "$state/base/etc/ssl/certs/" # the certificates that this machine trusts
        rm -rf "$state"/base/var/{cache/apt,lib/apt/lists}/* "$state"/base/usr/share/{doc,info,locale,man}/*
        tar -C "$state/base" -c . | "$engine" import --quiet - "$BASE" >/dev/null
        rm -rf --one-file-system "$state/base"
        say "base image built from Debian packages, $(size_of "$BASE")"
    fi
}

size_of() { "$engine" image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'; }

start() {
    "$engine" run --detach --name "$container" --read-only --tmpfs /tmp:size=1g,noexec,nosuid,nodev --cap-drop ALL \
        --security-opt no-new-privileges --memory 2g --publish "127.0.0.1::$port" --volume "$volume:/data" \
        "${options[@]}" "$image" >/dev/null
    local from=$SECONDS address
    address=$("$engine" port "$container" "$port")
    until get "$address" /readyz; do
        [[ $("$engine" inspect --format '{{.State.Running}}' "$container") == true ]] || fail "the server ended while starting"
        ((SECONDS - from < 120)) || fail "/readyz is not 200 after 120 s"
        sleep 0.5
    done
    say "ready $((SECONDS - from)) s after the start, reached from outside at $address"
}

get() {
    python3 -c 'import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=5)
c.request("GET", sys.argv[2])
sys.exit(c.getresponse().status != 200)' "$@" 2>/dev/null
}

# Runs the image without a server and with a writable root file system, so that only permissions restrict the user.
in_image() { "$engine" run --rm --interactive --network none --no-healthcheck --entrypoint python3 "$@"; }

in_container() { "$engine" exec --interactive "$container" "$@"; }

admin_keys() { "$engine" logs "$container" 2>&1 | grep -oE 'vireid_[A-Za-z0-9_-]{43}' || true; }

# Searches with the Python client of the image; `fill` creates the gallery first. Prints the items and the hits.
use() {
    in_container env KEY="$key" python3 - "$1" <<'PYTHON'
import io, json, os, sys
from PIL import Image
from vireid.client import ApiError, Client, Filter, ItemFields
from vireid.drawing import draw_person
from models.card import Modality

def image(identity, modality, seed):
    file = io.BytesIO()
    Image.fromarray(draw_person(identity, modality, seed=seed)).save(file, "PNG")
    return file.getvalue()

try:
    list(Client().galleries())
    sys.exit("the server answers without a key")
except ApiError as error:
    assert error.status == 401, error

client = Client(key=os.environ["KEY"])
if sys.argv[1] == "fill":
    client.create_gallery("night")
    written = client.add_items("night", (
        (image(identity, Modality.INFRARED, seed),
         ItemFields(id=f"{identity}-{seed}", identity=str(identity), modality="infrared", camera=f"c{seed}"))
        for identity in range(8) for seed in range(2)
    ))
    assert [item.status for item in written] == ["added"] * 16, written
answer = client.search("night", [image(3, Modality.VISIBLE, 7)], modality="visible", k=5,
                       filter=Filter(modality="opposite"))
assert len(answer.hits) == 5 and answer.searched == 16, answer
ids = [item.id for item in client.items("night")]
print(json.dumps({"items": len(ids), "model": answer.model, "hits": [[hit.item.id, hit.score] for hit in answer.hits]}))
PYTHON
}

# --- the image ---------------------------------------------------------------------------------------------------

[[ -z ${HERE:-} ]] || prepare_here
# Docker's image format, because OCI has no health check; --network host for builders without a bridge.
export BUILDAH_FORMAT=docker
"$engine" build --network host --tag "$image" --build-arg EXTRA="$extra" \
    ${BASE:+--build-arg BASE="$BASE"} . >&2
say "image built, $(size_of "$image") with its base"

[[ -z ${MODELS:-} ]] || options+=(--volume "$(realpath "$MODELS"):/models:ro" --env VIREID_MODEL_DIR=/models)

in_image --user 0 "$image" - <<'PYTHON' || fail "the image contains unneeded files"
import importlib.util, pathlib, shutil, sys
tools = [t for t in ("cc", "gcc", "g++", "make", "git", "curl", "pip", "pip3", "uv") if shutil.which(t)]
modules = [m for m in ("pip", "torch", "pytest") if importlib.util.find_spec(m)]
home = pathlib.Path("/opt/vireid")
files = [p for p in home.rglob("*") if p.name in ("tests", ".git", ".cache", "vireid-data", "runs")]
files += [p for p in map(pathlib.Path, ("/root/.cache", "/src", "/pip")) if p.exists()]
sys.exit(print("found:", tools, modules, files) or 1 if tools or modules or files else 0)
PYTHON
say "the image has no build tools, installer, cache or tests"

in_image "$image" - <<'PYTHON' || fail "the image's user can write outside its folders"
import os, sys
allowed = {"/data", "/tmp", "/var/tmp", "/run/lock", "/dev", "/proc", "/sys"}
writable = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in allowed]
    paths = [folder, *(os.path.join(folder, name) for name in files)]
    writable += [path for path in paths if not os.path.islink(path) and os.access(path, os.W_OK)]
sys.exit(print("user", os.getuid(), "can write", writable[:20]) or 1 if writable or os.getuid() == 0 else 0)
PYTHON
say "its user is not root and can write only to /data and the folders for temporary files"

# --- in use ------------------------------------------------------------------------------------------------------

"$engine" volume create "$volume" >/dev/null
start
key=$(admin_keys)
[[ $(wc -w <<<"$key") == 1 ]] || fail "expected the admin key once in the log, found $(wc -w <<<"$key")"
say "admin key printed once"

in_container python3 - <<'PYTHON' || fail "the server process has too many privileges"
import os, sys
status = dict(line.split(":\t", 1) for line in open("/proc/1/status").read().splitlines())
command = open("/proc/1/cmdline").read().split("\0")[:-1]
assert command[-2:] == ["/opt/vireid/bin/vireid", "serve"], command
assert set(status["Uid"].split()) == {"10001"}, status["Uid"]
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1", status
for folder in ("/", "/opt/vireid", "/var/tmp", "/data", "/tmp"):
    try:
        open(os.path.join(folder, "probe"), "w").close()
        os.unlink(os.path.join(folder, "probe"))
        assert folder in ("/data", "/tmp"), f"{folder} is writable"
    except OSError:
        assert folder not in ("/data", "/tmp"), f"{folder} is not writable"
PYTHON
say "process 1 is 'vireid serve' as user 10001, without capabilities; only /data and /tmp are writable"

mapfile -t check < <("$engine" image inspect "$image" | python3 -c 'import json, sys
image = json.load(sys.stdin)[0]
check = image.get("Healthcheck") or image["Config"]["Healthcheck"]  # podman or docker
print(*check["Test"][1:], sep="\n")')
in_container "${check[@]}" || fail "the health check fails"
say "health check passes"

before=$(use fill) || fail "the gallery cannot be used"
say "gallery created and searched: $before"

from=$SECONDS
"$engine" stop --time 20 "$container" >/dev/null
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$container")
[[ $code == 0 ]] || fail "stopped by SIGTERM, it exited with $code"
((SECONDS - from < 10)) || fail "SIGTERM took $((SECONDS - from)) s"
say "SIGTERM: exit 0 in $((SECONDS - from)) s"

for end in stop kill; do
    [[ $end == stop ]] || "$engine" kill --signal KILL "$container" >/dev/null
    "$engine" rm --force "$container" >/dev/null
    start
    [[ -z $(admin_keys) ]] || fail "a later start prints a key"
    after=$(use search) || fail "the gallery cannot be searched after the $end"
    [[ $after == "$before" ]] || fail "after the $end: $after"
    say "a new container over the same volume, after the $end: the same items, the same hits"
done

say "PASSED"
