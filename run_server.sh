#!/usr/bin/env bash
# Starts, stops and shows the servers of a cluster. See ./run_server.sh --help.
set -euo pipefail

usage() {
  cat <<'USAGE'
Start one paxos-server for each server of the cluster file, in the background.

  ./run_server.sh [OPTIONS] [SERVER OPTIONS]   start a new run
  ./run_server.sh --continue [...]             start the latest run again with its data and its options; an option
                                               that is given again replaces the old one
  ./run_server.sh --foreground [...]           start, show the log lines here, stop all servers on Ctrl-C
  ./run_server.sh stop                         stop the servers of the latest run
  ./run_server.sh status                       show the processes of the latest run and the status of the cluster
  ./run_server.sh clean                        remove all runs except the latest and those whose servers run
  ./run_server.sh audit|report|logs|timeline [OPTIONS]
                                               read the log files of the latest run: prove the run, show what it
                                               covers, print the lines, draw them. See: ./run_server.sh audit --help

Options:
  --cluster FILE   cluster file [default: res/cluster.toml]
  --fail WHAT      roles that crash at random times: none, acceptors or all [default: acceptors]
  --seed N         seed of all random times [default: drawn, and shown]
  --protocol P     protocol of the servers: basic-paxos, multi-paxos or two-phase-commit [default: basic-paxos]
All other options go unchanged to each paxos-server: --mean-up 4s, --mean-down 1.5s, --steps off, --restart lost, --lab
(clients may crash roles), --log-max-mib 100 ... See: paxos-server --help. The script checks all options first, and
creates nothing if one is wrong.

Each run has a directory runs/<UTC time>/ with server-N.log (log lines), server-N.err (errors before the first log
line), data/server-N, pids and options. runs/latest points to the latest run. Its journal files are small
(--segment-kib 4096). The environment variable PAXOS_RUNS sets another directory than runs.

Exit codes: 0 success, 1 failure, 2 usage.
USAGE
}

# With CDPATH, cd may enter another directory than the one meant, and prints its name.
unset CDPATH

