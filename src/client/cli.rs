//! The commands of `paxos-client`.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::arguments::{
    BenchArgs, BenchCommand, ClientCli, ClientCommand, DemoArgs, GlobalArgs, LinkArgs, LoadArgs, OutputFormat,
    SceneSet, SweepArgs,
};
use super::backup::{self, BackupFailed};
use super::bench::{self, BenchError, BenchPlan, SweepPlan};
use super::check_limits;
use super::client::{Client, ClientOptions};
use super::cluster_status::ClusterStatus;
use super::demo::Demo;
use super::execute::{OutcomeCounts, outcome_words};
use super::interrupt::Interrupt;
use super::json;
use super::name::ClientName;
use super::operation::{Operation, OperationResult};
use super::outcome::{ClientError, GetResponse, WriteResponse};
use super::printer::Printer;
use super::repl;
use super::retry_notes::RetryNotes;
use super::script::{self, ScriptStep, quote_key};
use crate::cluster::{Cluster, Member, in_environment};
use crate::kv::VALUE_MAX_BYTES;
use crate::role::{ServerId, ServerSet};

/// Exit codes: what a script needs to know about a result.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Something else failed.
    pub const FAILURE: u8 = 1;
    /// The command line or an input file is invalid.
    pub const USAGE: u8 = 2;
    /// The key has no value.
    pub const NOT_FOUND: u8 = 3;
    /// Certainly not applied; failed reads and version mismatches too.
    pub const NOT_APPLIED: u8 = 4;
    /// Outcome unknown: applied or not.
    pub const UNKNOWN: u8 = 5;
    /// Ended by a signal: 128 plus the signal's number, as in shells.
    pub const SIGNAL: u8 = 128;
}

const PREPOPULATE: &str = include_str!("../../res/prepopulate.txt");
const OPERATIONS: &str = include_str!("../../res/operations.txt");
/// The default cluster file, relative to the project's root directory.
const CLUSTER_FILE: &str = "res/cluster.toml";
/// The message for Ctrl-C when several requests are in flight.
const MANY_UNKNOWN: &str = "interrupted: a write in flight may still be applied";
/// Pause between two queries of `status --wait`.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Exit code and optional message of a failed command.
#[derive(Debug)]
struct CliError {
    code: u8,
    sentence: String,
}

impl CliError {
    fn new(code: u8, sentence: impl Into<String>) -> CliError {
        CliError { code, sentence: sentence.into() }
    }

    /// A failure whose message was already printed.
    fn quiet(code: u8) -> CliError {
        CliError { code, sentence: String::new() }
    }

    /// The failure of a request, with advice on what to do next.
    fn request(error: &ClientError, key: Option<&[u8]>) -> CliError {
        let (code, advice) = match (error, key) {
            (ClientError::Unknown(_), Some(key)) => {
                (exit::UNKNOWN, format!(". Next: paxos-client get {}", quote_key(key)))
            }
            (ClientError::Unknown(_), None) => (exit::UNKNOWN, ". Next: paxos-client status".to_string()),
            (ClientError::NotApplied(tries), _) if tries.are_all_refused() => {
                (exit::NOT_APPLIED, ". Next: ./run_server.sh".to_string())
            }
            (ClientError::NotApplied(_), _) => (exit::NOT_APPLIED, ". Next: paxos-client status".to_string()),
            (ClientError::TooLarge(_) | ClientError::NoSuchServer { .. }, _) => (exit::USAGE, String::new()),
            (ClientError::Refused { .. }, _) => (exit::FAILURE, String::new()),
        };
        CliError::new(code, format!("{error}{advice}"))
    }
}

/// Runs the program on a command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let printer = Arc::new(Printer::standard());
    ExitCode::from(run_until(arguments.into_iter().collect(), &printer, Interrupt::of_this_process()))
}

/// Runs the program and returns its exit code.
pub fn run(arguments: Vec<OsString>, printer: &Arc<Printer>) -> u8 {
    run_until(arguments, printer, Interrupt::default())
}

