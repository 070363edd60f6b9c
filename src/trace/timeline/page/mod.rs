//! Page assembly: joins the parts of the page to one HTML file.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::PageData;

const HTML: &str = include_str!("page.html");
const STYLE: &str = concat!(include_str!("page.css"), include_str!("scene.css"));
const SCRIPT: &str = concat!(
    include_str!("reader.js"),
    include_str!("patch.js"),
    include_str!("model.js"),
    include_str!("network.js"),
    include_str!("quorums.js"),
    include_str!("sentences.js"),
    include_str!("marks.js"),
    include_str!("diagram.js"),
    include_str!("strip.js"),
    include_str!("ring.js"),
    include_str!("opening.js"),
    include_str!("lesson.js"),
    include_str!("panels.js"),
    include_str!("main.js"),
);
/// Script that only a page of a live cluster needs.
const LIVE: &str = concat!(include_str!("live.js"), include_str!("lab.js"));

/// The page; `reach` names what it may connect to, as a directive of a content security policy.
pub(crate) fn assemble(data: &PageData, reach: &str) -> String {
    let policy =
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; {reach}");
    // Each part is inserted once, and the data last: its text is never searched for placeholders. The script is one
    // function scope, so other scripts cannot reach its names.
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

/// JSON that no HTML parser takes for the end of its script.
fn json(data: &PageData) -> String {
    serde_json::to_string(data).unwrap_or_default().replace('<', "\\u003c").replace('>', "\\u003e")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('%', "&#37;")
}

/// Packs lines, to about a tenth of their size.
pub(crate) fn pack(lines: &str) -> String {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let packed = packer.write_all(lines.as_bytes()).and_then(|()| packer.finish()).unwrap_or_default();
    STANDARD.encode(packed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The files of the script are one: of two functions with one name the later one silently replaces the first.
    #[test]
    fn no_two_files_of_the_script_declare_one_name() {
        let mut declared = BTreeSet::new();
        for line in super::SCRIPT.lines().chain(super::LIVE.lines()) {
            let words = line.strip_prefix("async ").unwrap_or(line);
            let name = ["function ", "class ", "const ", "let "].into_iter().find_map(|word| words.strip_prefix(word));
            let Some(name) = name.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()) else {
                continue;
            };
            assert!(name.is_empty() || declared.insert(name.to_string()), "{name} is declared twice");
        }
        assert!(declared.len() > 50, "{declared:?}");
    }
}
