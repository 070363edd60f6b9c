//! Quoted text: a client's bytes in a line. They are exact, bounded, and cannot imitate anything else.
//!
//! A key may hold any bytes, even a newline and a whole forged line. So bytes with a meaning in a line, and invisible
//! characters, are escaped inside quotes. A long text is cut; its length and a hash identify it.

use std::fmt::{self, Debug, Display, Write};

use xxhash_rust::xxh3::xxh3_64;

/// Maximum length in bytes of a text that is shown whole.
pub const UNTRUNCATED_MAX_BYTES: usize = 64;
/// Maximum number of bytes that a cut text shows.
const HEAD_BYTES: usize = 32;

/// Bytes as a line shows them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotedText {
    /// All bytes.
    Whole(Vec<u8>),
    /// The first bytes of a long text.
    Truncated {
        /// The first bytes.
        head: Vec<u8>,
        /// The full length in bytes.
        length: u64,
        /// The 64-bit xxh3 of all bytes. Texts with the same length and hash are treated as equal.
        hash: u64,
    },
}

impl QuotedText {
    /// What a line shows of these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> QuotedText {
        let bytes = bytes.as_ref();
        if bytes.len() <= UNTRUNCATED_MAX_BYTES {
            return QuotedText::Whole(bytes.to_vec());
        }
        let head = bytes[..floor_char_boundary(bytes, HEAD_BYTES)].to_vec();
        QuotedText::Truncated { head, length: bytes.len() as u64, hash: xxh3_64(bytes) }
    }

    /// Reads what [`Display`] wrote; None for any other text.
    pub fn parse(text: &str) -> Option<QuotedText> {
        let Some(quoted) = text.strip_prefix('"') else {
            return (!text.is_empty() && !needs_quotes(text.as_bytes())).then(|| QuotedText::Whole(text.into()));
        };
        let end = closing_quote(quoted)?;
        let (inside, rest) = (&quoted[..end], &quoted[end + 1..]);
        if rest.is_empty() {
            return unescape(inside).map(QuotedText::Whole);
        }
        let (length, hash) = rest.strip_prefix('+')?.split_once("B#")?;
        if hash.len() != 16 {
            return None;
        }
        let head = unescape(inside.strip_suffix("...")?)?;
        Some(QuotedText::Truncated { head, length: length.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? })
    }

    /// The text itself, if it is whole and valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            QuotedText::Whole(bytes) => std::str::from_utf8(bytes).ok(),
            QuotedText::Truncated { .. } => None,
        }
    }
}

impl From<&str> for QuotedText {
    fn from(text: &str) -> QuotedText {
        QuotedText::new(text)
    }
}

impl Display for QuotedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotedText::Whole(bytes) => write_bytes(bytes, f),
            QuotedText::Truncated { head, length, hash } => {
                f.write_char('"')?;
                escape(head, f)?;
                write!(f, "...\"+{length}B#{hash:016x}")
            }
        }
    }
}

impl Debug for QuotedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Writes bytes whole, in quotes if they need them.
pub(super) fn write_bytes(bytes: &[u8], to: &mut impl Write) -> fmt::Result {
    match std::str::from_utf8(bytes) {
        Ok(text) if !needs_quotes(bytes) => to.write_str(text),
        _ => {
            to.write_char('"')?;
            escape(bytes, to)?;
            to.write_char('"')
        }
    }
}

/// Index of the closing quote, in the text after the opening quote.
pub(super) fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Whether a character is invisible or changes how others appear: line breaks of all kinds, controls, and the marks
/// that turn the direction of writing.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn needs_quotes(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.is_empty() || text.contains(|c| matches!(c, ' ' | '"' | '=' | '\\') || is_invisible(c)),
        Err(_) => true,
    }
}