/// Runs the program until it ends or is interrupted.
fn run_until(arguments: Vec<OsString>, printer: &Arc<Printer>, interrupt: Interrupt) -> u8 {
    let mut cli = match ClientCli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // A help text goes to stdout, an error to stderr.
        Err(error) if !error.use_stderr() => {
            printer.data(error.render().to_string().as_bytes());
            return if printer.failure().is_some() { exit::FAILURE } else { exit::OK };
        }
        Err(error) => {
            printer.warn(misunderstood(&error).trim_end());
            return exit::USAGE;
        }
    };
    cli.common.interrupt = interrupt.clone();
    let form = cli.common.output;
    let code = match execute(cli, printer) {
        Ok(()) => ended(exit::OK, &interrupt),
        Err(CliError { code, sentence }) => {
            let code = ended(code, &interrupt);
            match form {
                _ if sentence.is_empty() => {}
                OutputFormat::Text => printer.warn(format!("error: {sentence}")),
                OutputFormat::Json => printer.line(json::stop(code, &sentence).to_string()),
            }
            code
        }
    };
    match printer.failure() {
        Some(why) => {
            printer.warn(format!("error: {why}"));
            exit::FAILURE
        }
        None => code,
    }
}

/// The message for an invalid command line.
fn misunderstood(error: &clap::Error) -> String {
    let command = ClientCli::command();
    let is_of_demo = |word: &str| {
        let mut options = command.find_subcommand("demo").into_iter().flat_map(clap::Command::get_arguments);
        options.any(|option| word.strip_prefix("--").is_some_and(|name| option.get_long() == Some(name)))
    };
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingSubcommand, _) => command.clone().render_help().to_string(),
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) if is_of_demo(word) => {
            format!("{}\n{word} is an option of the demo. Next: paxos-client demo", error.render())
        }
        _ => error.render().to_string(),
    }
}

/// The exit code. A signal takes precedence over the result of the request that it interrupted.
fn ended(code: u8, interrupt: &Interrupt) -> u8 {
    interrupt.signal().map_or(code, |signal| exit::SIGNAL + signal)
}

