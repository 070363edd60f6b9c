//! Scripts: files with one operation per line, for `paxos-client run` and the demo.
//!
//! ```text
//! # a comment
//! put color "deep blue"
//! @3 put motto "two\nlines" --if-version 2
//! get color
//! delete color
//! ```
//!
//! `@3` names the server to ask. Words are separated by spaces or tabs. In double quotes, the escapes `\"`, `\\`, `\n`,
//! `\r`, `\t`, `\xNN` (a byte) and `\uNNNN` (the character with that number) are the same as in log lines. Bytes that
//! are not UTF-8 stand for themselves.

use std::fmt;

use super::check_limits;
use super::operation::Operation;
use crate::role::ServerId;

/// Maximum size of a script, in bytes.
pub const FILE_MAX_BYTES: usize = 64 << 20;
/// Maximum number of errors reported for one file.
const ERRORS_MAX: usize = 8;

/// One operation of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptStep {
    /// The line number, from 1.
    pub line: usize,
    /// The server to ask; any server if None.
    pub server: Option<ServerId>,
    /// The operation.
    pub action: Operation,
}

/// The operation as in a script, except that long words are cut.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Put { key, value, if_version } => {
                write!(f, "put {} {}", word(key), word(value))?;
                if_version.map_or(Ok(()), |version| write!(f, " --if-version {version}"))
            }
            Operation::Get { key } => write!(f, "get {}", word(key)),
            Operation::Delete { key } => write!(f, "delete {}", word(key)),
        }
    }
}

/// Bytes for messages: quoted and escaped if necessary, and cut if long.
pub fn quote_key(bytes: &[u8]) -> crate::trace::QuotedText {
    crate::trace::QuotedText::new(bytes)
}

/// Bytes as a word of a script; long ones are cut as in messages.
pub fn word(bytes: &[u8]) -> String {
    let text = quote_key(bytes).to_string();
    // Without quotes, `#` would begin a comment.
    if text.starts_with('#') { format!("\"{text}\"") } else { text }
}

/// An error in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line number, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The message.
    pub what: String,
}

/// Parses a whole script. If a line is wrong, all errors are returned and no operation, so a script with an error has
/// no effect.
pub fn parse(bytes: &[u8]) -> Result<Vec<ScriptStep>, Vec<ScriptError>> {
    if bytes.len() > FILE_MAX_BYTES {
        let what = format!("the file has {} bytes or more; the maximum is {FILE_MAX_BYTES} bytes", bytes.len());
        return Err(vec![ScriptError { line: 0, what }]);
    }
    let (mut operations, mut errors) = (Vec::new(), Vec::new());
    for (n, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line_bytes = line.strip_suffix(b"\r").unwrap_or(line);
        match words(line_bytes).and_then(|words| operation(n + 1, words)) {
            Ok(operation) => operations.extend(operation),
            Err(what) => errors.push(ScriptError { line: n + 1, what }),
        }
        if errors.len() == ERRORS_MAX {
            break;
        }
    }
    if errors.is_empty() { Ok(operations) } else { Err(errors) }
}

/// A word of a line, and whether it was in quotes. A quoted word is never an option, a server or a comment.
#[derive(Debug, PartialEq, Eq)]
struct ScriptToken {
    bytes: Vec<u8>,
    quoted: bool,
}

/// The operation in the words of a line; None if the line is empty.
fn operation(line: usize, words: Vec<ScriptToken>) -> Result<Option<ScriptStep>, String> {
    let mut words = words.into_iter().peekable();
    let Some(first) = words.peek() else { return Ok(None) };
    let server = match first.bytes.strip_prefix(b"@").filter(|_| !first.quoted) {
        None => None,
        Some(number) => {
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            let server = number.filter(|number| (1..=ServerId::MAX).contains(number)).map(ServerId);
            Some(server.ok_or_else(|| format!("{} is not a server (example: @3)", quote_key(&first.bytes)))?)
        }
    };
    if server.is_some() {
        words.next();
    }
    let verb = words.next().ok_or("the operation is missing after the server")?;
    let mut word = |what: &str| words.next().map(|word| word.bytes).ok_or_else(|| format!("the {what} is missing"));
    let action = match verb.bytes.to_ascii_lowercase().as_slice() {
        b"put" => {
            let (key, value) = (word("key")?, word("value")?);
            Operation::Put { key, value, if_version: if_version(&mut words)? }
        }
        b"get" => Operation::Get { key: word("key")? },
        b"delete" => Operation::Delete { key: word("key")? },
        _ => return Err(format!("{} is not an operation (put, get, delete)", quote_key(&verb.bytes))),
    };
    if let Some(extra) = words.next() {
        return Err(format!("unexpected word {}: a key or value with spaces needs quotes", quote_key(&extra.bytes)));
    }
    let value: &[u8] = if let Operation::Put { value, .. } = &action { value } else { &[] };
    check_limits(action.key(), value).map_err(|error| error.to_string())?;
    Ok(Some(ScriptStep { line, server, action }))
}

