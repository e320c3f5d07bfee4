//! What the derive reads, and what it refuses: rows of a struct and the words of its error.

use quote::ToTokens;
use syn::parse_str;

use super::{Kind, StateStruct};

fn parse(text: &str) -> syn::Result<StateStruct> {
    StateStruct::parse(&parse_str(text).unwrap())
}

#[test]
fn fields_become_channels_with_their_kinds() {
    let model = parse(
        r#"
        struct Chat {
            topic: String,
            #[state(reducer = append)]
            #[serde(default, rename = "notes")]
            remarks: Vec<String>,
            #[state(reducer = crate::longest, rename = "best")]
            best_of: String,
            #[state(channel = remaining_steps)]
            left: u32,
            #[state(required)]
            r#type: String,
        }
        "#,
    )
    .unwrap();
    let read: Vec<(&str, String, bool)> = model
        .fields
        .iter()
        .map(|field| {
            let kind = match &field.kind {
                Kind::Channel(word) | Kind::Reducer(word) => (*word).to_owned(),
                Kind::Custom(path) => path.to_token_stream().to_string(),
            };
            (field.channel.as_str(), kind, field.required)
        })
        .collect();
    let expected = [
        ("topic", "last".to_owned(), false),
        ("notes", "append".to_owned(), false),
        ("best", "crate :: longest".to_owned(), false),
        ("left", "remaining_steps".to_owned(), false),
        ("type", "last".to_owned(), true),
    ];
    assert_eq!(read, expected);
}

#[test]
fn serde_cases_name_the_channels() {
    let model = parse(r#"#[serde(rename_all = "camelCase")] struct S { edited_draft: String }"#);
    assert_eq!(model.unwrap().fields[0].channel, "editedDraft");
}

#[test]
fn what_is_not_understood_is_refused() {
    let rows = [
        ("enum S { A }", "a state is a struct"),
        ("struct S(String);", "named fields"),
        ("struct S<T> { a: T }", "cannot be generic"),
        (
            "#[state(reducer = add)] struct S { a: i64 }",
            "belongs on a field",
        ),
        (
            "struct S { #[state(reduce = add)] a: i64 }",
            "one of: reducer, channel",
        ),
        (
            "struct S { #[state(channel = append)] a: Vec<i64> }",
            "`reducer = append`",
        ),
        (
            "struct S { #[state(channel = lost)] a: i64 }",
            "no channel `lost`",
        ),
        (
            "struct S { #[state(reducer = add, channel = any)] a: i64 }",
            "not several",
        ),
        (
            "struct S { #[state(reducer = \"add\")] a: i64 }",
            "expected identifier",
        ),
        (
            "struct S { #[state(channel = is_last_step, required)] a: bool }",
            "supplies",
        ),
        (
            "struct S { #[state(rename = \"\")] a: i64 }",
            "cannot be empty",
        ),
        (
            "struct S { a: i64, #[state(rename = \"a\")] b: i64 }",
            "two fields are channel `a`",
        ),
        ("struct S { #[serde(flatten)] a: i64 }", "`serde(flatten)`"),
        (
            "struct S { #[serde(rename(serialize = \"b\"))] a: i64 }",
            "one name",
        ),
        (
            "#[serde(rename_all = \"Title Case\")] struct S { a: i64 }",
            "serde's cases",
        ),
    ];
    for (text, words) in rows {
        let message = parse(text).unwrap_err().to_string();
        assert!(message.contains(words), "{text}: {message}");
    }
}

#[test]
fn every_wrong_field_is_told_at_once() {
    let text = "struct S { #[state(channel = a)] a: i64, #[state(channel = b)] b: i64 }";
    let errors: Vec<String> = parse(text)
        .unwrap_err()
        .into_iter()
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
}
