//! Lines side by side: one column for each server, and one for all clients. Time runs down, as in the timeline page.

use std::collections::BTreeSet;

use super::event::Event;
use super::line::{Line, Speaker};
use crate::role::ServerId;

/// Maximum width of a column, in characters.
const WIDTH_MAX: usize = 30;

/// The table of these lines, in this order.
pub fn table(lines: &[&Line]) -> String {
    let servers: BTreeSet<ServerId> = lines.iter().filter_map(|line| line.id.process.as_server()).collect();
    let others = lines.iter().any(|line| line.id.process.as_server().is_none());
    let mut columns: Vec<Option<ServerId>> = others.then_some(None).into_iter().collect();
    columns.extend(servers.into_iter().map(Some));
    let cells: Vec<String> = lines.iter().map(|line| cell(line)).collect();
    let width = |column: &Option<ServerId>| {
        let own = lines.iter().zip(&cells).filter(|(line, _)| line.id.process.as_server() == *column);
        own.map(|(_, cell)| cell.chars().count()).max().unwrap_or(0).clamp(4, WIDTH_MAX)
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let name = |column: &Option<ServerId>| column.map_or("clients".to_string(), |server| server.to_string());
    let mut text = row("time", columns.iter().zip(&widths).map(|(column, width)| (name(column), *width)));
    for (line, cell) in lines.iter().zip(&cells) {
        let time = format!("{:.6}", line.time);
        let own = columns.iter().zip(&widths).map(|(column, width)| {
            let is_here = line.id.process.as_server() == *column;
            (if is_here { cut(cell, *width) } else { String::new() }, *width)
        });
        text.push_str(&row(time.get(11..26).unwrap_or(&time), own));
    }
    text
}

fn row(time: &str, cells: impl Iterator<Item = (String, usize)>) -> String {
    let mut text = format!("{time:<15}");
    for (cell, width) in cells {
        text.push_str(&format!("  {cell:<width$}"));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A line in a few words: the role's letter, the event, and the fields that distinguish it.
fn cell(line: &Line) -> String {
    let letter = match line.role {
        Speaker::Proposer => "P ",
        Speaker::Acceptor => "A ",
        Speaker::Learner => "L ",
        Speaker::Server => "S ",
        _ => "",
    };
    let text = line.event.to_string();
    let shown = |keys: &[&str]| -> String {
        let mut fields = super::field::Fields::new(text.split_once(' ').map_or("", |(_, fields)| fields));
        let mut words = Vec::new();
        while let Some((key, _)) = fields.rest().split_once('=') {
            let key = key.to_string();
            let Some(value) = fields.take(&key) else { break };
            if keys.contains(&key.as_str()) {
                words.push(value.to_string());
            }
        }
        words.join(" ")
    };
    let details = match &line.event {
        Event::Request { .. } => shown(&["op", "key"]),
        Event::Response { .. } => shown(&["status", "slot"]),
        Event::Drop { .. } => shown(&["msg", "cause"]),
        Event::Learn { .. } => shown(&["slot", "op", "key"]),
        Event::Accept { .. } => shown(&["slot", "ballot", "key"]),
        Event::Nack { .. } => shown(&["ballot", "promised"]),
        _ => shown(&["slot", "ballot", "state", "peer", "status"]),
    };
    format!("{letter}{} {details}", line.event.name()).trim_end().to_string()
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_string();
    }
    cell.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_stands_in_the_column_of_its_server() {
        let lines: Vec<Line> = [
            "2026-08-21T14:03:07.104112Z INFO  c1.9    client   REQUEST  req=c1-5 op=PUT key=color value=\"deep blue\" to=s1",
            "2026-08-21T14:03:07.104455Z INFO  s1.204  proposer PREPARE  req=c1-5 slot=7+ ballot=3.1 to=s1,s2 re=c1.9",
            "2026-08-21T14:03:07.104921Z INFO  s2.118  acceptor PROMISE  slot=7+ ballot=3.1 accepted=none to=s1 re=s1.204",
            "2026-08-21T14:03:07.105013Z INFO  s2.119  acceptor NACK     slot=7+ ballot=3.1 promised=4.2 to=s1 re=s1.204",
        ]
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
        let text = table(&lines.iter().collect::<Vec<_>>());
        assert_eq!(
            text,
            "time             clients            s1                s2\n\
             14:03:07.104112  REQUEST PUT color\n\
             14:03:07.104455                     P PREPARE 7+ 3.1\n\
             14:03:07.104921                                       A PROMISE 7+ 3.1\n\
             14:03:07.105013                                       A NACK 3.1 4.2\n"
        );
    }
}
