//! `paxos-client shell`: an interactive prompt with history and completion, with the syntax of the other commands.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::client::Client;
use super::cluster_status::ClusterStatus;
use super::interrupt::Interrupt;
use super::printer::Printer;
use super::retry_notes::RetryNotes;
use super::script::{self, ScriptStep, word};
use crate::cluster::Cluster;
use std::time::Duration;

/// The commands of the shell.
const COMMANDS: [&str; 7] = ["put", "get", "delete", "status", "help", "quit", "exit"];
/// Maximum number of keys kept for completion.
const KEYS_MAX: usize = 1_000;
const HELP: &str = "\
  put KEY VALUE [--if-version N]    set a value; words with spaces need double quotes
  get KEY                           print the value
  delete KEY                        delete the value
  @3 get KEY                        the same through server 3, also for the commands after it
  status                            show the state of every server
  quit                              leave (or Ctrl-D)";

/// Reads and executes lines until the input ends. A line that fails is reported, and the shell continues.
pub fn run(
    client: &mut Client,
    retry_notes: &RetryNotes,
    cluster: &Cluster,
    interrupt: &Interrupt,
    printer: &Printer,
) -> Result<(), String> {
    let keys: KnownKeys = Rc::default();
    let mut editor = Editor::new().map_err(|error| format!("cannot read from this terminal: {error}"))?;
    editor.set_helper(Some(LineCompleter { keys: keys.clone() }));
    printer.warn("commands: put KEY VALUE, get KEY, delete KEY, status, help; Ctrl-D quits");
    loop {
        match editor.readline("paxos> ") {
            Ok(line) if matches!(line.trim(), "quit" | "exit") => return Ok(()),
            Ok(line) => {
                if !line.trim().is_empty() {
                    // A failure to store the line in the history is no reason to stop.
                    let _ = editor.add_history_entry(&line);
                }
                interrupt.begin();
                one(line.trim(), client, retry_notes, cluster, printer, &keys);
                if interrupt.signal().is_some() {
                    return Ok(());
                }
                interrupt.end();
            }
            // Ctrl-C discards the typed line, as in other shells.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(format!("cannot read from this terminal: {error}")),
        }
    }
}

fn one(
    line: &str,
    client: &mut Client,
    retry_notes: &RetryNotes,
    cluster: &Cluster,
    printer: &Printer,
    keys: &KnownKeys,
) {
    match line {
        "help" | "?" => return printer.warn(HELP),
        "status" => return printer.data(ClusterStatus::query(cluster, Duration::from_secs(1)).render().as_bytes()),
        _ => {}
    }
    let operations = match script::parse(line.as_bytes()) {
        Ok(operations) => operations,
        Err(errors) => {
            for error in errors {
                printer.warn(format!("error: {}. Next: help", error.what));
            }
            return;
        }
    };
    for ScriptStep { server, action, .. } in operations {
        if let Some(server) = server
            && let Err(error) = client.set_server(server)
        {
            return printer.warn(format!("error: {error}"));
        }
        if keys.borrow().len() < KEYS_MAX {
            keys.borrow_mut().insert(word(action.key()));
        }
        printer.line(retry_notes.perform(client, &action).describe());
    }
}

type KnownKeys = Rc<RefCell<BTreeSet<String>>>;

/// Completes commands, and keys that were used before.
struct LineCompleter {
    keys: KnownKeys,
}

/// The completions at the end of this text: the position where the completed word begins, and each choice.
fn choices(text: &str, keys: &BTreeSet<String>) -> (usize, Vec<String>) {
    let begin = text.rfind(' ').map_or(0, |space| space + 1);
    let word = &text[begin..];
    let before: Vec<&str> = text[..begin].split_whitespace().filter(|word| !word.starts_with('@')).collect();
    let found = match before.as_slice() {
        [] => {
            COMMANDS.iter().filter(|command| command.starts_with(word)).map(|command| format!("{command} ")).collect()
        }
        ["put" | "get" | "delete"] => keys.iter().filter(|key| key.starts_with(word)).cloned().collect(),
        _ => Vec::new(),
    };
    (begin, found)
}

impl Completer for LineCompleter {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (begin, found) = choices(&line[..at], &self.keys.borrow());
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        Ok((begin, found.into_iter().map(pair).collect()))
    }
}

impl Hinter for LineCompleter {
    type Hint = String;
}

impl Highlighter for LineCompleter {}
impl Validator for LineCompleter {}
impl Helper for LineCompleter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_known_keys_are_completed() {
        let keys: BTreeSet<String> = ["color", "city", "\"a b\""].map(String::from).into();
        let choose = |text: &str| choices(text, &keys);
        assert_eq!(choose("d"), (0, vec!["delete ".to_string()]));
        assert_eq!(choose("get c"), (4, vec!["city".to_string(), "color".to_string()]));
        assert_eq!(choose("@3 get co"), (7, vec!["color".to_string()]));
        assert_eq!(choose("put color b"), (10, vec![]));
        assert_eq!(choose("@3 "), (3, COMMANDS.map(|command| format!("{command} ")).to_vec()));
    }
}
