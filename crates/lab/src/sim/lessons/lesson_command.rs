//! The command `paxos-lab lesson`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{LESSONS, Lesson};
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::timeline::{self, LessonText};

/// The command line of the lessons.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab lesson                               list the lessons
  paxos-lab lesson one-value                     simulate it and write lesson-one-value.html, a page for a browser
  paxos-lab lesson lost-memory -o /tmp/l.html    write the page to this file

Each lesson takes a minute to read. It ends with a question and where to find the answer.")]
pub struct LessonArgs {
    /// Name of the lesson [default: list all lessons]
    name: Option<String>,
    /// File to write [default: lesson-NAME.html]
    #[arg(short, long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

/// Plays a lesson, or lists them; returns the text to print and the exit code.
pub fn run(arguments: &LessonArgs) -> Result<(String, u8), String> {
    let Some(name) = &arguments.name else { return Ok((list(), 0)) };
    let lesson =
        Lesson::named(name).ok_or_else(|| format!("there is no lesson '{name}'. The lessons are:\n{}", list()))?;
    let out = arguments.out.clone().unwrap_or_else(|| format!("lesson-{name}.html").into());
    let html = page(lesson)?;
    fs::write(&out, html).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    let Lesson { title, says, look, question, answer, .. } = lesson;
    let mut text = format!("{title}\n\n{}\n\nLook at:\n", wrapped(says, ""));
    for (n, (sentence, _)) in look.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}", n + 1, wrapped(sentence, "     "));
    }
    let _ = writeln!(
        text,
        "\nQuestion: {}\n{}\n\nOpen {} in a browser.",
        wrapped(question, ""),
        wrapped(answer, ""),
        out.display()
    );
    Ok((text, 0))
}

fn list() -> String {
    LESSONS.iter().map(|lesson| format!("  {:<16} {}\n", lesson.name, lesson.title)).collect()
}

/// The page of a lesson.
pub fn page(lesson: &Lesson) -> Result<String, String> {
    let run = lesson.run().map_err(|error| error.to_string())?;
    let look = lesson.look.iter().map(|(sentence, words)| Ok((*sentence, line_of(&run, words)?)));
    let look = look.collect::<Result<Vec<_>, String>>()?;
    let shown =
        LessonText { title: lesson.title, says: lesson.says, look, question: lesson.question, answer: lesson.answer };
    Ok(timeline::lesson(&run, &Audit::new(&run), shown))
}

/// The id of the earliest line that holds these words; a prefix such as `s1.*` restricts the server.
pub(super) fn line_of(run: &Run, pattern: &str) -> Result<String, String> {
    let (server, words) = pattern.split_once(".*").map_or((None, pattern), |(server, words)| (Some(server), words));
    let fits = |at: &usize| {
        let line = run.line(*at);
        let by = line.id.process.as_server().map(|by| by.to_string());
        line.to_string().contains(words) && server.is_none_or(|server| by.as_deref() == Some(server))
    };
    let found = (0..run.lines.len()).filter(fits).min_by_key(|at| run.line(*at).time);
    found
        .map(|at| run.line(at).id.to_string())
        .ok_or_else(|| format!("the scene has no log line that contains '{words}'"))
}

/// Wraps a text at 100 columns; all lines after the first are indented.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + word.len() + 1 > 100 - indent.len() {
            lines.push(word.to_string());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last] += &format!("{space}{word}");
        }
    }
    lines.join(&format!("\n{indent}"))
}