/// Parses `--if-version N` or `--if-version=N`, if present.
fn if_version(words: &mut std::iter::Peekable<std::vec::IntoIter<ScriptToken>>) -> Result<Option<u64>, String> {
    let Some(option) = words.next_if(|word| !word.quoted && word.bytes.starts_with(b"--if-version")) else {
        return Ok(None);
    };
    let number = match option.bytes.strip_prefix(b"--if-version=") {
        Some(number) => number.to_vec(),
        None if option.bytes == b"--if-version" => words.next().map(|word| word.bytes).unwrap_or_default(),
        None => Vec::new(),
    };
    let version = std::str::from_utf8(&number).ok().and_then(|number| number.parse().ok());
    version.map(Some).ok_or_else(|| "--if-version needs a version number".to_string())
}

/// The words of a line, up to a comment.
fn words(line: &[u8]) -> Result<Vec<ScriptToken>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let (word, after) = match first {
            b'#' => break,
            b'"' => quoted(&rest[1..])?,
            _ => plain(rest)?,
        };
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

/// A word without quotes, and the rest of the line.
fn plain(text: &[u8]) -> Result<(ScriptToken, &[u8]), String> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    if let Some(wrong) = word.iter().find(|byte| **byte == b'"' || byte.is_ascii_control()) {
        return Err(format!(
            "{} is not allowed in the unquoted word {}: put the word in double quotes",
            wrong.escape_ascii(),
            quote_key(word)
        ));
    }
    Ok((ScriptToken { bytes: word.to_vec(), quoted: false }, after))
}

/// A quoted word whose opening quote was removed, and the rest of the line.
fn quoted(text: &[u8]) -> Result<(ScriptToken, &[u8]), String> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match text.get(at) {
            None => return Err("a double quote is not closed".to_string()),
            Some(b'"') => break,
            Some(b'\\') => {
                at += 1 + escape(&text[at + 1..], &mut bytes)?;
            }
            Some(byte) => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    let after = &text[at + 1..];
    if after.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
        return Err("a closing quote is followed by something other than a space".to_string());
    }
    Ok((ScriptToken { bytes, quoted: true }, after))
}

