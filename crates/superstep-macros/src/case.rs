//! The cases of `#[serde(rename_all)]`, for fields: channels are named as serde names the fields.

/// A field's name in one of serde's cases; `None` if there is no such case.
pub(crate) fn field_in_case(case: &str, field: &str) -> Option<String> {
    let capitalized = || field.split('_').map(capitalize);
    Some(match case {
        "lowercase" | "snake_case" => field.to_owned(),
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => field.to_ascii_uppercase(),
        "PascalCase" => capitalized().collect(),
        "camelCase" => {
            let pascal: String = capitalized().collect();
            let (first, rest) = pascal.split_at(pascal.chars().next().map_or(0, char::len_utf8));
            first.to_ascii_lowercase() + rest
        }
        "kebab-case" => field.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => field.to_ascii_uppercase().replace('_', "-"),
        _ => return None,
    })
}

fn capitalize(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::field_in_case;

    #[test]
    fn fields_are_cased_as_serde_does() {
        let rows = [
            ("snake_case", "thread_id"),
            ("lowercase", "thread_id"),
            ("UPPERCASE", "THREAD_ID"),
            ("SCREAMING_SNAKE_CASE", "THREAD_ID"),
            ("PascalCase", "ThreadId"),
            ("camelCase", "threadId"),
            ("kebab-case", "thread-id"),
            ("SCREAMING-KEBAB-CASE", "THREAD-ID"),
        ];
        for (case, expected) in rows {
            assert_eq!(field_in_case(case, "thread_id").as_deref(), Some(expected));
        }
        assert_eq!(field_in_case("Title Case", "thread_id"), None);
    }
}