# The directory of a script, also if it was called through links.
# usage: folder_of SCRIPT
folder_of() {
  local script=$1 folder
  while [[ -L $script ]]; do
    folder=$(cd -- "$(dirname -- "$script")" && pwd -P)
    script=$(readlink -- "$script")
    if [[ $script != /* ]]; then script=$folder/$script; fi
  done
  cd -- "$(dirname -- "$script")" && pwd -P
}

home=$(folder_of "${BASH_SOURCE[0]}")
runs=${PAXOS_RUNS:-$home/runs}
bin=
ready_seconds=20
stop_seconds=10
build_seconds=2

note() { printf '%s\n' "$*" >&2; }
fail() { note "error: $*"; exit 1; }
wrong() { note "error: $*"; note "See ./run_server.sh --help"; exit 2; }

# Servers are found again by the path of their data, so runs becomes the canonical path of its directory.
name_runs() {
  if [[ $runs != /* ]]; then runs=$PWD/$runs; fi
  if [[ -d $runs ]]; then runs=$(cd -- "$runs" && pwd -P); fi
}

make_runs() {
  mkdir -p -- "$runs" || fail "cannot create the directory $runs"
  name_runs
}

# Reads cargo's messages, and reports a slow build; prints the directory of the programs.
hear_cargo() {
  local text='' part state where='' has_told=no
  while true; do
    if IFS= read -r -t "$build_seconds" part; then state=0; else state=$?; fi
    text+=$part
    if ((state > 128)); then
      if [[ $has_told == no ]]; then note "building the programs; the first time, this takes one or two minutes ..."; fi
      has_told=yes
      continue
    fi
    if [[ $text == *'"executable":"'*'/paxos-'* ]]; then
      where=${text##*'"executable":"'}
      where=${where%/paxos-*}
    fi
    text=
    ((state == 0)) || break
  done
  # The path is a JSON string.
  if [[ -n $where ]]; then printf '%s\n' "$where" | sed 's/\\\(.\)/\1/g'; fi
}

# Builds programs, with these options of cargo; sets bin.
# usage: build OPTION...
build() {
  if ! command -v cargo >/dev/null 2>&1; then
    fail "cargo is not installed or not in PATH, and it must build the programs. Install Rust from https://rustup.rs, then open a new shell"
  fi
  bin=$(cargo build --release --quiet --message-format json-render-diagnostics --manifest-path "$home/Cargo.toml" "$@" |
    hear_cargo) || fail "cargo could not build the programs; its messages are above"
  if [[ -z $bin ]]; then bin=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-$home/target}}/release; fi
  [[ -x $bin/paxos-client ]] || fail "cargo has built the programs, but $bin/paxos-client does not exist"
}

# The words that a process was started with, one a line, if it is a server.
# usage: words_of PID
words_of() {
  local words
  kill -0 "$1" 2>/dev/null || return 1
  if [[ -r /proc/$1/cmdline ]]; then
    words=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline") || return 1
  else
    words=$(ps -ww -p "$1" -o args= 2>/dev/null) || return 1
  fi
  [[ $words == *paxos-server* ]] || return 1
  printf '%s\n' "$words"
}

# Whether the process is the server of this data directory: the process number may have been reused.
# usage: is_server PID DATA
is_server() {
  local words
  words=$(words_of "$1") || return 1
  [[ $words$'\n' == *"$2"[[:space:]]* ]]
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

# The numbers of the running servers of a run, separated by spaces.
living() {
  local id pid state alive=()
  while read -r id pid state; do
    if [[ $state == up ]]; then alive+=("$id"); fi
  done < <(servers_of "$1")
  printf '%s' "${alive[*]-}"
}

# Sends a signal to the running servers of a run.
# usage: signal_run RUN SIGNAL
signal_run() {
  local id pid state
  while read -r id pid state; do
    if [[ $state == up ]]; then kill "-$2" "$pid" 2>/dev/null || true; fi
  done < <(servers_of "$1")
}

# Ends the servers of a run with SIGTERM; a server that ignores it is killed.
end_run() {
  signal_run "$1" TERM
  local deadline=$((SECONDS + stop_seconds)) alive
  while alive=$(living "$1") && [[ -n $alive ]] && ((SECONDS < deadline)); do sleep 0.1; done
  if [[ -n $alive ]]; then
    note "server $alive did not stop within $stop_seconds s and is killed"
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

# Where the latest run is.
latest_run() {
  [[ -d $runs/latest ]] || fail "no run in $runs. Next: ./run_server.sh"
  (cd -- "$runs/latest" && pwd -P)
}

# Reads the lines of the latest run; options go to the reader as they are.
# usage: read_lines COMMAND [OPTION...]
read_lines() {
  local command=$1 where
  shift
  where=$(latest_run)
  build --bins
  exec "$bin/paxos-server" "$command" "$where" "$@"
}

stop() {
  local run alive
  run=$(latest_run)
  alive=$(living "$run")
  if [[ -z $alive ]]; then
    echo "no server of $run is running"
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
    if [[ $state == up ]]; then echo "server $id: process $pid is running"; else echo "server $id: process $pid has ended"; fi
  done < <(servers_of "$run")
  build --bins
  "$bin/paxos-client" status --cluster "$run/cluster.toml"
}

# Whether a directory is that of a run, and not something else in the directory of runs.
is_run() {
  [[ ! -L $1 && -d $1/data && ${1##*/} =~ ^[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}-){2}[0-9]{2}Z(-[0-9]+)?$ ]]
}

# Whether any process of a run's list is a server, also one started with another path of the same directory.
may_live() {
  local id pid
  [[ -r $1/pids ]] || return 1
  while read -r id pid; do
    if [[ $pid =~ ^[0-9]+$ ]] && words_of "$pid" >/dev/null; then return 0; fi
  done <"$1/pids"
  return 1
}