/// Appends the bytes of an escape; returns the number of bytes that it uses after the backslash.
fn escape(text: &[u8], bytes: &mut Vec<u8>) -> Result<usize, String> {
    let wrong = || "invalid escape (valid: \\\" \\\\ \\n \\r \\t \\xNN \\uNNNN)".to_string();
    let number = |count: usize| {
        let digits = std::str::from_utf8(text.get(1..=count)?).ok()?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let (byte, length) = match text.first().ok_or_else(wrong)? {
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        byte @ (b'"' | b'\\') => (*byte, 1),
        b'x' => (number(2).ok_or_else(wrong)? as u8, 3),
        b'u' => {
            let character = number(4).and_then(char::from_u32).ok_or_else(wrong)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(5);
        }
        _ => return Err(wrong()),
    };
    bytes.push(byte);
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: impl AsRef<[u8]>) -> Result<ScriptStep, String> {
        match parse(line.as_ref()) {
            Ok(mut operations) => {
                assert_eq!(operations.len(), 1);
                Ok(operations.remove(0))
            }
            Err(errors) => Err(errors[0].what.clone()),
        }
    }

    fn put(key: &[u8], value: &[u8], if_version: Option<u64>) -> Operation {
        Operation::Put { key: key.to_vec(), value: value.to_vec(), if_version }
    }

    #[test]
    fn operations_parse_with_server_quotes_and_version() {
        assert_eq!(one("put color blue").unwrap().action, put(b"color", b"blue", None));
        let operation = one("\t@3  PUT \"my key\" \"deep \\\"blue\\\"\\n\\xff\" --if-version 2 # why\r\n").unwrap();
        assert_eq!(operation.server, Some(ServerId(3)));
        assert_eq!(operation.action, put(b"my key", b"deep \"blue\"\n\xff", Some(2)));
        assert_eq!(one("put k v --if-version=0").unwrap().action, put(b"k", b"v", Some(0)));
        assert_eq!(one("get a#b").unwrap().action, Operation::Get { key: b"a#b".to_vec() });
        assert_eq!(one("delete \"\"").unwrap().action, Operation::Delete { key: Vec::new() });
        // In quotes, nothing is an option, a comment or a server.
        assert_eq!(one("put \"#k\" \"--if-version\"").unwrap().action, put(b"#k", b"--if-version", None));
        assert_eq!(one(b"put k \xff\xfe").unwrap().action, put(b"k", b"\xff\xfe", None));
    }

    #[test]
    fn empty_lines_and_comments_count_as_lines_but_not_as_operations() {
        let operations = parse(b"# first\n\n  \t\r\nget a\n   # last\nget b").unwrap();
        assert_eq!(operations.iter().map(|operation| operation.line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn script_errors_name_their_line() {
        let cases = [
            ("put", "the key is missing"),
            ("put k", "the value is missing"),
            ("get", "the key is missing"),
            ("delete", "the key is missing"),
            ("get a b", "unexpected word b"),
            ("put k deep blue", "unexpected word blue"),
            ("put k v --if-version", "needs a version number"),
            ("put k v --if-version -1", "needs a version number"),
            ("put k v --if-version=1.5", "needs a version number"),
            ("put k v --if-versions 1", "needs a version number"),
            ("put k v --if-version 99999999999999999999", "needs a version number"),
            ("drop table", "drop is not an operation"),
            ("\"@3\" get k", "@3 is not an operation"),
            ("@0 get k", "@0 is not a server"),
            ("@64 get k", "@64 is not a server"),
            ("@x get k", "@x is not a server"),
            ("@ get k", "@ is not a server"),
            ("@3", "operation is missing"),
            ("get \"k", "not closed"),
            ("get \"k\\", "escape"),
            ("get \"\\q\"", "escape"),
            ("get \"\\x1\"", "escape"),
            ("get \"\\xg0\"", "escape"),
            ("get \"\\x+1\"", "escape"),
            ("get \"\\u20\"", "escape"),
            ("get \"\\ud800\"", "escape"),
            ("get \"a\"b", "closing quote"),
            ("get a\"b", "not allowed"),
            ("get a\u{7}b", "not allowed"),
            ("get a\0b", "not allowed"),
        ];
        for (line, reason) in cases {
            let errors = parse(format!("get fine\n{line}\n").as_bytes()).unwrap_err();
            assert_eq!((errors.len(), errors[0].line), (1, 2), "{line:?}");
            let what = &errors[0].what;
            assert!(what.contains(reason), "{line:?}: {what}");
            assert!(!what.bytes().any(|byte| byte.is_ascii_control()), "{what:?}");
        }
    }

    #[test]
    fn limits_are_checked_before_anything_is_sent() {
        let key = "k".repeat(crate::kv::KEY_MAX_BYTES);
        assert!(one(format!("get {key}")).is_ok());
        assert!(one(format!("get {key}k")).unwrap_err().contains("the store takes at most 4096"));
        let value = "v".repeat(crate::kv::VALUE_MAX_BYTES + 1);
        assert!(one(format!("put k {value}")).unwrap_err().contains("at most 1048576"));
        assert!(one("x".repeat(100_000)).unwrap_err().len() < 200);
    }

    #[test]
    fn script_reports_at_most_eight_errors() {
        let errors = parse("nonsense\n".repeat(1_000).as_bytes()).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // The result does not matter: parsing must return without a panic.
            let _ = parse(&bytes);
        }

        #[test]
        fn every_key_and_value_can_be_written(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..40)) {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
            let line = format!("put \"{}\" \"{}\"", hex(&key), hex(&value));
            prop_assert_eq!(one(line).unwrap().action, put(&key, &value, None));
        }

        #[test]
        fn shown_operation_parses_back_to_itself(key in "\\PC{0,8}|[#@ \"\\\\=\u{0}\u{2028}\u{a0}]{0,8}", version in prop::option::of(any::<u64>())) {
            let action = put(key.as_bytes(), key.as_bytes(), version);
            prop_assert_eq!(one(action.to_string()).unwrap().action, action);
        }
    }
}
