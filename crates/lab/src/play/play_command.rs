//! The command `paxos-lab play`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use paxos_kv::net::ThreadGroup;

use super::choice::read_lines;
use super::exercise::{Exercise, Mode};
use super::exercises;
use super::game::Game;
use super::server::{self, OwnExercise};
use super::terminal;

/// The command line of `play`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab play                             serve the exercises to a browser, and print the address
  paxos-lab play --list                      list the exercises
  paxos-lab play adopt --text                play an exercise at the terminal
  paxos-lab play --solve adopt               play the solution, and say what each step did
  paxos-lab play my.txt                      serve an exercise of your own too
  paxos-lab play --check my.txt              check an exercise: its solution must reach its goals in par steps
  paxos-lab play adopt --choices mine.txt    say which goals the choices in a file reach

You are the network: you choose which message arrives next. The servers run the code that ships. docs/teaching.md says
how to write an exercise.

Exit codes: 0 done, 1 failure, or goals that are not met.")]
pub struct PlayArgs {
    /// Exercise to open: a name or a file [default: the first one]
    exercise: Option<String>,
    /// Port on 127.0.0.1 [default: 7390, or the next free one]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Do not open a browser [default: open one if this is a terminal]
    #[arg(long)]
    no_open: bool,
    /// List the exercises
    #[arg(long)]
    list: bool,
    /// Play at the terminal
    #[arg(long)]
    text: bool,
    /// Play the solution of an exercise, a name or a file
    #[arg(long, value_name = "NAME")]
    solve: Option<String>,
    /// Check exercise files: their solutions must reach their goals in par steps
    #[arg(long, value_name = "FILE", num_args = 1..)]
    check: Vec<String>,
    /// Play the choices in a file, one a line, and say which goals they reach
    #[arg(long, value_name = "FILE")]
    choices: Option<String>,
    /// Play in another mode: safe, lost, local-read, 'quorums 2+2'
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
}

/// Serves, plays, lists or checks; returns the text to print and the exit code.
pub fn run(arguments: &PlayArgs) -> Result<(String, u8), String> {
    if arguments.list {
        return Ok((list(), 0));
    }
    if !arguments.check.is_empty() {
        return check_all(&arguments.check);
    }
    if let Some(name) = &arguments.solve {
        let exercise = find(name)?;
        let mode = mode_of(arguments, &exercise)?;
        return Ok((terminal::narrate(&exercise, mode, &exercise.solution)?, 0));
    }
    if let Some(file) = &arguments.choices {
        let exercise = find(arguments.exercise.as_deref().ok_or("name the exercise to which the choices belong")?)?;
        let choices = read_lines(&read(file)?).map_err(|error| format!("{file}: {error}"))?;
        let mode = mode_of(arguments, &exercise)?;
        let game = Game::play(&exercise, mode, &choices)?;
        let code = u8::from(!game.is_done());
        return Ok((terminal::narrate(&exercise, mode, &choices)?, code));
    }
    if arguments.text {
        let exercise = find(arguments.exercise.as_deref().unwrap_or("chosen"))?;
        let mode = mode_of(arguments, &exercise)?;
        let is_done = terminal::play(&exercise, mode, io::stdin().lock(), &mut io::stdout().lock())?;
        return Ok((String::new(), u8::from(!is_done)));
    }
    serve(arguments)
}

fn serve(arguments: &PlayArgs) -> Result<(String, u8), String> {
    let own = match &arguments.exercise {
        None => OwnExercise::default(),
        Some(name) if exercises::named(name).is_some() => OwnExercise { first: Some(name.clone()), text: None },
        Some(file) => {
            find(file)?;
            OwnExercise { text: Some(read(file)?), first: None }
        }
    };
    let listener = server::bind(arguments.port)?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let threads = ThreadGroup::new();
    server::serve(&threads, listener, own).map_err(|error| format!("cannot start: {error}"))?;
    println!("Open http://{address}/ in a browser. Ctrl-C ends the program.");
    io::stdout().flush().map_err(|error| error.to_string())?;
    if !arguments.no_open && io::stdout().is_terminal() {
        open_browser(&format!("http://{address}/"));
    }
    // The threads of the server run until the process ends.
    loop {
        std::thread::park();
    }
}

/// Opens the address in a browser, if the system has a program for that. The address is printed in any case.
fn open_browser(address: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = Command::new(program).arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

fn mode_of(arguments: &PlayArgs, exercise: &Exercise) -> Result<Mode, String> {
    let Some(name) = &arguments.mode else { return Ok(exercise.mode) };
    let modes = exercise.modes();
    let names: Vec<String> = modes.iter().map(|mode| mode.name()).collect();
    let found = Mode::named(name).filter(|mode| modes.contains(mode));
    found.ok_or_else(|| format!("this exercise has no mode '{name}'. Its modes are: {}", names.join(", ")))
}

fn list() -> String {
    let all = exercises::all().into_iter().enumerate();
    let lines = all.map(|(at, one)| format!("  {:>2}  {:<14} {} (par {})\n", at + 1, one.name, one.title, one.par));
    lines.collect()
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))
}

/// The exercise with this name, or in this file.
fn find(name: &str) -> Result<Exercise, String> {
    if let Some((_, exercise)) = exercises::named(name) {
        return Ok(exercise);
    }
    if !Path::new(name).exists() {
        return Err(format!("there is no exercise and no file '{name}'. The exercises are:\n{}", list()));
    }
    Exercise::read(&read(name)?).map_err(|error| format!("{name}: {error}"))
}

fn check_all(files: &[String]) -> Result<(String, u8), String> {
    let (mut text, mut code) = (String::new(), 0);
    for file in files {
        let checked = find(file).and_then(|exercise| check(&exercise));
        match checked {
            Ok(steps) => text += &format!("{file}: the solution reaches all goals in {steps} steps\n"),
            Err(why) => {
                code = 1;
                text += &format!("{file}: {why}\n");
            }
        }
    }
    Ok((text, code))
}

/// Plays the solution of an exercise; returns its number of steps, which must be the par.
pub fn check(exercise: &Exercise) -> Result<usize, String> {
    if exercise.solution.is_empty() {
        return Err("there is no solution to check".to_string());
    }
    let game = Game::play(exercise, exercise.mode, &exercise.solution)?;
    if let Some(step) = game.steps.iter().find(|step| step.number.is_none()) {
        let why = step.skipped.clone().unwrap_or_default();
        return Err(format!("the solution does not fit: {}: {why}", step.choice));
    }
    if let Some(at) = game.nevers.iter().position(Option::is_some) {
        return Err(format!("the solution does what must never happen: {}", exercise.nevers[at].text));
    }
    if let Some(at) = game.goals.iter().position(Option::is_none) {
        return Err(format!("the solution does not reach the goal '{}'", exercise.goals[at].text));
    }
    let steps = game.table.steps;
    if game.steps_needed() != steps {
        return Err(format!(
            "the goals are reached after {} of the {steps} steps of the solution",
            game.steps_needed()
        ));
    }
    if steps != exercise.par {
        return Err(format!("the solution has {steps} steps, but par says {}", exercise.par));
    }
    Ok(steps)
}
