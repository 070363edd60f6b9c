//! The page of `paxos-lab play`: one document that asks this program and nothing else.

const HTML: &str = include_str!("page.html");
const STYLE: &str = concat!(include_str!("page.css"), include_str!("sizes.css"));
const SCRIPT: &str = concat!(
    // The shapes are those of the time line: what is learned there holds here.
    include_str!("../../../../../src/trace/timeline/page/marks.js"),
    include_str!("nodes.js"),
    include_str!("service.js"),
    include_str!("store.js"),
    include_str!("game.js"),
    include_str!("layout.js"),
    include_str!("ring.js"),
    include_str!("choices.js"),
    include_str!("chosen.js"),
    include_str!("side.js"),
    include_str!("strips.js"),
    include_str!("run.js"),
    include_str!("dialogs.js"),
    include_str!("share.js"),
    include_str!("keys.js"),
    include_str!("main.js"),
);
/// The page runs its own script and connects to its own origin; everything else is refused.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'";

/// The page, as one document without external parts.
pub fn html() -> String {
    // The script is one function scope, so other scripts cannot reach its names.
    let script = format!("(() => {{\n\"use strict\";\n{SCRIPT}}})();\n");
    HTML.replace("%POLICY%", POLICY).replace("%STYLE%", STYLE).replace("%SCRIPT%", &script)
}

#[cfg(test)]
mod tests {
    use super::{POLICY, html};

    #[test]
    fn page_is_complete_and_names_no_other_origin() {
        let page = html();
        assert!(page.contains(&format!("content=\"{POLICY}\"")));
        for placeholder in ["%POLICY%", "%STYLE%", "%SCRIPT%"] {
            assert!(!page.contains(placeholder), "{placeholder} is left");
        }
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"));
        // A second end of script would cut the page in two.
        assert_eq!(page.matches("</script").count(), 1);
    }

    #[test]
    fn texts_reach_the_page_as_text_nodes_only() {
        let page = html();
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!page.contains(way), "{way}");
        }
    }
}
