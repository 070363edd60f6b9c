#!/usr/bin/env bash
# Runs paxos-client against the servers of the latest run: the scripted demo, or any other command.
set -euo pipefail

usage() {
  cat <<'USAGE'
Runs the client against the servers that ./run_server.sh has started.

  ./run_client.sh                        the demo: pre-population, 5 PUT, 5 GET, 5 DELETE, and the check
  ./run_client.sh --clients 3            the same by three clients at once
  ./run_client.sh --scenes all           with malformed bytes, two clients on one key, and a majority outage
                                         (the outage needs ./run_server.sh --lab)
  ./run_client.sh put color "deep blue"  any command of paxos-client

Options and commands go to paxos-client as they are; see: ./run_client.sh help. Its lines go to the run's folder, as
client-1.log, client-2.log ... The environment variable PAXOS_RUNS names another folder than runs.
USAGE
}

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
runs=${PAXOS_RUNS:-$home/runs}

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

case ${1-} in
  -h | --help) usage; exit 0 ;;
esac
if ! command -v cargo >/dev/null 2>&1; then
  fail "cargo is not installed or not in PATH: it builds the client. Install Rust from https://rustup.rs, open a new shell and try again"
fi
cargo build --release --quiet --bin paxos-client --manifest-path "$home/Cargo.toml" \
  || fail "the client could not be built; the compiler's message is above"
client=${CARGO_TARGET_DIR:-$home/target}/release/paxos-client

# The run's own copy of the cluster file names the servers that were started; the client finds its log folder there.
if [[ -r $runs/latest/cluster.toml ]]; then
  export PAXOS_CLUSTER=${PAXOS_CLUSTER:-$runs/latest/cluster.toml}
elif [[ ${1-} != help ]]; then
  printf 'note: there is no run in %s; start the servers with ./run_server.sh. Going on without a log file.\n' "$runs" >&2
fi
export PAXOS_RUNS=$runs
exec "$client" "$@"
