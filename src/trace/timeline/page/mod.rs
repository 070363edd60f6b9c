//! Puts the page together from its parts.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::PageData;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    include_str!("reader.js"),
    include_str!("model.js"),
    include_str!("sentences.js"),
    include_str!("marks.js"),
    include_str!("diagram.js"),
    include_str!("strip.js"),
    include_str!("panels.js"),
    include_str!("main.js"),
);
/// What only a page needs that watches a cluster.
const LIVE: &str = include_str!("live.js");

/// The page; `reach` is what it may talk to, in the words of a content security policy.
pub(crate) fn assemble(data: &PageData, reach: &str) -> String {
    let policy =
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; {reach}");
    // Each part is put in once, the data last: what stands in it is never searched for places to fill.
    // The script is one scope: nothing of it can be reached from outside by accident.
    let live = if data.live { LIVE } else { "" };
    let script = format!("(() => {{\n\"use strict\";\n{live}{SCRIPT}}})();\n");
    let page = HTML
        .replace("%POLICY%", &policy)
        .replace("%TITLE%", &escape(&data.title))
        .replace("%STYLE%", STYLE)
        .replace("%SCRIPT%", &script);
    let (head, tail) = page.split_once("%DATA%").unwrap_or((&page, ""));
    [head, &json(data), tail].concat()
}

/// JSON that no reader of HTML takes for the end of its script.
fn json(data: &PageData) -> String {
    serde_json::to_string(data).unwrap_or_default().replace('<', "\\u003c").replace('>', "\\u003e")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('%', "&#37;")
}

/// Lines, packed: a tenth of their length.
pub(crate) fn pack(lines: &str) -> String {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let packed = packer.write_all(lines.as_bytes()).and_then(|()| packer.finish()).unwrap_or_default();
    STANDARD.encode(packed)
}
