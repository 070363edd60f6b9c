//! What `paxos-client` does with its command line.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use super::arguments::{
    BenchArgs, BenchCommand, Cli, Command, Common, DemoArgs, Form, LoadArgs, Scenes, SweepArgs, Target, with_demo,
};
use super::backup::{self, NoBackup};
use super::bench::{self, BenchError, Plan, Sweep};
use super::demo::Demo;
use super::identity::Identity;
use super::outcome::{ClientError, Found, Outcome};
use super::perform::{Counts, Done, outcome_words, perform};
use super::print::Printer;
use super::status::Survey;
use super::stub::{Client, ClientOptions, check_limits};
use super::workload::{self, Action, Operation, shown};
use crate::cluster::Cluster;
use crate::kv::VALUE_MAX_BYTES;
use crate::role::Server;

/// Exit codes: what a script needs to know of an outcome.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Something else failed.
    pub const FAILURE: u8 = 1;
    /// The command line, or an input, cannot be what was meant.
    pub const USAGE: u8 = 2;
    /// There is no such key.
    pub const NOT_FOUND: u8 = 3;
    /// Certainly not applied; failed reads and version mismatches too.
    pub const NOT_APPLIED: u8 = 4;
    /// Applied or not: nobody knows.
    pub const UNKNOWN: u8 = 5;
}

const PREPOPULATE: &str = include_str!("../../res/prepopulate.txt");
const OPERATIONS: &str = include_str!("../../res/operations.txt");
/// Where the cluster file is, below the folder of the project.
const CLUSTER_FILE: &str = "res/cluster.toml";
/// Between two looks of `status --await`.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What ends the programme: an exit code and perhaps a sentence.
#[derive(Debug)]
struct Stop {
    code: u8,
    sentence: String,
}

impl Stop {
    fn new(code: u8, sentence: impl Into<String>) -> Stop {
        Stop { code, sentence: sentence.into() }
    }

    /// A request without a result, and what to try next.
    fn request(error: &ClientError, key: Option<&[u8]>) -> Stop {
        let (code, advice) = match (error, key) {
            (ClientError::Unknown(_), Some(key)) => (exit::UNKNOWN, format!(". Try: paxos-client get {}", shown(key))),
            (ClientError::Unknown(_), None) => (exit::UNKNOWN, ". Try: paxos-client status".to_string()),
            (ClientError::NotApplied(_), _) => (exit::NOT_APPLIED, ". Try: paxos-client status".to_string()),
            (ClientError::TooLarge(_) | ClientError::NoSuchServer { .. }, _) => (exit::USAGE, String::new()),
            (ClientError::Refused { .. }, _) => (exit::FAILURE, String::new()),
        };
        Stop::new(code, format!("{error}{advice}"))
    }
}

/// Runs the programme on a command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(run(arguments.into_iter().collect(), &Arc::new(Printer::standard())))
}

/// Runs the programme, and gives its exit code.
pub fn run(arguments: Vec<OsString>, printer: &Arc<Printer>) -> u8 {
    let cli = match Cli::try_parse_from(with_demo(arguments)) {
        Ok(cli) => cli,
        // Help is data, and an error is none.
        Err(error) if !error.use_stderr() => {
            printer.data(error.render().to_string().as_bytes());
            return if printer.failure().is_some() { exit::FAILURE } else { exit::OK };
        }
        Err(error) => {
            printer.note(error.render().to_string().trim_end());
            return exit::USAGE;
        }
    };
    let code = match execute(cli, printer) {
        Ok(()) => exit::OK,
        Err(Stop { code, sentence }) => {
            printer.note(format!("error: {sentence}"));
            code
        }
    };
    match printer.failure() {
        Some(why) => {
            printer.note(format!("error: {why}"));
            exit::FAILURE
        }
        None => code,
    }
}

