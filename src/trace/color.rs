//! Terminal colors of a line: dim for what is the same in every line, bright for problems, and one color for each
//! server. Without the color codes, the line is unchanged.

use anstyle::{AnsiColor, Color, Style};
use log::Level;

use super::line::Line;

/// Colors of servers 1 to 6, then repeated; the timeline page uses the same.
const SERVERS: [AnsiColor; 6] = [
    AnsiColor::BrightBlue,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Cyan,
    AnsiColor::BrightMagenta,
];

/// The line in colors.
pub fn colored(line: &Line) -> String {
    painted_text(&line.to_string(), line.level())
}

/// Colors a line that is already text.
pub(super) fn painted_text(line: &str, level: Level) -> String {
    let Some((time, rest)) = line.split_once(' ') else { return line.to_string() };
    let dim = Style::new().dimmed();
    // The level and everything after it, up to the reason.
    let (tail, why) = rest.split_once(" -- ").map_or((rest, None), |(tail, why)| (tail, Some(why)));
    let (level_word, tail) = tail.split_at(tail.len().min(6));
    let id_end = tail.find(' ').unwrap_or(tail.len());
    let (id, tail) = tail.split_at(id_end);
    let (loud, owner) = (style(level), owner(id));
    let why = why.map_or(String::new(), |why| format!(" -- {}{why}{:#}", dim.italic(), dim.italic()));
    format!("{dim}{time}{dim:#} {loud}{level_word}{loud:#}{owner}{id}{owner:#}{loud}{tail}{loud:#}{why}")
}

fn owner(id: &str) -> Style {
    let number = id.strip_prefix('s').and_then(|rest| rest.split(['.', '@']).next()?.parse::<usize>().ok());
    match number.filter(|number| *number > 0) {
        Some(number) => Style::new().bold().fg_color(Some(Color::Ansi(SERVERS[(number - 1) % SERVERS.len()]))),
        None => Style::new().bold(),
    }
}

fn style(level: Level) -> Style {
    match level {
        Level::Error => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        Level::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Level::Info => Style::new(),
        Level::Debug | Level::Trace => Style::new().dimmed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coloring_keeps_the_text() {
        for shape in include_str!("testdata/shapes.log").lines() {
            let line: Line = shape.parse().unwrap();
            let painted = colored(&line);
            assert_ne!(painted, shape);
            let mut plain = String::new();
            let mut inside = false;
            for c in painted.chars() {
                match c {
                    '\u{1b}' => inside = true,
                    'm' if inside => inside = false,
                    c if !inside => plain.push(c),
                    _ => {}
                }
            }
            assert_eq!(plain, shape);
        }
    }
}
