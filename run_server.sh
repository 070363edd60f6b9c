#!/usr/bin/env bash
# Starts, stops and shows the servers of a cluster. See ./run_server.sh --help.
set -euo pipefail

usage() {
  cat <<'USAGE'
Starts one paxos-server for each server of the cluster file, in the background.

  ./run_server.sh [OPTIONS] [SERVER OPTIONS]   start a new run
  ./run_server.sh --continue [...]             start again on the data of the latest run
  ./run_server.sh --foreground [...]           start, show the lines here, end all with Ctrl-C
  ./run_server.sh stop                         end the servers of the latest run
  ./run_server.sh status                       show which processes run, and how the cluster is

Options:
  --cluster FILE   the cluster file [default: res/cluster.toml]
  --fail WHAT      which roles fail at random: none, acceptors, all [default: acceptors]
  --seed N         fixes all random times [default: drawn, and shown]
  --protocol P     how the servers agree: basic-paxos, multi-paxos or two-phase-commit [default: basic-paxos]
Everything else goes to each paxos-server as it is: --mean-up 4s, --mean-down 1.5s, --steps off, --restart lost, --lab
(lets clients crash roles) ... See: paxos-server --help

Each run has a folder runs/<UTC time>/ with server-N.log (the lines), server-N.err (errors before the first line),
data/server-N and pids; runs/latest points to it. The environment variable PAXOS_RUNS names another folder than runs.

Exit codes: 0 done, 1 failure, 2 usage.
USAGE
}

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
runs=${PAXOS_RUNS:-$home/runs}
bin=
ready_seconds=20
stop_seconds=10

note() { printf '%s\n' "$*" >&2; }
fail() { note "error: $*"; exit 1; }
wrong() { note "error: $*"; note "See ./run_server.sh --help"; exit 2; }

# Builds the programs; sets bin.
build() {
  if ! command -v cargo >/dev/null 2>&1; then
    fail "cargo is not installed or not in PATH: it builds the servers. Install Rust from https://rustup.rs, open a new shell and try again"
  fi
  cargo build --release --quiet --bins --manifest-path "$home/Cargo.toml" \
    || fail "the programs could not be built; the compiler's message is above"
  # cargo itself knows where it builds to.
  local target
  target=${CARGO_TARGET_DIR:-$home/target}
  bin=$target/release
  [[ -x $bin/paxos-server ]] || fail "cargo has built the programs, and $bin/paxos-server is not there"
}

# Whether the process is the server of this data folder: a number that has been given to another process is not.
# usage: is_server PID DATA
is_server() {
  kill -0 "$1" 2>/dev/null || return 1
  local words
  if [[ -r /proc/$1/cmdline ]]; then
    words=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline") || return 1
  else
    words=$(ps -ww -p "$1" -o args= 2>/dev/null) || return 1
  fi
  [[ $words == *paxos-server* && $words == *"$2"* ]]
}

# The servers of a run, one a line: number, process, and "up" or "ended".
servers_of() {
  local id pid
  [[ -r $1/pids ]] || return 0
  while read -r id pid; do
    [[ $id =~ ^[0-9]+$ && $pid =~ ^[0-9]+$ ]] || continue
    if is_server "$pid" "$1/data/server-$id"; then echo "$id $pid up"; else echo "$id $pid ended"; fi
  done <"$1/pids"
}

# The numbers of the servers of a run that live, separated by spaces.
living() {
  local id pid state alive=()
  while read -r id pid state; do
    if [[ $state == up ]]; then alive+=("$id"); fi
  done < <(servers_of "$1")
  printf '%s' "${alive[*]-}"
}

# Sends a signal to those servers of a run that live.
# usage: signal_run RUN SIGNAL
signal_run() {
  local id pid state
  while read -r id pid state; do
    if [[ $state == up ]]; then kill "-$2" "$pid" 2>/dev/null || true; fi
  done < <(servers_of "$1")
}

# Ends the servers of a run: first they are asked, and who does not listen is killed.
end_run() {
  signal_run "$1" TERM
  local deadline=$((SECONDS + stop_seconds)) alive
  while alive=$(living "$1") && [[ -n $alive ]] && ((SECONDS < deadline)); do sleep 0.1; done
  if [[ -n $alive ]]; then
    note "server $alive does not end within $stop_seconds s and is killed"
    signal_run "$1" KILL
  fi
}

# Ends what this script itself has started: those are its children, whatever they have become so far.
end_children() {
  local children deadline=$((SECONDS + stop_seconds))
  children=$(jobs -pr)
  # shellcheck disable=SC2086 # one word a process
  if [[ -n $children ]]; then kill -TERM $children 2>/dev/null || true; fi
  while children=$(jobs -pr) && [[ -n $children ]] && ((SECONDS < deadline)); do sleep 0.1; done
  # shellcheck disable=SC2086
  if [[ -n $children ]]; then kill -KILL $children 2>/dev/null || true; fi
}

