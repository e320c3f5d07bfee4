//! The JSON Schemas accept every golden body and refuse broken ones.
//!
//! Only the keywords that the schemas use are understood; an unknown one is an error, so a
//! new keyword cannot go unchecked.

use serde_json::{Map, Value};

use super::{BODIES, golden_files, proto};

fn schema(body: &str) -> Value {
    let path = proto().join("schemas").join(format!("{body}.json"));
    let text = std::fs::read_to_string(&path).expect("every body has a schema");
    serde_json::from_str(&text).expect("a schema is JSON")
}

/// What is wrong with `value`, by the part `of` of the schema `root`.
fn check(root: &Value, of: &Value, value: &Value, at: &str) -> Result<(), String> {
    let of = of.as_object().expect("a schema is an object");
    let fail = |problem: &str| Err(format!("{at}: {problem}"));
    for (keyword, rule) in of {
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|to| to.strip_prefix('#'));
                let target = pointer.and_then(|to| root.pointer(to));
                check(root, target.expect("a reference has a target"), value, at)?;
            }
            "type" => {
                if !types(rule).iter().any(|name| is_of(value, name)) {
                    return fail(&format!("is not of type {rule}"));
                }
            }
            "const" if rule != value => return fail(&format!("is not {rule}")),
            "minimum" if value.as_i64() < rule.as_i64() => return fail("is too small"),
            "maximum" if value.as_i64() > rule.as_i64() => return fail("is too large"),
            "anyOf" | "oneOf" => {
                let options = rule.as_array().expect("choices are a list");
                let fitting = options
                    .iter()
                    .filter(|option| check(root, option, value, at).is_ok());
                match (keyword.as_str(), fitting.count()) {
                    (_, 0) => return fail("fits none of the choices"),
                    ("oneOf", 2..) => return fail("fits several choices"),
                    _ => {}
                }
            }
            "properties" | "additionalProperties" | "required" | "items" => {
                parts(root, of, keyword, value, at)?;
            }
            "$schema" | "title" | "description" | "definitions" | "const" | "minimum"
            | "maximum" => {}
            other => panic!("the keyword {other} is new; teach it to this test"),
        }
    }
    Ok(())
}

fn parts(
    root: &Value,
    of: &Map<String, Value>,
    keyword: &str,
    value: &Value,
    at: &str,
) -> Result<(), String> {
    let rule = &of[keyword];
    match (keyword, value) {
        ("items", Value::Array(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check(root, rule, item, &format!("{at}[{index}]"))),
        ("required", Value::Object(fields)) => {
            let names = rule.as_array().expect("required is a list");
            let missing = names
                .iter()
                .find(|name| !fields.contains_key(name.as_str().expect("a name is text")));
            missing.map_or(Ok(()), |name| Err(format!("{at}: {name} is missing")))
        }
        ("properties", Value::Object(fields)) => {
            let known = rule.as_object().expect("properties are an object");
            fields
                .iter()
                .filter_map(|(name, field)| Some((name, known.get(name)?, field)))
                .try_for_each(|(name, rule, field)| {
                    check(root, rule, field, &format!("{at}.{name}"))
                })
        }
        ("additionalProperties", Value::Object(fields)) => {
            let known = of.get("properties").and_then(Value::as_object);
            fields
                .iter()
                .filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)))
                .try_for_each(|(name, field)| match rule {
                    Value::Bool(false) => Err(format!("{at}: {name} is unknown")),
                    rule => check(root, rule, field, &format!("{at}.{name}")),
                })
        }
        _ => Ok(()),
    }
}

fn types(rule: &Value) -> Vec<&str> {
    match rule {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is new; teach it to this test"),
    }
}

#[test]
fn schemas_accept_every_golden_body() {
    for (name, case, text) in golden_files() {
        let schema = schema(&name);
        let value = serde_json::from_str(&text).expect("a golden file is JSON");
        if let Err(problem) = check(&schema, &schema, &value, "body") {
            panic!("{name}.{case}: {problem}");
        }
    }
}

#[test]
fn schemas_refuse_what_the_types_refuse() {
    for (body, text) in [
        ("StartCommand", r#"{"inputs":1}"#),
        ("StartCommand", r#"{"config":{"recursion_limt":5}}"#),
        ("StartCommand", r#"{"config":{"recursion_limit":-1}}"#),
        ("StartCommand", r#"{"config":{"tags":[5]}}"#),
        ("StartCommand", r#"{"metadata":[]}"#),
        ("ResumeCommand", r#"{"config":{"recursion_limit":-1}}"#),
        ("ResumeCommand", "[true]"),
        ("UpdateCommand", r#"{"updates":[{"as_node":"a"}]}"#),
        ("Work", r#"{"thread_id":"t"}"#),
        ("Reply", r#"{"outcome":5,"command_id":"c"}"#),
        (
            "Reply",
            r#"{"outcome":"refused","command_id":"c","refusal":{}}"#,
        ),
    ] {
        let schema = schema(body);
        let value = serde_json::from_str(text).expect("the case is JSON");
        let by_schema = check(&schema, &schema, &value, "body");
        let by_types = super::read_and_write(body, text.as_bytes());
        assert!(by_schema.is_err() && by_types.is_err(), "{body} {text}");
    }
}

#[test]
fn every_body_has_a_schema_file() {
    for body in BODIES {
        assert_eq!(schema(body)["title"], body);
    }
}
