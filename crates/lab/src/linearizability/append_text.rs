//! The history format of the Porcupine project's test data for a store with append: one map per line.
//!
//! ```text
//! {:process 9, :type :invoke, :f :append, :key "0", :value "x 9 0 y"}
//! {:process 9, :type :ok, :f :append, :key "0", :value "x 9 0 y"}
//! {:process 1, :type :invoke, :f :get, :key "0", :value nil}
//! {:process 1, :type :ok, :f :get, :key "0", :value "x 9 0 y"}
//! ```
//!
//! Functions are `:get`, `:put` and `:append`. `:info` means that the outcome is unknown, `:fail` that the operation
//! did not happen.

use std::collections::BTreeMap;

use super::append_model::{AppendCall, AppendModel, AppendOutcome};
use super::events::{EventKind, PairedOperation, ProcessEvent, pair};
use super::history::FormatError;
use super::model::HistoryOperation;
use super::verdict::{KeyHistory, SourceLines};

/// The beginning of every line.
pub(super) const MARK: &str = "{:process ";

/// The content of a line about an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AppendEvent {
    function: Function,
    key: String,
    value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Get,
    Put,
    Append,
}

/// Reads a history and splits it by key. Empty lines are skipped.
pub(super) fn read(text: &str) -> Result<Vec<KeyHistory<AppendModel>>, FormatError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let events = lines.map(|(number, line)| {
        parse_event(number, line).ok_or_else(|| FormatError::new(number, "this is not {:process :type :f :key :value}"))
    });
    let mut parts: BTreeMap<String, KeyHistory<AppendModel>> = BTreeMap::new();
    for pair in pair(events.collect::<Result<_, _>>()?)? {
        let Some(operation) = operation(&pair)? else { continue };
        let key = &pair.call.1.key;
        let part = parts.entry(key.clone()).or_insert_with(|| KeyHistory {
            key: format!("key {key:?}"),
            model: AppendModel,
            operations: Vec::new(),
            lines: Vec::new(),
        });
        part.operations.push(operation);
        part.lines.push(SourceLines { call: pair.call.0, end: pair.end.map(|end| end.0) });
    }
    Ok(parts.into_values().collect())
}

fn parse_event(line: usize, text: &str) -> Option<ProcessEvent<'_, AppendEvent>> {
    let mut rest = text.trim().strip_prefix('{')?;
    let process = word(&mut rest, ":process ")?;
    let kind = EventKind::parse(word(&mut rest, ":type ")?)?;
    let function = match word(&mut rest, ":f ")? {
        ":get" => Function::Get,
        ":put" => Function::Put,
        ":append" => Function::Append,
        _ => return None,
    };
    rest = rest.strip_prefix(":key ")?;
    let key = string(&mut rest)?;
    rest = rest.strip_prefix(", :value ")?;
    let value = match rest.strip_prefix("nil") {
        Some(behind) => {
            rest = behind;
            None
        }
        None => Some(string(&mut rest)?),
    };
    (rest == "}").then_some(ProcessEvent { line, process, kind, what: AppendEvent { function, key, value } })
}

/// Takes a field name and its word.
fn word<'a>(rest: &mut &'a str, name: &str) -> Option<&'a str> {
    let (word, behind) = rest.strip_prefix(name)?.split_once(", ")?;
    *rest = behind;
    Some(word)
}

/// Takes a string in quotes.
fn string(rest: &mut &str) -> Option<String> {
    let text = rest.strip_prefix('"')?;
    let mut string = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &text[at + 1..];
                return Some(string);
            }
            '\\' => string.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => string.push(c),
        }
    }
    None
}

