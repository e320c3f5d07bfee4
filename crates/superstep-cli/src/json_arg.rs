//! JSON on the command line: inline, from a file (`@file`), or from standard input (`-`).
//!
//! It reads and parses; what the value means is left to the command. The rule it keeps: an
//! error names the argument, the place in the text, and what would have been right.

use std::{
    fs,
    io::{self, Read as _},
};

use serde_json::Value;

use crate::exit::Failure;

/// The most bytes that are read from a file or from standard input.
const BYTES_MAX: u64 = 64 << 20;

/// Reads the JSON that `text`, the value of the argument `name`, stands for.
pub(crate) fn read(name: &str, text: &str) -> Result<Value, Failure> {
    let (json, origin) = match text {
        "-" => {
            let mut json = String::new();
            let mut input = io::stdin().lock().take(BYTES_MAX);
            input.read_to_string(&mut json).map_err(|error| {
                Failure::usage(format!(
                    "{name}: cannot read JSON from standard input: {error}"
                ))
            })?;
            (json, "standard input".to_owned())
        }
        text => match text.strip_prefix('@') {
            Some(path) => {
                let json = fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format!("{name}: cannot read the file {path}: {error}"))
                })?;
                (json, format!("the file {path}"))
            }
            None => (text.to_owned(), format!("`{}`", abridged(text))),
        },
    };
    serde_json::from_str(&json).map_err(|error| {
        Failure::usage(format!("{name}: {origin} is not JSON: {error}")).with_hint(format!(
            "give JSON such as {name} '{{\"approved\": true}}' or {name} '\"a text\"', @FILE to \
             read it from a file, or - to read it from standard input"
        ))
    })
}

fn abridged(text: &str) -> String {
    crate::output::shorten(text, 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Exit;

    #[test]
    fn inline_json_is_read_as_it_is() {
        assert_eq!(read("--input", "null").unwrap(), Value::Null);
        assert_eq!(
            read("--input", r#"{"a": [1, "x"]}"#).unwrap(),
            json!({"a": [1, "x"]})
        );
    }

    #[test]
    fn a_file_is_read_after_the_at_sign() {
        let file = std::env::temp_dir().join(format!("superstep-json-{}", std::process::id()));
        fs::write(&file, "[1]").unwrap();
        let read_back = read("--input", &format!("@{}", file.display()));
        fs::remove_file(&file).unwrap();
        assert_eq!(read_back.unwrap(), json!([1]));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let failure = read("--input", text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(expected), "{failure:?}");
    }

    #[test]
    fn what_is_no_json_is_named() {
        refused("{approved: true}", "line 1 column 2");
        refused("hello", "`hello` is not JSON");
        refused("@/none/such.json", "/none/such.json");
    }
}
