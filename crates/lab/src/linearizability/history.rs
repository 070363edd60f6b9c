//! Histories in files, in any of the supported formats.

use std::time::Instant;

use super::verdict::{LinearizabilityVerdict, check};
use super::{append_text, etcd_log, run_history};
use paxos_kv::trace::Line;
use paxos_kv::trace::parse::Run;

/// The format of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// A Jepsen log of one register.
    EtcdLog,
    /// Maps with get, put and append.
    KvText,
    /// The log lines of this program.
    Lines,
}

/// Why a text is not a valid history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}: {what}", .line + 1)]
pub struct FormatError {
    /// The line number, from 0.
    pub line: usize,
    /// The message.
    pub what: String,
}

impl FormatError {
    pub(super) fn new(line: usize, what: impl Into<String>) -> FormatError {
        FormatError { line, what: what.into() }
    }
}

impl Format {
    /// Detects the format of a text, mostly by its first line that is not empty.
    pub fn of(text: &str) -> Result<Format, FormatError> {
        let first = text.lines().enumerate().find(|(_, line)| !line.trim().is_empty());
        let Some((number, line)) = first else { return Err(FormatError::new(0, "the history is empty")) };
        if line.starts_with(append_text::MARK) {
            Ok(Format::KvText)
        } else if text.lines().any(|line| line.contains(etcd_log::LINE_MARK)) {
            Ok(Format::EtcdLog)
        } else {
            let parsed = line.parse::<Line>().map(|_| Format::Lines);
            parsed.map_err(|error| FormatError::new(number, format!("this is not a known history format ({error})")))
        }
    }
}

/// A history that was read from files.
#[derive(Clone, Debug)]
pub enum History {
    /// A Jepsen log of one register.
    EtcdLog(String),
    /// Maps with get, put and append.
    KvText(String),
    /// The log lines of a run's clients, and perhaps of its servers.
    Lines(Run),
}

impl History {
    /// Checks the history; the check gives up at the deadline. Places in the verdict are line numbers from 0, or
    /// indices of the run's lines.
    pub fn check(&self, deadline: Instant) -> Result<LinearizabilityVerdict, FormatError> {
        match self {
            History::EtcdLog(text) => Ok(check(etcd_log::read(text)?, deadline)),
            History::KvText(text) => Ok(check(append_text::read(text)?, deadline)),
            History::Lines(run) => Ok(run_history::check_run(run, deadline)),
        }
    }

    /// The line at a place: its file if known, its line number from 1, and its text.
    pub fn line(&self, place: usize) -> (Option<&str>, usize, String) {
        match self {
            History::EtcdLog(text) | History::KvText(text) => {
                (None, place + 1, text.lines().nth(place).unwrap_or_default().to_string())
            }
            History::Lines(run) => {
                let entry = &run.lines[place];
                (Some(&entry.file), entry.number, entry.line.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_by_content() {
        assert_eq!(Format::of("\n{:process 0, :type :invoke"), Ok(Format::KvText));
        assert_eq!(Format::of("setup\nINFO  jepsen.util - 0\t:invoke\t:read\tnil"), Ok(Format::EtcdLog));
        let line = "2026-08-21T14:03:07.105612Z WARN  s3.1    acceptor DROP     msg=ACCEPT cause=crashed\n";
        assert_eq!(Format::of(line), Ok(Format::Lines));
        assert!(
            Format::of("hello\n").unwrap_err().to_string().starts_with("line 1: this is not a known history format")
        );
        assert!(Format::of("\n\n").is_err());
    }

    #[test]
    fn position_is_shown_as_its_line_with_a_number_from_1() {
        for history in [History::EtcdLog("a\nb\n".to_string()), History::KvText("a\nb\n".to_string())] {
            assert_eq!(
                [0, 1].map(|place| history.line(place)),
                [(None, 1, "a".to_string()), (None, 2, "b".to_string())]
            );
        }
        let lines = [
            "2026-08-21T14:03:07.105612Z INFO  c1.1    client   BOOT     version=0.1.0 lines=2 cluster=s1",
            "2026-08-21T14:03:07.105999Z INFO  c1.2    client   REQUEST  req=c1-1 op=GET key=k to=s1",
        ];
        let mut run = Run::default();
        for (name, line) in ["first.log", "second.log"].into_iter().zip([lines[0].to_string(), lines.join("\n")]) {
            let bytes = format!("{line}\n").into_bytes();
            run.add(name, &bytes, bytes.len() as u64).unwrap();
        }
        // The second line of the run is the second of its file, although the other file has the first line too.
        assert_eq!(History::Lines(run).line(1), (Some("second.log"), 2, lines[1].to_string()));
    }
}