clean() {
  local folder latest='' kib=0 size count=0
  if [[ ! -d $runs ]]; then
    echo "no run in $runs"
    return
  fi
  lock
  trap unlock EXIT
  if [[ -d $runs/latest ]]; then latest=$(latest_run); fi
  for folder in "$runs"/*; do
    if [[ $folder == "$latest" ]] || ! is_run "$folder"; then continue; fi
    if may_live "$folder"; then
      note "kept: $folder (its servers are running)"
      continue
    fi
    size=$(du -sk -- "$folder" | cut -f 1)
    rm -rf -- "$folder" || fail "cannot remove $folder"
    count=$((count + 1)) kib=$((kib + size))
  done
  echo "runs removed: $count, $((kib / 1024)) MiB"
  if [[ -n $latest ]]; then echo "kept: $latest (the latest run)"; fi
}

# The value of an option of the servers.
# usage: option_of NAME
option_of() {
  local option
  for option in "${server_options[@]}"; do
    if [[ $option == "$1="* ]]; then printf '%s' "${option#*=}"; fi
  done
}

# An option goes to the servers, in place of one of the same name.
# usage: set_option NAME[=VALUE]
set_option() {
  local option kept=()
  for option in "${server_options[@]}"; do
    if [[ ${option%%=*} != "${1%%=*}" ]]; then kept+=("$option"); fi
  done
  server_options=("${kept[@]}" "$1")
}

# Whether an option is among those of the servers.
has_option() {
  local option
  for option in "${server_options[@]}"; do
    if [[ ${option%%=*} == "$1" ]]; then return 0; fi
  done
  return 1
}

# An option goes to the servers, unless it is named already.
# usage: add_option NAME[=VALUE]
add_option() {
  if ! has_option "${1%%=*}"; then server_options+=("$1"); fi
}

# Adds what the servers of the run had, each option a line; what was named this time stays.
add_options_of_run() {
  local option kept=()
  while IFS= read -r option; do
    if [[ -z $option ]] || has_option "${option%%=*}"; then continue; fi
    kept+=("$option")
  done <"$run/options"
  if ((${#kept[@]} > 0)); then
    server_options+=("${kept[@]}")
    as_before="as before: ${kept[*]}"
  fi
}

# Finds a name for a new run, which only this start uses; sets run.
name_run() {
  local name n
  name=$(date -u +%Y-%m-%dT%H-%M-%SZ)
  run=$runs/$name
  for ((n = 2; n < 100; n++)); do
    if [[ ! -e $run && ! -L $run ]]; then return; fi
    run=$runs/$name-$n
  done
  fail "cannot find an unused name for a run in $runs"
}

# One start at a time; the lock directory names the process that made it.
lock() {
  make_runs
  local holder
  if ! mkdir -- "$runs/.starting" 2>/dev/null; then
    holder=$(cat "$runs/.starting/pid" 2>/dev/null || true)
    if [[ $holder =~ ^[0-9]+$ ]] && kill -0 "$holder" 2>/dev/null; then
      fail "another ./run_server.sh (process $holder) is starting or cleaning in $runs"
    fi
    note "removed the lock of an interrupted start"
    mkdir -p -- "$runs/.starting"
  fi
  echo "$$" >"$runs/.starting/pid"
}

unlock() { rm -rf -- "$runs/.starting"; }

# What follows the program's name for one server; sets arguments.
arguments_of() {
  arguments=(--id "$1" --cluster "$2" --data "$run/data/server-$1" --log-dir "$run" "${server_options[@]}")
}

# Checks whether all servers would start, and reports why not. Nothing is created before that.
check_servers() {
  local id said state arguments
  while read -r id _; do
    arguments_of "$id" "$cluster"
    if said=$("$bin/paxos-server" check "${arguments[@]}" 2>&1); then continue; else state=$?; fi
    note "$said"
    if ((state == 2)); then note "See ./run_server.sh --help"; fi
    exit "$state"
  done <<<"$members"
}

# Starts the process of one server; its number and process go to the run's list.
start_server() {
  local id=$1 arguments
  arguments_of "$id" "$run/cluster.toml"
  if [[ $foreground == yes ]]; then
    "$bin/paxos-server" "${arguments[@]}" </dev/null &
  else
    nohup "$bin/paxos-server" "${arguments[@]}" --quiet >/dev/null 2>"$run/server-$id.err" </dev/null &
  fi
  echo "$id $!" >>"$run/pids"
}

# The last lines of a server that has ended.
say_why() {
  local line
  note "server $1 ended during the start:"
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
  if ((${#ended[@]} > 1)); then note "all servers that ended: ${ended[*]}"; fi
}

# Waits until every server answers and writes are possible; false if one has ended, or if time is up.
await_servers() {
  local deadline=$((SECONDS + ready_seconds)) answer
  while ((SECONDS < deadline)); do
    if answer=$("$bin/paxos-client" status --cluster "$run/cluster.toml" --wait 500ms 2>&1); then
      # Another process may reply at the same address: the servers of this run must be running.
      if some_have_ended; then return 1; fi
      return 0
    fi
    if some_have_ended; then return 1; fi
  done
  note "the cluster was not ready within $ready_seconds s:"
  note "$answer"
  return 1
}

# Gives up a start: its servers end, and the latest run is again the one before. A new run without log lines is removed.
give_up() {
  local file
  end_children
  if [[ $continued == yes ]]; then return; fi
  if [[ -n $previous ]]; then ln -sfn -- "$previous" "$runs/latest"; else rm -f -- "$runs/latest"; fi
  for file in "$run"/*.log; do
    if [[ -s $file ]]; then return; fi
  done
  rm -rf -- "$run"
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
    printf "$form" server 'for servers' 'for clients' process log 'data directory'
    while read -r id peer client _; do
      printf "$form" "$id" "$peer" "$client" "$(process_of "$id")" "server-$id.log" "data/server-$id"
    done <<<"$members"
  }
  page=$(awk 'NF > 3 { print $4; exit }' <<<"$members")
  if [[ -n $page ]]; then echo "watch it: http://$page/ (the page of each server shows all servers)"; fi
  if [[ -n $as_before ]]; then echo "$as_before"; fi
  echo "protocol: $(option_of --protocol)   failures: $(option_of --fail)   seed: $(option_of --seed)"
}

keep_options() { printf '%s\n' "${server_options[@]}" >"$run/options"; }

# The run to continue, and the options of its servers; sets run and cluster.
prepare_continued() {
  # The run's own copy names the servers that its data belongs to.
  cluster=${cluster:-$run/cluster.toml}
  if [[ -e $run/options ]]; then add_options_of_run; fi
}

# The defaults of a run: its acceptors fail, its seed repeats the same failures, and its journal files are small.
add_usual_options() {
  add_option --fail=acceptors
  add_option "--seed=$((RANDOM * 32768 + RANDOM))"
  add_option --protocol=basic-paxos
  add_option --segment-kib=4096
}

start() {
  local alive id is_told=no
  if [[ -d $runs/latest ]]; then
    run=$(latest_run)
    alive=$(living "$run")
    if [[ -n $alive ]]; then
      fail "server $alive of $run is already running. Next: ./run_server.sh stop"
    fi
  elif [[ $continued == yes ]]; then
    latest_run
  fi
  build --bins
  lock
  trap unlock EXIT
  if has_option --protocol && has_option --fail; then is_told=yes; fi
  if [[ $continued == yes ]]; then prepare_continued; else name_run; fi
  add_usual_options
  cluster=${cluster:-$home/res/cluster.toml}
  members=$("$bin/paxos-client" servers --cluster "$cluster") || exit 1
  check_servers
  if [[ $continued == yes && ! -e $run/options && $is_told == no ]]; then
    fail "an earlier build created $run and did not save its options. Give them: ./run_server.sh --continue --protocol P --fail WHAT"
  fi
  previous=$(readlink -- "$runs/latest" || true)
  # From here on a signal must not leave half a cluster behind.
  trap 'trap "" INT TERM HUP; give_up; exit 130' INT TERM HUP
  mkdir -p -- "$run/data" || fail "cannot create the directory $run"
  if [[ ! $cluster -ef $run/cluster.toml ]]; then cp -- "$cluster" "$run/cluster.toml"; fi
  : >"$run/pids"
  if [[ $continued == no ]]; then
    keep_options
    ln -sfn -- "$(basename -- "$run")" "$runs/latest"
  fi
  while read -r id _; do start_server "$id"; done <<<"$members"
  if ! await_servers; then
    give_up
    if [[ -d $run ]]; then note "its files are in $run"; fi
    fail "the cluster was not started; none of its servers is running"
  fi
  # A continued run saves its options only now: options with which it cannot start are not its own.
  keep_options
  unlock
  show_table
  if [[ $foreground == yes ]]; then
    # Before the sentence that asks for it: a Ctrl-C that comes at once must not be taken for one during the start.
    trap 'trap "" INT TERM HUP; end_children; echo "stopped: all servers of $run"; exit 0' INT TERM HUP
    echo "Ctrl-C stops all servers."
    wait
    fail "all servers have ended without Ctrl-C. Their files are in $run"
  fi
  echo "Next: ./run_client.sh, at the end ./run_server.sh stop"
}

# Another script that only builds stops here.
if [[ ${BASH_SOURCE[0]} != "$0" ]]; then return; fi

name_runs
case ${1-} in
  audit | report | logs | timeline) read_lines "$@" ;;
esac
action=start foreground=no continued=no cluster='' run='' previous='' members='' as_before='' server_options=()
count=$#
while (($# > 0)); do
  case $1 in
    stop | status | clean)
      if ((count > 1)); then wrong "'$1' takes no other arguments"; fi
      action=$1
      ;;
    -h | --help) usage; exit 0 ;;
    --foreground) foreground=yes ;;
    --continue) continued=yes ;;
    --cluster) (($# > 1)) || wrong "--cluster needs a file"; cluster=$2; shift ;;
    --cluster=*) cluster=${1#*=} ;;
    --id | --id=* | --data | --data=* | --log-dir | --log-dir=* | --http | --http=* | --quiet)
      wrong "this script sets ${1%%=*} itself, because each server needs its own"
      ;;
    *$'\n'*) wrong "an option must not contain a line break" ;;
    --?*=*) set_option "$1" ;;
    --?*)
      # A word without dashes is the option's value. (Whether it wants one is the server's business: it checks.)
      if (($# > 1)) && [[ $2 != -* ]]; then
        set_option "$1=$2"
        shift
      else
        set_option "$1"
      fi
      ;;
    -*) wrong "unknown option '$1'" ;;
    *) wrong "unknown command '$1' (known: stop, status, clean, audit, report, logs, timeline; to start a run, give only options)" ;;
  esac
  shift
done
if [[ -n $cluster && ! -r $cluster ]]; then fail "cannot read the cluster file $cluster"; fi

"$action"