fn execute(cli: Cli, printer: &Arc<Printer>) -> Result<(), Stop> {
    if let Command::Bench(BenchArgs { sweep: Some(BenchCommand::Sweep(sweep)), .. }) = cli.command {
        // It makes its own clusters.
        return run_sweep(&cli.common, sweep, printer);
    }
    let cluster = read_cluster(cli.common.cluster.as_deref())?;
    let common = &cli.common;
    match cli.command {
        Command::Demo(demo) => run_demo(common, cluster, demo, printer),
        Command::Put { key, value, if_version } => {
            let (key, value) = (key.into_vec(), value_of(value, printer)?);
            one(common, cluster, &Action::Put { key, value, if_version }, printer)
        }
        Command::Get { key } => one(common, cluster, &Action::Get { key: key.into_vec() }, printer),
        Command::Delete { key } => one(common, cluster, &Action::Delete { key: key.into_vec() }, printer),
        Command::Run { file } => run_file(common, cluster, &file, printer),
        Command::Status { r#await } => status(&cluster, r#await, printer),
        Command::Backup { file } => {
            let name = cluster.name.clone();
            let identity = identify(common, &cluster, 1, printer)?;
            let mut client = connect(common, cluster, identity, printer)?;
            let title = backup::write(&mut client, &name, &file).map_err(|error| match error {
                NoBackup::Request(error) => Stop::request(&error, None),
                other => Stop::new(exit::FAILURE, other.to_string()),
            })?;
            let (slot, digest) = (title.slot, title.digest);
            printer.line(format!("{} holds the store as of slot {slot}, digest {digest:016x}", file.display()));
            Ok(())
        }
        Command::Bench(bench) => run_bench(common, &cluster, bench, printer),
        Command::Servers => {
            for (server, member) in cluster.members() {
                printer.line(format!("{} {} {}", server.0, member.peer, member.client));
            }
            Ok(())
        }
        Command::Crash { target, r#for } => {
            let Target { server, role } = target;
            order(common, cluster, |client| client.crash(server, role, r#for))
        }
        Command::Restart { target } => {
            let Target { server, role } = target;
            order(common, cluster, |client| client.restart(server, role))
        }
    }
}

/// The cluster file that was named, or else the one of the project that the programme stands in.
fn read_cluster(named: Option<&Path>) -> Result<Cluster, Stop> {
    let beside = || {
        let program = env::current_exe().ok()?;
        program.ancestors().map(|folder| folder.join(CLUSTER_FILE)).find(|path| path.exists())
    };
    let path = match named {
        Some(path) => path.to_path_buf(),
        None if Path::new(CLUSTER_FILE).exists() => CLUSTER_FILE.into(),
        None => beside().unwrap_or_else(|| CLUSTER_FILE.into()),
    };
    Cluster::read(&path).map_err(|error| Stop::new(exit::FAILURE, error.to_string()))
}

/// The value of a PUT, from the command line or from standard input.
fn value_of(value: Option<OsString>, printer: &Printer) -> Result<Vec<u8>, Stop> {
    match value {
        Some(value) if value != "-" => Ok(value.into_vec()),
        Some(_) | None => {
            if io::stdin().is_terminal() {
                printer.note("reading the value from the terminal; it ends with Ctrl-D");
            }
            read_all(io::stdin().lock(), VALUE_MAX_BYTES).map_err(|error| {
                Stop::new(exit::FAILURE, format!("cannot read the value from standard input: {error}"))
            })
        }
    }
}

/// Everything that comes, or one byte more than the limit: enough to see that it is too much.
fn read_all(from: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Who the n-th client of this programme is, counted from 1: in the log folder if there is one.
fn identify(common: &Common, cluster: &Cluster, n: usize, printer: &Printer) -> Result<Identity, Stop> {
    let name = common.name.as_deref();
    let usage = |why| Stop::new(exit::USAGE, why);
    if let Some(folder) = &common.log_dir {
        return Identity::in_folder(folder, name, cluster.servers()).map_err(usage);
    }
    let runs = env::var_os("PAXOS_RUNS").map_or_else(|| PathBuf::from("runs"), PathBuf::from);
    let latest = runs.join("latest");
    // Another cluster's run is not the place for this client's lines: nobody could make sense of them there.
    let same = Cluster::read(&latest.join("cluster.toml")).is_ok_and(|run| run == *cluster);
    if same {
        match Identity::in_folder(&latest, name, cluster.servers()) {
            Ok(identity) => return Ok(identity),
            Err(why) if name.is_some() => return Err(usage(why)),
            Err(why) => printer.note(format!("note: no lines are written: {why}")),
        }
    }
    Identity::without_lines(name.unwrap_or(&format!("c{n}"))).map_err(usage)
}

/// A client that tells a person about its detours.
fn connect(common: &Common, cluster: Cluster, identity: Identity, printer: &Arc<Printer>) -> Result<Client, Stop> {
    let options = ClientOptions {
        first_server: common.server.map(Server),
        timeout: common.timeout,
        trace: identity.trace,
        ..ClientOptions::new(cluster, identity.name)
    };
    let mut client = Client::connect(options).map_err(|error| Stop::request(&error, None))?;
    let printer = printer.clone();
    client.on_failover(move |failed, next| printer.note(failed.and_next(next)));
    Ok(client)
}

/// One operation, of which stdout gets the result.
fn one(common: &Common, cluster: Cluster, action: &Action, printer: &Arc<Printer>) -> Result<(), Stop> {
    let value: &[u8] = if let Action::Put { value, .. } = action { value } else { &[] };
    check_limits(action.key(), value).map_err(|error| Stop::request(&error, None))?;
    let identity = identify(common, &cluster, 1, printer)?;
    let mut client = connect(common, cluster, identity, printer)?;
    let key = shown(action.key());
    let missing = |version| Stop::new(exit::NOT_FOUND, format!("there is no key {key} (version {version})"));
    match perform(&mut client, action).end {
        Ok(Done::Read(Found { value: Some(mut value), .. })) => {
            value.push(b'\n');
            printer.data(&value);
            Ok(())
        }
        Ok(Done::Read(Found { value: None, version, .. })) => Err(missing(version)),
        Ok(Done::Wrote(Outcome::NotFound { version, .. })) => Err(missing(version)),
        Ok(Done::Wrote(Outcome::Mismatch { version, .. })) => Err(Stop::new(
            exit::NOT_APPLIED,
            format!("{key} is at version {version}: nothing was written. Try: paxos-client get {key}"),
        )),
        Ok(Done::Wrote(outcome @ Outcome::Written { .. })) => {
            printer.line(outcome_words(&outcome));
            Ok(())
        }
        Err(error) => Err(Stop::request(&error, Some(action.key()))),
    }
}

/// The operations of a file, all of it read before the first is done.
fn run_file(common: &Common, cluster: Cluster, file: &Path, printer: &Arc<Printer>) -> Result<(), Stop> {
    let operations = read_operations(file, &cluster)?;
    let identity = identify(common, &cluster, 1, printer)?;
    let mut client = connect(common, cluster, identity, printer)?;
    let mut counts = Counts::default();
    for operation in &operations {
        if let Some(server) = operation.server {
            client.talk_to(server).map_err(|error| Stop::request(&error, None))?;
        }
        let ended = perform(&mut client, &operation.action);
        counts.add(&ended.end);
        printer.line(format!("{} {}  {}", client.last_label(), operation.action, ended.words()));
    }
    printer.note(counts.to_string());
    match counts {
        Counts { unknown: 1.., .. } => Err(Stop::new(exit::UNKNOWN, "not every outcome is known")),
        Counts { not_applied: 1.., .. } | Counts { mismatch: 1.., .. } => {
            Err(Stop::new(exit::NOT_APPLIED, "not every operation was applied"))
        }
        Counts { .. } => Ok(()),
    }
}

/// The operations of a file or of standard input, for servers that exist.
fn read_operations(file: &Path, cluster: &Cluster) -> Result<Vec<Operation>, Stop> {
    let unreadable = |error| Stop::new(exit::FAILURE, format!("cannot read {}: {error}", file.display()));
    let bytes = match file.as_os_str() == "-" {
        true => read_all(io::stdin().lock(), workload::FILE_MAX_BYTES),
        false => std::fs::File::open(file).and_then(|file| read_all(file, workload::FILE_MAX_BYTES)),
    };
    let operations = workload::parse(&bytes.map_err(unreadable)?).map_err(|errors| {
        let sentences: Vec<String> =
            errors.iter().map(|error| format!("{}:{}: {}", file.display(), error.line, error.what)).collect();
        Stop::new(exit::USAGE, format!("{}\nNothing was done.", sentences.join("\n")))
    })?;
    let foreign = |operation: &&Operation| operation.server.is_some_and(|server| cluster.member(server).is_none());
    match operations.iter().find(foreign) {
        Some(Operation { line, server: Some(server), .. }) => {
            let what = format!("there is no server {} in the cluster file. Nothing was done.", server.0);
            Err(Stop::new(exit::USAGE, format!("{}:{line}: {what}", file.display())))
        }
        Some(_) | None => Ok(operations),
    }
}

/// Operations that are built in. On a cluster of other servers than the usual five they visit those it has.
fn built_in(text: &str, cluster: &Cluster) -> Result<Vec<Operation>, Stop> {
    let mut operations = workload::parse(text.as_bytes())
        .map_err(|errors| Stop::new(exit::FAILURE, format!("the built-in operations are wrong: {errors:?}")))?;
    for operation in &mut operations {
        operation.server = operation.server.filter(|server| cluster.member(*server).is_some());
    }
    Ok(operations)
}

/// How every server is.
fn status(cluster: &Cluster, patience: Option<Duration>, printer: &Printer) -> Result<(), Stop> {
    let deadline = Instant::now() + patience.unwrap_or_default();
    loop {
        let survey = Survey::take(cluster, Duration::from_secs(1));
        let enough = survey.is_complete() || Instant::now() >= deadline;
        if !enough {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        printer.data(survey.text().as_bytes());
        return match (patience.is_some(), survey.is_complete(), survey.verdict().0) {
            (true, true, _) | (false, _, true) => Ok(()),
            (true, false, _) => Err(Stop::new(exit::FAILURE, "not every server answers")),
            (false, _, false) => Err(Stop::new(exit::FAILURE, survey.verdict().1)),
        };
    }
}

/// What a measurement is about, as far as a bench and a sweep have it in common.
fn plan_of(common: &Common, load: &LoadArgs) -> Plan {
    let LoadArgs { pipeline, duration, warm_up, reads, keys, threads } = *load;
    Plan { pipeline, duration, warm_up, reads, keys: keys.into(), threads, timeout: common.timeout, ..Plan::default() }
}

/// One measurement.
fn run_bench(common: &Common, cluster: &Cluster, bench: BenchArgs, printer: &Arc<Printer>) -> Result<(), Stop> {
    let at: Vec<Server> =
        bench.at.iter().copied().chain(common.server.filter(|_| bench.at.is_empty())).map(Server).collect();
    let known = cluster.servers();
    if let Some(server) = at.iter().find(|server| !known.contains(**server)) {
        return Err(Stop::request(&ClientError::NoSuchServer { server: *server, known }, None));
    }
    let BenchArgs { clients, value_size, rate, .. } = bench;
    let at = (!at.is_empty()).then_some(at);
    let plan = Plan { clients, value_size, rate, at, ..plan_of(common, &bench.load) };
    bench::report(cluster, &plan, bench.output == Form::Json, printer).map_err(|error| stop_bench(&error))
}

/// One measurement after the other.
fn run_sweep(common: &Common, sweep: SweepArgs, printer: &Arc<Printer>) -> Result<(), Stop> {
    let SweepArgs { load, protocols, servers, clients, value_sizes, out, program } = sweep;
    let beside = || env::current_exe().unwrap_or_default().with_file_name("paxos-server");
    let value_size = value_sizes.first().copied().unwrap_or(Plan::default().value_size);
    let plan = Plan { value_size, ..plan_of(common, &load) };
    let program = program.unwrap_or_else(beside);
    let sweep = Sweep { protocols, servers, clients, value_sizes, plan, out, program };
    bench::allow_many_sockets();
    bench::sweep(&sweep, &|line| printer.line(line)).map_err(|error| stop_bench(&error))
}

fn stop_bench(error: &BenchError) -> Stop {
    match error {
        BenchError::Client(error) | BenchError::NotFilled(error) => Stop::request(error, None),
        other => Stop::new(exit::FAILURE, other.to_string()),
    }
}

/// A command to a server in lab mode.
fn order(
    common: &Common,
    cluster: Cluster,
    order: impl FnOnce(&mut Client) -> Result<(), ClientError>,
) -> Result<(), Stop> {
    let options = ClientOptions { timeout: common.timeout, ..ClientOptions::new(cluster, "lab") };
    let mut client = Client::connect(options).map_err(|error| Stop::request(&error, None))?;
    order(&mut client).map_err(|error| Stop::request(&error, None))
}

/// The demo.
fn run_demo(common: &Common, cluster: Cluster, demo: DemoArgs, printer: &Arc<Printer>) -> Result<(), Stop> {
    let script = |file: Option<&Path>, text| match file {
        Some(file) => read_operations(file, &cluster),
        None => built_in(text, &cluster),
    };
    let prepopulate = script(demo.prepopulate.as_deref(), PREPOPULATE)?;
    let operations = script(demo.operations.as_deref(), OPERATIONS)?;
    if common.name.is_some() && (demo.clients > 1 || demo.scenes == Scenes::All) {
        return Err(Stop::new(exit::USAGE, "--name is for one client, and this demo has several: leave it out"));
    }
    let rivals = if demo.scenes == Scenes::All { 2 } else { 0 };
    let mut clients = (1..=usize::from(demo.clients) + rivals)
        .map(|n| identify(common, &cluster, n, printer))
        .collect::<Result<Vec<_>, _>>()?;
    let rivals = clients.split_off(usize::from(demo.clients));
    let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    printer.note(format!("clients: {}", names.join(", ")));
    let run = Demo {
        clients,
        rivals,
        prepopulate,
        operations,
        pace: demo.pace,
        timeout: common.timeout,
        settle: demo.settle,
        printer: printer.clone(),
        cluster,
    };
    run.run().map_err(|problems| Stop::new(exit::FAILURE, problems.join("\nerror: ")))?;
    printer.line("the run is as it must be: every request has an outcome, and what was acknowledged is there");
    Ok(())
}