/// The operation; None if it did not happen, or if it is a read without a result.
fn operation(
    pair: &PairedOperation<AppendEvent>,
) -> Result<Option<HistoryOperation<AppendCall, AppendOutcome>>, FormatError> {
    let (called, what) = &pair.call;
    let call = match (what.function, &what.value) {
        (Function::Get, None) => AppendCall::Get,
        (Function::Put, Some(value)) => AppendCall::Put(value.as_str().into()),
        (Function::Append, Some(value)) => AppendCall::Append(value.as_str().into()),
        (Function::Get, Some(_)) | (Function::Put | Function::Append, None) => {
            return Err(FormatError::new(*called, "this is not a call"));
        }
    };
    let returned = match &pair.end {
        None | Some((_, EventKind::Info, _)) => None,
        Some((_, EventKind::Fail, _)) => return Ok(None),
        Some((line, EventKind::Ok, told))
            if what.function == Function::Get && (told.function, &told.key) == (what.function, &what.key) =>
        {
            Some((*line as u64, AppendOutcome::Holds(told.value.as_deref().unwrap_or_default().into())))
        }
        Some((line, EventKind::Ok, told)) if told == what => Some((*line as u64, AppendOutcome::Done)),
        Some((line, EventKind::Ok | EventKind::Invoke, _)) => {
            return Err(FormatError::new(*line, "this return does not match the call"));
        }
    };
    let tells_nothing = returned.is_none() && call == AppendCall::Get;
    Ok((!tells_nothing).then_some(HistoryOperation { call, called: *called as u64, returned }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinguished_and_ends_are_interpreted() {
        let text = r#"{:process 0, :type :invoke, :f :append, :key "a", :value "x 0 \"q\" \\ y"}
{:process 1, :type :invoke, :f :get, :key "b", :value nil}
{:process 0, :type :ok, :f :append, :key "a", :value "x 0 \"q\" \\ y"}

{:process 1, :type :ok, :f :get, :key "b", :value ""}
{:process 2, :type :invoke, :f :put, :key "a", :value "z"}
{:process 2, :type :info, :f :put, :key "a", :value "z"}
{:process 3, :type :invoke, :f :put, :key "a", :value "never"}
{:process 3, :type :fail, :f :put, :key "a", :value "never"}
{:process 4, :type :invoke, :f :get, :key "b", :value nil}
"#;
        let parts = read(text).unwrap();
        let [a, b] = &*parts else { panic!("{parts:?}") };
        let call = AppendCall::Append(r#"x 0 "q" \ y"#.into());
        assert_eq!(
            a.operations,
            [
                HistoryOperation { call, called: 0, returned: Some((2, AppendOutcome::Done)) },
                HistoryOperation { call: AppendCall::Put("z".into()), called: 5, returned: None },
            ]
        );
        let returned = Some((4, AppendOutcome::Holds("".into())));
        assert_eq!(b.operations, [HistoryOperation { call: AppendCall::Get, called: 1, returned }]);
        assert_eq!((&*b.key, b.lines[0]), ("key \"b\"", SourceLines { call: 1, end: Some(4) }));
    }

    #[test]
    fn value_of_several_lines_is_written_in_one() {
        let parts = read(r#"{:process 0, :type :invoke, :f :put, :key "a\tb", :value "one\n\ttwo\r\nthree"}"#).unwrap();
        let [part] = &*parts else { panic!("{parts:?}") };
        assert_eq!(part.operations[0].call, AppendCall::Put("one\n\ttwo\r\nthree".into()));
        assert_eq!(part.key, r#"key "a\tb""#);
    }

    #[test]
    fn text_that_is_no_history_is_reported() {
        let line = |kind: &str, rest: &str| format!("{{:process 0, :type :{kind}, {rest}}}\n");
        let get = line("invoke", r#":f :get, :key "a", :value nil"#);
        for (text, at, what) in [
            ("{:process 0}\n".to_string(), 0, "this is not {"),
            (line("invoke", r#":f :get, :key "a, :value nil"#), 0, "this is not {"),
            (line("invoke", r#":f :get, :key "a\q", :value nil"#), 0, "this is not {"),
            (line("invoke", r#":f :put, :key "a", :value nil"#), 0, "not a call"),
            (format!("{get}{get}"), 1, "has not ended"),
            (format!("{get}{}", line("ok", r#":f :get, :key "b", :value "x""#)), 1, "does not match"),
            (format!("{get}{}", line("ok", r#":f :put, :key "a", :value "x""#)), 1, "does not match"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.line, at, "{text}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