latest_run() {
  [[ -d $runs/latest ]] || fail "there is no run in $runs. Start one: ./run_server.sh"
  (cd -- "$runs/latest" && pwd -P)
}

stop() {
  local run alive
  run=$(latest_run)
  alive=$(living "$run")
  if [[ -z $alive ]]; then
    echo "no server of $run runs"
    return
  fi
  end_run "$run"
  echo "stopped: server $alive of $run"
}

status() {
  local run id pid state
  run=$(latest_run)
  echo "run: $run"
  while read -r id pid state; do
    if [[ $state == up ]]; then echo "server $id: process $pid runs"; else echo "server $id: process $pid has ended"; fi
  done < <(servers_of "$run")
  build
  "$bin/paxos-client" status --cluster "$run/cluster.toml"
}

# The value of an option of the started servers, as they were given it.
# usage: option_of NAME
option_of() {
  local n
  for ((n = 0; n < ${#server_options[@]}; n++)); do
    case ${server_options[n]} in
      "$1") printf '%s' "${server_options[n + 1]-}" ;;
      "$1="*) printf '%s' "${server_options[n]#*=}" ;;
    esac
  done
}

# Makes a folder for a new run that no other start has made; sets run.
new_run() {
  local name n
  mkdir -p -- "$runs" || fail "cannot make the folder $runs"
  name=$(date -u +%Y-%m-%dT%H-%M-%SZ)
  run=$runs/$name
  for ((n = 2; n < 100; n++)); do
    if mkdir -- "$run" 2>/dev/null; then
      mkdir -- "$run/data"
      return
    fi
    [[ -d $run ]] || fail "cannot make the folder $run"
    run=$runs/$name-$n
  done
  fail "cannot find a free name for a run in $runs"
}

# One start at a time; the folder that says so names the process that made it.
lock() {
  mkdir -p -- "$runs" || fail "cannot make the folder $runs"
  local holder
  if ! mkdir -- "$runs/.starting" 2>/dev/null; then
    holder=$(cat "$runs/.starting/pid" 2>/dev/null || true)
    if [[ $holder =~ ^[0-9]+$ ]] && kill -0 "$holder" 2>/dev/null; then
      fail "another ./run_server.sh (process $holder) is starting servers in $runs"
    fi
    note "a start that was cut short is cleared away"
    mkdir -p -- "$runs/.starting"
  fi
  echo "$$" >"$runs/.starting/pid"
}

unlock() { rm -rf -- "$runs/.starting"; }

# Starts the process of one server; its number and process go to the run's list.
start_server() {
  local id=$1
  local command=("$bin/paxos-server" --id "$id" --cluster "$run/cluster.toml" --data "$run/data/server-$id"
    --log-dir "$run" "${server_options[@]}")
  if [[ $foreground == yes ]]; then
    "${command[@]}" </dev/null &
  else
    nohup "${command[@]}" --quiet >/dev/null 2>"$run/server-$id.err" </dev/null &
  fi
  echo "$id $!" >>"$run/pids"
}

# What a server that has ended has said last.
say_why() {
  local line
  note "server $1 has ended right after its start:"
  [[ -s $run/server-$1.err ]] || return 0
  while IFS= read -r line; do note "  $line"; done < <(tail -n 5 -- "$run/server-$1.err")
}

# Whether servers have ended that this script has started; if so, says which, and why the first has.
some_have_ended() {
  local id pid ended=()
  while read -r id pid; do
    if ! kill -0 "$pid" 2>/dev/null; then ended+=("$id"); fi
  done <"$run/pids"
  ((${#ended[@]} > 0)) || return 1
  say_why "${ended[0]}"
  if ((${#ended[@]} > 1)); then note "ended in all: server ${ended[*]}"; fi
}

# Waits until every server answers and writes are possible; false if one has ended, or if time is up.
await_servers() {
  local deadline=$((SECONDS + ready_seconds)) answer
  while ((SECONDS < deadline)); do
    if answer=$("$bin/paxos-client" status --cluster "$run/cluster.toml" --await 500ms 2>&1); then
      # Whoever answers may be a stranger at the same address: ours must live.
      if some_have_ended; then return 1; fi
      return 0
    fi
    if some_have_ended; then return 1; fi
  done
  note "the cluster is not ready within $ready_seconds s:"
  note "$answer"
  return 1
}

# Gives up a start: nothing of it goes on, and the latest run is again the one before.
give_up() {
  end_children
  if [[ $continued == no ]]; then
    if [[ -n $previous ]]; then ln -sfn -- "$previous" "$runs/latest"; else rm -f -- "$runs/latest"; fi
  fi
}

# The process of a server in the run's list.
process_of() {
  local id pid
  while read -r id pid; do
    if [[ $id == "$1" ]]; then printf '%s' "$pid"; fi
  done <"$run/pids"
}

show_table() {
  local id peer client page form='%-6s  %-21s  %-21s  %-8s  %-13s  %s\n'
  echo "run: $run"
  # shellcheck disable=SC2059 # the form is a constant
  {
    printf "$form" server 'for servers' 'for clients' process log 'data folder'
    while read -r id peer client _; do
      printf "$form" "$id" "$peer" "$client" "$(process_of "$id")" "server-$id.log" "data/server-$id"
    done <<<"$members"
  }
  page=$(awk 'NF > 3 { print $4; exit }' <<<"$members")
  if [[ -n $page ]]; then echo "watch it: http://$page/ (the page of any server shows all)"; fi
  echo "protocol: $(option_of --protocol)   failures: $(option_of --fail)   seed: $(option_of --seed)"
}

start() {
  local alive id
  if [[ -d $runs/latest ]]; then
    run=$(latest_run)
    alive=$(living "$run")
    if [[ -n $alive ]]; then
      fail "server $alive of $run runs already. Stop it first: ./run_server.sh stop"
    fi
  elif [[ $continued == yes ]]; then
    latest_run
  fi
  build
  lock
  trap unlock EXIT
  if [[ $continued == yes && -z $cluster ]]; then
    # The run's own copy names the servers that its data belongs to.
    cluster=$run/cluster.toml
  fi
  cluster=${cluster:-$home/res/cluster.toml}
  members=$("$bin/paxos-client" servers --cluster "$cluster") || exit 1
  previous=$(readlink -- "$runs/latest" || true)
  if [[ $continued == no ]]; then
    new_run
    ln -sfn -- "$(basename -- "$run")" "$runs/latest"
  fi
  if [[ ! $cluster -ef $run/cluster.toml ]]; then cp -- "$cluster" "$run/cluster.toml"; fi
  : >"$run/pids"
  # From here on a signal must not leave half a cluster behind.
  trap 'trap "" INT TERM HUP; give_up; exit 130' INT TERM HUP
  while read -r id _; do start_server "$id"; done <<<"$members"
  if ! await_servers; then
    give_up
    fail "the cluster was not started, and nothing of it runs. Its files: $run"
  fi
  unlock
  show_table
  if [[ $foreground == yes ]]; then
    echo "Ctrl-C ends all servers."
    trap 'trap "" INT TERM HUP; end_children; echo "stopped: all servers of $run"; exit 0' INT TERM HUP
    wait
    fail "all servers have ended by themselves. Their files: $run"
  fi
  echo "Next: ./run_client.sh, and in the end ./run_server.sh stop"
}

action=start foreground=no continued=no cluster='' run='' previous='' members='' server_options=()
has_fail=no has_seed=no has_protocol=no
while (($# > 0)); do
  case $1 in
    stop | status)
      if (($# > 1)) || [[ $action != start || ${#server_options[@]} -gt 0 ]]; then wrong "'$1' stands alone"; fi
      action=$1
      ;;
    -h | --help) usage; exit 0 ;;
    --foreground) foreground=yes ;;
    --continue) continued=yes ;;
    --cluster) (($# > 1)) || wrong "--cluster wants a file"; cluster=$2; shift ;;
    --cluster=*) cluster=${1#*=} ;;
    --id | --id=* | --data | --data=* | --log-dir | --log-dir=* | --http | --http=* | --quiet)
      wrong "${1%%=*} is chosen by this script: every server gets its own"
      ;;
    --fail | --seed | --protocol)
      (($# > 1)) || wrong "$1 wants a value"
      printf -v "has_${1#--}" yes
      server_options+=("$1" "$2")
      shift
      ;;
    --fail=* | --seed=* | --protocol=*)
      option=${1%%=*}
      printf -v "has_${option#--}" yes
      server_options+=("$1")
      ;;
    *) server_options+=("$1") ;;
  esac
  shift
done
if [[ -n $cluster && ! -r $cluster ]]; then fail "the cluster file $cluster cannot be read"; fi
# What a run is without being told: its acceptors fail, and whoever wants the same failures again has the seed.
if [[ $has_fail == no ]]; then server_options+=(--fail acceptors); fi
if [[ $has_seed == no ]]; then server_options+=(--seed $((RANDOM * 32768 + RANDOM))); fi
if [[ $has_protocol == no ]]; then server_options+=(--protocol basic-paxos); fi

"$action"
