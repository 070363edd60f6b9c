//! The commands of `docs/teaching.md` do what it says, with the files that it shows.

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::fs;

use support::examples::run;
use support::repository;

/// The blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block)).collect()
}

#[test]
fn commands_of_the_page_do_what_it_says() {
    let page = fs::read_to_string(repository().join("docs/teaching.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let texts = blocks(&page, "text");
    assert_eq!(texts.len(), 2, "the choices of a reader, and an exercise");
    fs::write(dir.path().join("mine.txt"), texts[0]).unwrap();
    fs::write(dir.path().join("my.txt"), texts[1]).unwrap();
    let commands = blocks(&page, "sh").into_iter().flat_map(str::lines).filter_map(|line| {
        let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        words.split_first().filter(|(first, _)| **first == "paxos-lab").map(|(_, rest)| rest.to_vec())
    });
    let mut played = 0;
    for words in commands {
        // The page's server runs until it is ended; the browser tests start it.
        if words == ["play"] {
            continue;
        }
        let output = run("paxos-lab", &words, dir.path());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // At the terminal the input of a test ends at once, with the goals not met.
        let expected = i32::from(words.contains(&"--text"));
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{words:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let says = match words[1] {
            "--list" => "adopt",
            "--check" => "my.txt: the solution reaches all goals in 7 steps",
            "--solve" | "adopt" if !words.contains(&"--text") => "Done in 14 steps; par is 14. 3 of 3 stars.",
            _ => "The value you must adopt",
        };
        assert!(text.contains(says), "{words:?}: {text}");
        played += 1;
    }
    assert_eq!(played, 5);
}

#[test]
fn page_names_every_word_of_the_format() {
    let page = fs::read_to_string(repository().join("docs/teaching.md")).unwrap();
    let sources = ["exercise.rs", "predicate.rs"]
        .map(|file| fs::read_to_string(repository().join("crates/lab/src/play").join(file)).unwrap());
    // The words that begin an arm of the two readers: `"goal" =>`.
    for source in sources {
        let words = source.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'));
        for (word, _) in words.filter(|(_, rest)| rest.trim_start().starts_with("=>") || rest.starts_with(" | ")) {
            assert!(page.contains(word), "docs/teaching.md does not explain '{word}'");
        }
    }
}
