#!/usr/bin/env bash
# Runs paxos-client against the servers of the latest run: the scripted demo, or any other command.
set -euo pipefail

unset CDPATH
script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  folder=$(cd -- "$(dirname -- "$script")" && pwd -P)
  script=$(readlink -- "$script")
  if [[ $script != /* ]]; then script=$folder/$script; fi
done
# How to build, and where the runs are: as in the other script.
# shellcheck source=run_server.sh
source "$(dirname -- "$script")/run_server.sh"

usage() {
  cat <<'USAGE'
Runs the client against the servers that ./run_server.sh has started.

  ./run_client.sh                        run the demo: pre-population, 5 PUT, 5 GET, 5 DELETE, and the check
  ./run_client.sh --clients 3            run the demo with three clients at once
  ./run_client.sh --scenes all           add malformed bytes, two clients on one key, a majority outage and a
                                         leader crash (the last two need ./run_server.sh --lab)
  ./run_client.sh put color "deep blue"  run any command of paxos-client

Options and commands are passed on to paxos-client unchanged; see: ./run_client.sh help. Log lines go to the directory
of the run: client-1.log, client-2.log ... for the demo, client.log for other commands. The environment variable
PAXOS_RUNS names another directory than runs.
USAGE
}

# Whether these words name a command: a word that is neither an option nor an option's value.
# usage: has_command WORD...
has_command() {
  while (($# > 0)); do
    case $1 in
      help | -h | --help | -V | --version) return 0 ;;
      --?*=*) ;;
      # Each option that can stand without a command wants a value.
      -*) if (($# > 1)); then shift; fi ;;
      *) return 0 ;;
    esac
    shift
  done
  return 1
}

case ${1-} in
  -h | --help) usage; exit 0 ;;
esac
if ! has_command "$@"; then set -- demo "$@"; fi
name_runs
build --bin paxos-client

# The run's own copy of the cluster file names the servers that were started; the client finds its log folder there.
if [[ -r $runs/latest/cluster.toml ]]; then
  export PAXOS_CLUSTER=${PAXOS_CLUSTER:-$runs/latest/cluster.toml}
elif [[ $1 != help ]]; then
  note "note: there is no run in $runs; continuing without a log file. Next: ./run_server.sh"
fi
export PAXOS_RUNS=$runs
exec "$bin/paxos-client" "$@"