/// JSON's escapes, and `\xNN` for a byte that is not part of a character.
fn escape(bytes: &[u8], to: &mut impl Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => to.write_str("\\\"")?,
                '\\' => to.write_str("\\\\")?,
                '\n' => to.write_str("\\n")?,
                '\r' => to.write_str("\\r")?,
                '\t' => to.write_str("\\t")?,
                // All invisible characters are in the first plane, so four digits are enough.
                c if is_invisible(c) => write!(to, "\\u{:04x}", u32::from(c))?,
                c => to.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(to, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escaped.chars().next()?;
        rest = &escaped[kind.len_utf8()..];
        let mut digits = |count: usize| {
            let (digits, behind) = rest.split_at_checked(count)?;
            rest = behind;
            u32::from_str_radix(digits, 16).ok()
        };
        match kind {
            '"' | '\\' => bytes.push(kind as u8),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'x' => bytes.push(digits(2)? as u8),
            'u' => {
                let c = char::from_u32(digits(4)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// The longest prefix of at most `max` bytes that splits no character.
pub(super) fn floor_char_boundary(bytes: &[u8], max: usize) -> usize {
    let is_boundary = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = bytes.len().min(max);
    (end.saturating_sub(3)..=end).rev().find(is_boundary).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        QuotedText::new(bytes).to_string()
    }

    #[test]
    fn text_is_quoted_only_if_needed() {
        assert_eq!(shown(b"color"), "color");
        assert_eq!(shown("grün".as_bytes()), "grün");
        assert_eq!(shown(b"deep blue"), r#""deep blue""#);
        assert_eq!(shown(b""), r#""""#);
        assert_eq!(shown(b"a=b"), r#""a=b""#);
        assert_eq!(shown(br#"say "hi" \o/"#), r#""say \"hi\" \\o/""#);
        assert_eq!(shown(b"a\nb\tc\r\x00"), r#""a\nb\tc\r\u0000""#);
        assert_eq!(shown(b"\xff\xfe"), r#""\xff\xfe""#);
        assert_eq!(shown("\u{2028}\u{202e}\u{85}".as_bytes()), r#""\u2028\u202e\u0085""#);
    }

    #[test]
    fn long_text_is_cut_to_its_head_length_and_hash() {
        let long = "abc".repeat(395);
        let text = QuotedText::new(&long);
        assert_eq!(
            text.to_string(),
            format!(r#""abcabcabcabcabcabcabcabcabcabcab..."+1185B#{:016x}"#, xxh3_64(long.as_bytes()))
        );
        assert_ne!(text, QuotedText::new(long.replace("cab", "cba")), "a change behind the head changes the hash");
        // 31 bytes and half a character: the head ends before it.
        let umlauts = format!("x{}", "ü".repeat(40));
        assert!(shown(umlauts.as_bytes()).starts_with(&format!("\"x{}...\"+81B#", "ü".repeat(15))));
    }

    #[test]
    fn text_is_cut_only_beyond_the_limit() {
        assert_eq!(shown(&[b'a'; UNTRUNCATED_MAX_BYTES]), "a".repeat(UNTRUNCATED_MAX_BYTES));
        assert!(shown(&[b'a'; UNTRUNCATED_MAX_BYTES + 1]).contains("+65B#"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_back_exactly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = QuotedText::new(&bytes);
            let shown = text.to_string();
            prop_assert!(!shown.contains(is_invisible));
            prop_assert!(shown.starts_with('"') || !shown.contains([' ', '=', '"']));
            prop_assert_eq!(QuotedText::parse(&shown), Some(text));
        }

        #[test]
        fn any_string_is_read_back_exactly(string in "\\PC*|[\"\\\\nux=. ]*|(?s).*") {
            let text = QuotedText::new(&string);
            prop_assert_eq!(QuotedText::parse(&text.to_string()), Some(text));
        }

        #[test]
        fn reader_of_quoted_text_never_panics(text in "\"?[\"\\\\nux0-9a-fé.+B#]*") {
            let _ = QuotedText::parse(&text);
        }
    }
}
