//! The command `paxos-lab lesson`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{LESSONS, Lesson, PlayedLesson, Prediction};
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::timeline::{self, LessonPoint, LessonPrediction, LessonText};

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
    let Lesson { title, says, points, moral, question, answer, .. } = lesson;
    let mut text = format!("{title}\n\n{}\n\nLook at:\n", wrapped(says, ""));
    for (n, point) in points.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}", n + 1, wrapped(point.says, "     "));
    }
    let _ = writeln!(
        text,
        "\n{}\n\nQuestion: {}\n{}\n\nOpen {} in a browser: it asks before it shows.",
        wrapped(moral, ""),
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
    let played = lesson.play().map_err(|error| error.to_string())?;
    let run = &played.run;
    let points = lesson.points.iter().map(|point| {
        let asks =
            point.asks.map(|Prediction { question, choices, right }| LessonPrediction { question, choices, right });
        Ok(LessonPoint { says: point.says, line: run.line(line_of(&played, point.line)?).id.to_string(), asks })
    });
    let scene = (0..run.lines.len()).filter(|at| run.line(*at).time >= played.scene_start);
    let scene = scene.min_by_key(|at| run.line(*at).time).map(|at| run.line(at).id.to_string());
    let shown = LessonText {
        title: lesson.title,
        says: lesson.says,
        scene: scene.unwrap_or_default(),
        points: points.collect::<Result<Vec<_>, String>>()?,
        moral: lesson.moral,
        question: lesson.question,
        answer: lesson.answer,
    };
    Ok(timeline::lesson(run, &Audit::new(run), shown))
}

/// The earliest line of the scene that holds these words; a prefix such as `s1.*` restricts the server.
pub(super) fn line_of(played: &PlayedLesson, pattern: &str) -> Result<usize, String> {
    let run = &played.run;
    let (server, words) = pattern.split_once(".*").map_or((None, pattern), |(server, words)| (Some(server), words));
    let fits = |at: &usize| {
        let line = run.line(*at);
        let by = line.id.process.as_server().map(|by| by.to_string());
        line.time >= played.scene_start
            && line.to_string().contains(words)
            && server.is_none_or(|server| by.as_deref() == Some(server))
    };
    let found = (0..run.lines.len()).filter(fits).min_by_key(|at| run.line(*at).time);
    found.ok_or_else(|| format!("the scene has no log line that contains '{words}'"))
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
