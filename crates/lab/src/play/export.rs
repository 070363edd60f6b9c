//! Exports of a game: its log lines, a time line, the audit of the lines, the choices as text, and an exercise that
//! plays them again.

use std::fmt::Write as _;

use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::timeline;

use super::game::Game;
use super::view::lines_of;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// The log lines of all servers and clients, by time.
    Lines,
    /// The page of `paxos-server timeline`.
    Timeline,
    /// What the audit finds in the lines.
    Audit,
    /// The choices, one a line.
    Text,
    /// An exercise whose solution are the choices, for `paxos-lab play --check`.
    Test,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub kind: &'static str,
    /// Its content.
    pub text: String,
}

impl ExportKind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<ExportKind> {
        match name {
            "lines" => Some(ExportKind::Lines),
            "timeline" => Some(ExportKind::Timeline),
            "audit" => Some(ExportKind::Audit),
            "text" => Some(ExportKind::Text),
            "test" => Some(ExportKind::Test),
            _ => None,
        }
    }
}

/// Exports a game.
pub fn export(mut game: Game, kind: ExportKind) -> Result<Export, String> {
    let name = game.exercise.name.clone();
    let file = |end: &str, kind, text| Export { name: format!("{name}{end}"), kind, text };
    Ok(match kind {
        ExportKind::Text => file(".choices.txt", "text/plain", choices_text(&game)),
        ExportKind::Test => file(".txt", "text/plain", test_text(&game)),
        ExportKind::Lines => {
            let run = lines_of(&mut game)?;
            let mut lines: Vec<_> = run.lines.iter().map(|entry| &entry.line).collect();
            lines.sort_by_key(|line| line.time);
            file(".log", "text/plain", lines.iter().map(|line| format!("{line}\n")).collect())
        }
        ExportKind::Audit => {
            let run = lines_of(&mut game)?;
            file(".audit.txt", "text/plain", format!("{}\n", Audit::new(&run).explain(&run)))
        }
        ExportKind::Timeline => {
            let run = lines_of(&mut game)?;
            let title = format!("{}: {}", name, game.exercise.title);
            let page = timeline::page(&run, &Audit::new(&run), &title, timeline::LINES_MAX);
            file(".html", "text/html", page.html)
        }
    })
}

/// The choices as text, with a head of comments.
pub fn choices_text(game: &Game) -> String {
    let met = game.goals.iter().filter(|met| met.is_some()).count();
    let mut text = format!(
        "# paxos-lab play: exercise {}, mode {}\n# {} of {} goals met in {} steps (par {}), trace {:04x}\n",
        game.exercise.name,
        game.table.mode.name(),
        met,
        game.goals.len(),
        game.table.steps,
        game.exercise.par,
        game.table.hash()
    );
    for step in &game.steps {
        let skipped = if step.number.is_none() { "# did not fit: " } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{skipped}{}", step.choice);
    }
    text
}

/// The exercise with the choices as its solution. Its goals are those that were met, and the break if there is one.
fn test_text(game: &Game) -> String {
    let words = ["goal", "never", "par", "mode", "hint", "solution", "impossible"];
    let kept = game.exercise.source.lines().take_while(|line| line.trim() != "solution");
    let kept = kept.filter(|line| !words.contains(&line.split_whitespace().next().unwrap_or_default()));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    let sources = game.exercise.source.lines().filter(|line| line.starts_with("goal "));
    for (line, _) in sources.zip(&game.goals).filter(|(_, met)| met.is_some()) {
        let _ = writeln!(text, "{line}");
    }
    if game.broken.is_some() {
        let _ = writeln!(text, "goal A guarantee is broken: broken");
    }
    let _ = writeln!(text, "goal All steps are played: steps >= {}", game.table.steps);
    let _ = writeln!(text, "mode {}\npar {}\nsolution", game.table.mode.name(), game.table.steps.max(1));
    for choice in game.fitting() {
        let _ = writeln!(text, "{choice}");
    }
    text
}
