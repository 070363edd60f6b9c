//! The comparison as one self-contained HTML page: a row for each scenario, a picture in each cell.

use std::fmt::Write as _;

use super::compare_command::{consistent, replay, span};
use super::{BAR, ComparisonCell, END, FAULT_END, Scenario};
use paxos_kv::protocol::Protocol;

/// The height of a small picture, and the width of one bar, in pixels.
const HEIGHT: f64 = 46.0;
const STEP: f64 = 3.0;

/// The page of these cells.
pub(super) fn page(seed: u64, cells: &[ComparisonCell]) -> String {
    let mut protocols: Vec<Protocol> = cells.iter().map(|cell| cell.protocol).collect();
    protocols.sort_by_key(|protocol| protocol.name().len());
    protocols.dedup();
    let protocols: Vec<Protocol> = Protocol::ALL.into_iter().filter(|one| protocols.contains(one)).collect();
    let most = cells.iter().flat_map(|cell| &cell.bars).copied().max().unwrap_or(1).max(1);
    let mut rows = String::new();
    for scenario in Scenario::ALL {
        let of: Vec<&ComparisonCell> = cells.iter().filter(|cell| cell.scenario == scenario).collect();
        if of.is_empty() {
            continue;
        }
        let _ = write!(rows, "<tr><th scope=\"row\">{}</th>", scenario.description());
        for protocol in &protocols {
            match of.iter().find(|cell| cell.protocol == *protocol) {
                Some(cell) => rows.push_str(&draw(seed, cell, most)),
                None => rows.push_str("<td></td>"),
            }
        }
        rows.push_str("</tr>\n");
    }
    let heads: String = protocols.iter().map(|one| format!("<th scope=\"col\">{}</th>", one.name())).collect();
    let costs: String = protocols.iter().map(|one| cost(cells, *one)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>The same faults, three protocols</title>\n<style>{STYLE}</style>\n<main>\n\
         <h1>The same work, the same faults, three protocols</h1>\n{INTRODUCTION}\n\
         <table><thead><tr><th>scenario</th>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n\
         <h2>Cost of a write without faults</h2>\n\
         <table class=\"costs\"><thead><tr><th></th><th>messages to other servers</th><th>with those within a server</th>\
         <th>syncs, all servers</th></tr></thead>\n<tbody>{costs}</tbody></table>\n\
         <p class=\"dim\">Means over all cells, counted until the fault, without PROGRESS, heartbeats and the messages of reads. \
         Under load, records of several writes share a sync. Seed {seed}. All numbers come from the simulator, which runs \
         the real protocols in virtual time.</p>\n</main>\n</html>\n"
    )
}

/// One cell: its picture, its numbers, and the command that plays it again.
fn draw(seed: u64, cell: &ComparisonCell, most: u32) -> String {
    let width = cell.bars.len() as f64 * STEP;
    let x = |micros: u64| micros as f64 / BAR as f64 * STEP;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"operations done in \
         each 100 ms\">"
    );
    if let Some(struck) = cell.fault_time {
        let until = cell.scenario.ends().map_or(END, |_| FAULT_END);
        let _ = write!(
            svg,
            "<rect class=\"fault\" x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
            x(struck),
            x(until.saturating_sub(struck))
        );
    }
    for (n, count) in cell.bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (f64::from(*count) / f64::from(most) * (HEIGHT - 2.0)).max(1.0);
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            n as f64 * STEP,
            HEIGHT - height,
            STEP - 0.6
        );
    }
    svg.push_str("</svg>");
    let after = match cell.fault_time {
        Some(_) => format!("{} after the fault, ", cell.after),
        None => String::new(),
    };
    let doubt = match cell.in_doubt {
        0 => "no transaction in doubt at 8 s".to_string(),
        1 => format!("<b class=\"bad\">1 transaction in doubt</b>, for {}", span(cell.in_doubt_for)),
        many => format!("<b class=\"bad\">{many} transactions in doubt</b>, up to {}", span(cell.in_doubt_for)),
    };
    let gap = if cell.longest_gap >= 1_000_000 { "bad" } else { "" };
    format!(
        "<td>{svg}<p><b>{}</b> done, {after}longest gap <b class=\"{gap}\">{}</b></p><p>{doubt}; {} refused, {} unknown</p>\
         <p>inconsistent: {}</p><code>{}</code></td>",
        cell.writes + cell.reads,
        span(cell.longest_gap),
        cell.refused,
        cell.unknown,
        if consistent(&cell.verdict) == "always" { "never".to_string() } else { escaped(&consistent(&cell.verdict)) },
        replay(seed, cell)
    )
}

fn cost(cells: &[ComparisonCell], protocol: Protocol) -> String {
    let of = cells.iter().filter(|cell| cell.protocol == protocol).map(|cell| cell.cost);
    let costs: Vec<_> = of.collect();
    let mean = |value: fn(&super::WriteCost) -> f64| costs.iter().map(value).sum::<f64>() / costs.len().max(1) as f64;
    format!(
        "<tr><th scope=\"row\">{}</th><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td></tr>",
        protocol.name(),
        mean(super::WriteCost::messages),
        mean(super::WriteCost::all_messages),
        mean(super::WriteCost::syncs)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const INTRODUCTION: &str = "\
<p>Two-phase commit asks: <em>will all servers do this, or none?</em> Paxos asks: <em>do the servers agree on one value,
although some are down?</em> Here both serve the same store on five servers, with the same clients and the same seed. A
picture shows the operations done in each 100 ms; the fault lasts for the shaded time. Two-phase commit stops by design: no
server may do what another server has not agreed to. Some of its reads continue: any server answers a read alone while no
transaction has locked the key.</p>";

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c1c1c; --dim: #666; --line: #ddd; --bar: #0072b2; --fault: #d55e0033; --bad: #b33; --back: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --dim: #999; --line: #444; --bar: #56b4e9; --fault: #e69f0044; --bad: #f77; --back: #181818; }
}
body { margin: 0; background: var(--back); color: var(--text); font: 14px/1.45 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 32px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 8px 10px; border-top: 1px solid var(--line); }
tbody th { font-weight: 600; width: 150px; }
td p { margin: 2px 0; font-size: 12.5px; }
td code { display: block; font-size: 10.5px; color: var(--dim); overflow-wrap: anywhere; }
svg { display: block; max-width: 100%; border-bottom: 1px solid var(--line); }
.bar { fill: var(--bar); } .fault { fill: var(--fault); } .bad { color: var(--bad); } .dim { color: var(--dim); }
.costs td { font-variant-numeric: tabular-nums; }
";