fn execute(mut cli: ClientCli, printer: &Arc<Printer>) -> Result<(), CliError> {
    if let ClientCommand::Completions { shell } = cli.command {
        printer.data(&crate::completions::script(ClientCli::command(), shell));
        return Ok(());
    }
    if let ClientCommand::Bench(BenchArgs { sweep: Some(BenchCommand::Sweep(sweep)), .. }) = cli.command {
        // A sweep starts its own clusters.
        return run_sweep(&cli.common, sweep, printer);
    }
    let file = cluster_file(cli.common.cluster.take());
    let cluster = Cluster::read(&file).map_err(|error| CliError::new(exit::FAILURE, error.to_string()))?;
    cli.common.cluster = Some(file);
    let common = &cli.common;
    match cli.command {
        ClientCommand::Demo(demo) => run_demo(common, cluster, demo, printer),
        ClientCommand::Put { key, value, if_version } => {
            let (key, value) = (key.into_vec(), value_of(value, printer)?);
            one(common, cluster, &Operation::Put { key, value, if_version }, false, printer)
        }
        ClientCommand::Get { raw: true, .. } if common.output == OutputFormat::Json => {
            Err(CliError::new(exit::USAGE, "--raw prints bytes and -o json prints an object: use only one of them"))
        }
        ClientCommand::Get { key, raw } => one(common, cluster, &Operation::Get { key: key.into_vec() }, raw, printer),
        ClientCommand::Delete { key } => {
            one(common, cluster, &Operation::Delete { key: key.into_vec() }, false, printer)
        }
        ClientCommand::Run { file } => run_file(common, cluster, &file, printer),
        ClientCommand::Backup { file, force } => back_up(common, cluster, &file, force, printer),
        ClientCommand::Bench(bench) => run_bench(common, &cluster, bench, printer),
        ClientCommand::Status { watch: true, interval: every, count: looks, .. } => {
            watch(&cluster, every, looks.unwrap_or(u64::MAX), common.output, printer);
            Ok(())
        }
        ClientCommand::Status { wait, .. } => status(&cluster, wait, common.output, printer),
        ClientCommand::Shell => {
            let identity = identify(common, &cluster, LogTarget::Own(1), printer)?;
            let (mut client, retry_notes) = connect(common, cluster.clone(), identity, "", printer)?;
            repl::run(&mut client, &retry_notes, &cluster, &common.interrupt, printer)
                .map_err(|why| CliError::new(exit::FAILURE, why))
        }
        ClientCommand::Servers => {
            list_servers(&cluster, common.output, printer);
            Ok(())
        }
        // Handled above, because it needs no cluster.
        ClientCommand::Completions { .. } => Ok(()),
        ClientCommand::Crash { target, r#for } => {
            let until = match r#for {
                Some(time) => format!("for {} s", time.as_secs_f64()),
                None => "until `paxos-client restart`".to_string(),
            };
            let done_message = format!("{} down {until}", target.with_verb("is", "are"));
            order(common, cluster, &done_message, printer, |client| client.crash(target.server, target.role, r#for))
        }
        ClientCommand::Restart { target } => {
            let done_message = target.with_verb("restarts", "restart");
            order(common, cluster, &done_message, printer, |client| client.restart(target.server, target.role))
        }
        ClientCommand::Cut(links) => {
            let until = format!("are cut until `paxos-client {}`", links.command("join"));
            change_links(common, cluster, &links, &until, Client::cut, printer)
        }
        ClientCommand::Join(links) => change_links(common, cluster, &links, "may connect", Client::join, printer),
    }
}

fn list_servers(cluster: &Cluster, form: OutputFormat, printer: &Printer) {
    for (server, Member { peer, client, http }) in cluster.members() {
        match form {
            OutputFormat::Json => printer.line(
                serde_json::json!({ "server": server.0, "peer": peer, "client": client, "http": http }).to_string(),
            ),
            OutputFormat::Text => {
                let http = http.map_or(String::new(), |address| format!(" {address}"));
                printer.line(format!("{} {peer} {client}{http}", server.0));
            }
        }
    }
}

/// The given cluster file, or the default one: in the current directory, or in a directory above the program.
fn cluster_file(named: Option<PathBuf>) -> PathBuf {
    let beside = || {
        let program = env::current_exe().ok()?;
        program.ancestors().map(|dir| dir.join(CLUSTER_FILE)).find(|path| path.exists())
    };
    match named.or_else(in_environment) {
        Some(path) => path,
        None if Path::new(CLUSTER_FILE).exists() => CLUSTER_FILE.into(),
        None => beside().unwrap_or_else(|| CLUSTER_FILE.into()),
    }
}

/// The value of a PUT, from the command line or from standard input. Standard input must be requested with `-`. If
/// a value was forgotten, standard input may be anything: empty under cron, or the rest of a list in a shell loop.
fn value_of(value: Option<OsString>, printer: &Printer) -> Result<Vec<u8>, CliError> {
    match value {
        Some(value) if value != "-" => Ok(value.into_vec()),
        Some(_) => {
            if io::stdin().is_terminal() {
                printer.warn("reading the value from the terminal; end it with Ctrl-D");
            }
            read_all(io::stdin().lock(), VALUE_MAX_BYTES).map_err(|error| {
                CliError::new(exit::FAILURE, format!("cannot read the value from standard input: {error}"))
            })
        }
        None => {
            let what = "the value is missing; nothing was written. Put it after the key (\"\" is an empty value), or use \
                        - to read it from standard input";
            Err(CliError::new(exit::USAGE, what))
        }
    }
}

/// Reads everything, but at most `limit` + 1 bytes: enough to detect an input that is too long.
fn read_all(from: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a client's log lines go.
#[derive(Clone, Copy)]
enum LogTarget {
    /// To a file of its own; the number is that of the client in this program, counted from 1.
    Own(usize),
    /// To the file that all short commands share.
    Shared,
}

/// The name and the log of a client, in the log directory if there is one.
fn identify(
    common: &GlobalArgs,
    cluster: &Cluster,
    lines: LogTarget,
    printer: &Printer,
) -> Result<ClientName, CliError> {
    let name = common.name.as_deref();
    let usage = |why| CliError::new(exit::USAGE, why);
    let name_in_dir = |dir: &Path| match lines {
        LogTarget::Shared if name.is_none() => ClientName::sharing(dir, cluster.servers()),
        LogTarget::Own(_) | LogTarget::Shared => ClientName::in_log_dir(dir, name, cluster.servers()),
    };
    if let Some(dir) = &common.log_dir {
        return name_in_dir(dir).map_err(usage);
    }
    let runs = env::var_os("PAXOS_RUNS").map_or_else(|| PathBuf::from("runs"), PathBuf::from);
    let latest = runs.join("latest");
    // In the log of another cluster's run, this client's lines would make no sense.
    let same = Cluster::read(&latest.join("cluster.toml")).is_ok_and(|run| run == *cluster);
    if same {
        match name_in_dir(&latest) {
            Ok(identity) => return Ok(identity),
            Err(why) if name.is_some() => return Err(usage(why)),
            Err(why) => printer.warn(format!("note: no log lines are written: {why}")),
        }
    }
    let n = if let LogTarget::Own(n) = lines { n } else { 1 };
    ClientName::without_log(name.unwrap_or(&format!("c{n}"))).map_err(usage)
}

/// Creates a client that reports its failed tries to the user, and that ends its requests on a signal. `parting` is the
/// message for a signal that arrives while no request is in flight.
fn connect(
    common: &GlobalArgs,
    cluster: Cluster,
    identity: ClientName,
    parting: &'static str,
    printer: &Arc<Printer>,
) -> Result<(Client, RetryNotes), CliError> {
    let options = ClientOptions {
        first_server: common.server,
        timeout: common.timeout,
        trace: identity.trace,
        ..ClientOptions::new(cluster, identity.name)
    };
    let mut client = Client::new(options).map_err(|error| CliError::request(&error, None))?;
    let retry_notes = RetryNotes::of(&mut client, None, &common.cluster_name(), common.timeout, printer);
    listen(common, parting, printer)?;
    if let Some(stop) = common.interrupt.flag() {
        client.stop_when(stop);
    }
    Ok((client, retry_notes))
}

/// Starts to handle signals.
fn listen(common: &GlobalArgs, parting: &'static str, printer: &Arc<Printer>) -> Result<(), CliError> {
    let failed = |error| CliError::new(exit::FAILURE, format!("cannot handle signals: {error}"));
    common.interrupt.listen(parting, printer).map_err(failed)
}

/// Executes one operation and prints the result to stdout.
fn one(
    common: &GlobalArgs,
    cluster: Cluster,
    action: &Operation,
    raw: bool,
    printer: &Arc<Printer>,
) -> Result<(), CliError> {
    let value: &[u8] = if let Operation::Put { value, .. } = action { value } else { &[] };
    check_limits(action.key(), value).map_err(|error| CliError::request(&error, None))?;
    let identity = identify(common, &cluster, LogTarget::Shared, printer)?;
    let (mut client, retry_notes) = connect(common, cluster, identity, "", printer)?;
    // Never ended: even after a signal, a known result is printed before the process exits.
    common.interrupt.begin();
    let key = quote_key(action.key());
    let ended = retry_notes.perform(&mut client, action);
    if common.output == OutputFormat::Json {
        printer.line(json::operation(action, &ended).to_string());
        return match code_of(&ended.end) {
            exit::OK => Ok(()),
            code => Err(CliError::quiet(code)),
        };
    }
    let missing = |version| {
        let history = if version == 0 { "never written".to_string() } else { format!("last version {version}") };
        CliError::new(exit::NOT_FOUND, format!("key not found: {key} ({history})"))
    };
    match ended.end {
        Ok(OperationResult::Read(GetResponse { value: Some(mut value), .. })) => {
            if !raw {
                value.push(b'\n');
            }
            printer.data(&value);
            Ok(())
        }
        Ok(OperationResult::Read(GetResponse { value: None, version, .. })) => Err(missing(version)),
        Ok(OperationResult::Wrote(WriteResponse::NotFound { version, .. })) => Err(missing(version)),
        Ok(OperationResult::Wrote(WriteResponse::Mismatch { version, .. })) => Err(CliError::new(
            exit::NOT_APPLIED,
            format!(
                "version mismatch: {key} is at version {version}. Nothing was written. Next: paxos-client get {key}"
            ),
        )),
        Ok(OperationResult::Wrote(outcome @ WriteResponse::Written { .. })) => {
            printer.line(outcome_words(&outcome));
            Ok(())
        }
        Err(error) => Err(CliError::request(&error, Some(action.key()))),
    }
}

/// The exit code of an operation's result.
fn code_of(end: &Result<OperationResult, ClientError>) -> u8 {
    match end {
        Ok(
            OperationResult::Wrote(WriteResponse::Written { .. })
            | OperationResult::Read(GetResponse { value: Some(_), .. }),
        ) => exit::OK,
        Ok(
            OperationResult::Wrote(WriteResponse::NotFound { .. })
            | OperationResult::Read(GetResponse { value: None, .. }),
        ) => exit::NOT_FOUND,
        Ok(OperationResult::Wrote(WriteResponse::Mismatch { .. })) => exit::NOT_APPLIED,
        Err(error) => CliError::request(error, None).code,
    }
}

/// Executes the operations of a file. The whole file is read before the first operation, so an error in it has no
/// effect on the store.
fn run_file(common: &GlobalArgs, cluster: Cluster, file: &Path, printer: &Arc<Printer>) -> Result<(), CliError> {
    let operations = read_operations(file, &cluster)?;
    let identity = identify(common, &cluster, LogTarget::Shared, printer)?;
    let (mut client, retry_notes) = connect(common, cluster, identity, "", printer)?;
    common.interrupt.begin();
    let mut counts = OutcomeCounts::default();
    for operation in &operations {
        if common.interrupt.signal().is_some() {
            let left = operations.len() as u64 - counts.total();
            printer.warn(format!("interrupted: {left} operations were not started"));
            break;
        }
        if let Some(server) = operation.server {
            client.set_server(server).map_err(|error| CliError::request(&error, None))?;
        }
        let ended = retry_notes.perform(&mut client, &operation.action);
        counts.add(&ended.end);
        match common.output {
            OutputFormat::Json => printer.line(json::operation(&operation.action, &ended).to_string()),
            OutputFormat::Text => {
                printer.line(format!("{} {}  {}", client.last_label(), operation.action, ended.describe()))
            }
        }
    }
    printer.warn(counts.to_string());
    match counts {
        OutcomeCounts { unknown: 1.., .. } if common.output == OutputFormat::Json => {
            Err(CliError::quiet(exit::UNKNOWN))
        }
        OutcomeCounts { not_applied: 1.., .. } | OutcomeCounts { mismatch: 1.., .. }
            if common.output == OutputFormat::Json =>
        {
            Err(CliError::quiet(exit::NOT_APPLIED))
        }
        OutcomeCounts { unknown: 1.., .. } => Err(CliError::new(exit::UNKNOWN, "some outcomes are unknown")),
        OutcomeCounts { not_applied: 1.., .. } | OutcomeCounts { mismatch: 1.., .. } => {
            Err(CliError::new(exit::NOT_APPLIED, "some operations were not applied"))
        }
        OutcomeCounts { .. } => Ok(()),
    }
}

/// Writes a backup of the whole store to a file or to standard output.
fn back_up(
    common: &GlobalArgs,
    cluster: Cluster,
    file: &Path,
    force: bool,
    printer: &Arc<Printer>,
) -> Result<(), CliError> {
    let name = cluster.name.clone();
    let target = match file.as_os_str() == "-" {
        true => None,
        false => Some(backup::Target::new(file, force).map_err(|why| CliError::new(exit::USAGE, why))?),
    };
    let identity = identify(common, &cluster, LogTarget::Shared, printer)?;
    let (mut client, retry_notes) = connect(common, cluster, identity, "", printer)?;
    common.interrupt.begin();
    let written = match target {
        Some(target) => backup::write(&mut client, &name, target),
        None => backup::stream(&mut client, &name, BufWriter::new(printer.sink())).map(|(title, _)| title),
    };
    retry_notes.end();
    let title = written.map_err(|error| match error {
        BackupFailed::Request(error) => CliError::request(&error, None),
        other => CliError::new(exit::FAILURE, other.to_string()),
    })?;
    let done_message = format!("contains the store as of slot {}, digest {:016x}", title.slot, title.digest);
    match file.as_os_str() == "-" {
        true => printer.warn(format!("the backup {done_message}")),
        false => printer.line(format!("{} {done_message}", file.display())),
    }
    Ok(())
}

/// Reads operations from a file or from standard input, and checks that their servers exist.
fn read_operations(file: &Path, cluster: &Cluster) -> Result<Vec<ScriptStep>, CliError> {
    let unreadable = |error| CliError::new(exit::FAILURE, format!("cannot read {}: {error}", file.display()));
    let bytes = match file.as_os_str() == "-" {
        true => read_all(io::stdin().lock(), script::FILE_MAX_BYTES),
        false => std::fs::File::open(file).and_then(|file| read_all(file, script::FILE_MAX_BYTES)),
    };
    let operations = script::parse(&bytes.map_err(unreadable)?).map_err(|errors| {
        let sentences: Vec<String> =
            errors.iter().map(|error| format!("{}:{}: {}", file.display(), error.line, error.what)).collect();
        CliError::new(exit::USAGE, format!("{}\nNothing was done.", sentences.join("\n")))
    })?;
    let foreign = |operation: &&ScriptStep| operation.server.is_some_and(|server| cluster.member(server).is_none());
    match operations.iter().find(foreign) {
        Some(ScriptStep { line, server: Some(server), .. }) => {
            let what = format!("the cluster file has no server {}. Nothing was done.", server.0);
            Err(CliError::new(exit::USAGE, format!("{}:{line}: {what}", file.display())))
        }
        Some(_) | None => Ok(operations),
    }
}

/// Parses built-in operations. On a cluster without one of the five usual servers, steps for it go to any server.
fn built_in(text: &str, cluster: &Cluster) -> Result<Vec<ScriptStep>, CliError> {
    let mut operations = script::parse(text.as_bytes()).map_err(|errors| {
        let first = errors.first().map_or("", |error| error.what.as_str());
        CliError::new(exit::FAILURE, format!("the built-in operations are invalid: {first}"))
    })?;
    for operation in &mut operations {
        operation.server = operation.server.filter(|server| cluster.member(*server).is_some());
    }
    Ok(operations)
}

/// Prints the status of every server.
fn status(
    cluster: &Cluster,
    patience: Option<Duration>,
    form: OutputFormat,
    printer: &Printer,
) -> Result<(), CliError> {
    let deadline = Instant::now() + patience.unwrap_or_default();
    loop {
        let cluster_status = ClusterStatus::query(cluster, Duration::from_secs(1));
        let verdict = cluster_status.verdict();
        let is_enough = cluster_status.is_complete() && verdict.is_ok();
        if !is_enough && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
            continue;
        }
        show(&cluster_status, form, printer);
        let quiet = |stop: CliError| if form == OutputFormat::Json { CliError::quiet(stop.code) } else { stop };
        return match (patience.is_some() && !cluster_status.is_complete(), verdict.is_ok()) {
            (false, true) => Ok(()),
            (true, true) => Err(quiet(CliError::new(exit::FAILURE, "not every server replies"))),
            (_, false) => Err(quiet(CliError::new(exit::FAILURE, verdict.to_string()))),
        };
    }
}

fn show(cluster_status: &ClusterStatus, form: OutputFormat, printer: &Printer) {
    match form {
        OutputFormat::Text => printer.data(cluster_status.render().as_bytes()),
        OutputFormat::Json => printer.line(json::cluster_status(cluster_status).to_string()),
    }
}

/// Prints the status `looks` times: on a terminal in place, elsewhere one after the other.
fn watch(cluster: &Cluster, every: Duration, looks: u64, form: OutputFormat, printer: &Printer) {
    let in_place = form == OutputFormat::Text && io::stdout().is_terminal();
    for look in 0..looks {
        if look > 0 {
            std::thread::sleep(every);
        }
        let cluster_status = ClusterStatus::query(cluster, Duration::from_secs(1));
        if in_place {
            // Move the cursor to the top left and clear the screen.
            printer.data(b"\x1b[H\x1b[2J");
        }
        show(&cluster_status, form, printer);
        if printer.has_ended() {
            return;
        }
    }
}

/// The part of the plan that a bench and a sweep have in common.
fn plan_of(common: &GlobalArgs, load: &LoadArgs) -> BenchPlan {
    let LoadArgs { pipeline, duration, warm_up, reads, keys, threads } = *load;
    BenchPlan {
        pipeline,
        duration,
        warm_up,
        reads,
        keys: keys.into(),
        threads,
        timeout: common.timeout,
        ..BenchPlan::default()
    }
}

/// Runs one measurement.
fn run_bench(common: &GlobalArgs, cluster: &Cluster, bench: BenchArgs, printer: &Arc<Printer>) -> Result<(), CliError> {
    let at: Vec<ServerId> =
        bench.servers.iter().copied().chain(common.server.filter(|_| bench.servers.is_empty())).collect();
    let known = cluster.servers();
    if let Some(server) = at.iter().find(|server| !known.contains(**server)) {
        return Err(CliError::request(&ClientError::NoSuchServer { server: *server, known }, None));
    }
    let BenchArgs { clients, value_size, rate, .. } = bench;
    let at = (!at.is_empty()).then_some(at);
    let plan = BenchPlan { clients, value_size, rate, at, ..plan_of(common, &bench.load) };
    listen(common, MANY_UNKNOWN, printer)?;
    bench::report(cluster, &plan, common.output == OutputFormat::Json, printer).map_err(|error| stop_bench(&error))
}

/// Runs one measurement after the other, each on a cluster of its own.
fn run_sweep(common: &GlobalArgs, sweep: SweepArgs, printer: &Arc<Printer>) -> Result<(), CliError> {
    let SweepArgs { load, protocols, servers, clients, value_sizes, out, program } = sweep;
    let beside = || env::current_exe().unwrap_or_default().with_file_name("paxos-server");
    let value_size = value_sizes.first().copied().unwrap_or(BenchPlan::default().value_size);
    let plan = BenchPlan { value_size, ..plan_of(common, &load) };
    let program = program.unwrap_or_else(beside);
    let sweep = SweepPlan { protocols, servers, clients, value_sizes, plan, out, program };
    bench::allow_many_sockets();
    bench::sweep(&sweep, &|line| printer.line(line)).map_err(|error| stop_bench(&error))
}

fn stop_bench(error: &BenchError) -> CliError {
    match error {
        BenchError::Client(error) | BenchError::NotFilled(error) => CliError::request(error, None),
        other => CliError::new(exit::FAILURE, other.to_string()),
    }
}

/// Sends an order to a server in lab mode and prints the result.
fn order(
    common: &GlobalArgs,
    cluster: Cluster,
    done_message: &str,
    printer: &Printer,
    order: impl FnOnce(&mut Client) -> Result<(), ClientError>,
) -> Result<(), CliError> {
    let options = ClientOptions { timeout: common.timeout, ..ClientOptions::new(cluster, "lab") };
    let mut client = Client::new(options).map_err(|error| CliError::request(&error, None))?;
    order(&mut client).map_err(|error| CliError::request(&error, None))?;
    print_done(done_message, common.output, printer);
    Ok(())
}

/// Cuts or joins links, at both ends: each end shows it in its status. One end is enough for a cut, so an end that does
/// not reply is a warning.
fn change_links(
    common: &GlobalArgs,
    cluster: Cluster,
    links: &LinkArgs,
    done: &str,
    change: fn(&mut Client, ServerId, ServerSet) -> Result<(), ClientError>,
    printer: &Printer,
) -> Result<(), CliError> {
    let (one, all) = (ServerSet::only(links.one), cluster.servers());
    let peers = links.other.map_or_else(|| all.without(one), ServerSet::only);
    let done_message = format!("the links of server {} with {peers} {done}", links.one.0);
    order(common, cluster, &done_message, printer, |client| {
        let mut results = vec![change(client, links.one, peers)];
        results.extend(peers.iter().map(|peer| change(client, peer, one)));
        let is_done = results.iter().any(Result::is_ok);
        for error in results.into_iter().filter_map(Result::err) {
            if !is_done || matches!(error, ClientError::Refused { .. } | ClientError::NoSuchServer { .. }) {
                return Err(error);
            }
            printer.warn(format!("warning: one end is not changed: {error}"));
        }
        Ok(())
    })
}

/// Prints that an order was done.
fn print_done(done_message: &str, form: OutputFormat, printer: &Printer) {
    match form {
        OutputFormat::Text => printer.line(done_message),
        OutputFormat::Json => printer.line(serde_json::json!({ "status": "OK", "message": done_message }).to_string()),
    }
}

/// Runs the demo.
fn run_demo(common: &GlobalArgs, cluster: Cluster, demo: DemoArgs, printer: &Arc<Printer>) -> Result<(), CliError> {
    let script = |file: Option<&Path>, text| match file {
        Some(file) => read_operations(file, &cluster),
        None => built_in(text, &cluster),
    };
    let prepopulate = script(demo.prepopulate.as_deref(), PREPOPULATE)?;
    let operations = script(demo.operations.as_deref(), OPERATIONS)?;
    if common.name.is_some() && (demo.clients > 1 || demo.scenes == SceneSet::All) {
        return Err(CliError::new(exit::USAGE, "--name is for one client, but this demo has several: omit it"));
    }
    let rivals = if demo.scenes == SceneSet::All { 2 } else { 0 };
    let mut clients = (1..=usize::from(demo.clients) + rivals)
        .map(|n| identify(common, &cluster, LogTarget::Own(n), printer))
        .collect::<Result<Vec<_>, _>>()?;
    let rivals = clients.split_off(usize::from(demo.clients));
    let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    printer.warn(format!("clients: {}", names.join(", ")));
    // With JSON, stdout gets only the final object, and the messages for people go to stderr.
    let told = if common.output == OutputFormat::Json { Arc::new(printer.aside()) } else { printer.clone() };
    let run = Demo {
        clients,
        conflict_clients: rivals,
        prepopulate,
        operations,
        pace: demo.pace,
        timeout: common.timeout,
        converge_timeout: demo.settle,
        printer: told,
        cluster,
    };
    listen(common, MANY_UNKNOWN, printer)?;
    match (run.run(), common.output) {
        (Ok(()), form) => {
            print_done("PASSED: every request ended, and no acknowledged write is missing.", form, printer);
            Ok(())
        }
        (Err(problems), OutputFormat::Json) => Err(CliError::new(exit::FAILURE, problems.join("; "))),
        (Err(problems), OutputFormat::Text) => {
            problems.iter().for_each(|problem| printer.warn(format!("error: {problem}")));
            let plural = if problems.len() == 1 { "" } else { "s" };
            printer.line(format!("FAILED: {} problem{plural}. See the errors above.", problems.len()));
            Err(CliError::quiet(exit::FAILURE))
        }
    }
}
