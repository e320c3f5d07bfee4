//! JSON Schemas of the bodies on the wire, one file each in `proto/schemas/`.
//!
//! Draft 7, which AsyncAPI documents refer to as it is. Each file holds everything it needs
//! under `definitions`, so a validator has nothing to look up elsewhere. For a command the
//! schema says what may be sent (`null` for an unset field, no unknown fields); for the rest
//! it says what superstep writes, and lets unknown fields pass.

use std::collections::BTreeSet;

use super::{
    Files,
    model::{Enum, Field, Message, Model, Presence, Type},
    tree::{Tree, map, reference},
};

/// The schema files of every body.
pub(crate) fn files(model: &Model) -> Files {
    model
        .bodies()
        .map(|body| (path(&body.name).into(), document(model, body).to_json()))
        .collect()
}

/// Where the schema of that body is.
fn path(name: &str) -> String {
    format!("proto/schemas/{name}.json")
}

fn document(model: &Model, body: &Message) -> Tree {
    let mut needed = BTreeSet::new();
    collect(model, body, &mut needed);
    let definitions = needed
        .iter()
        .map(|name| {
            let tree = match model.message(name) {
                Some(message) => Tree::Map(object(message)),
                None => word(
                    model
                        .enums()
                        .find(|of| of.name == *name)
                        .expect("the compiler resolved every name"),
                ),
            };
            (name.clone(), tree)
        })
        .collect::<Vec<_>>();
    let mut entries = vec![
        (
            "$schema".to_owned(),
            "http://json-schema.org/draft-07/schema#".into(),
        ),
        ("title".to_owned(), body.name.as_str().into()),
    ];
    entries.extend(object(body));
    if !definitions.is_empty() {
        entries.push(("definitions".to_owned(), Tree::Map(definitions)));
    }
    Tree::Map(entries)
}

/// The names of all messages and enums that `message` is made of.
fn collect(model: &Model, message: &Message, needed: &mut BTreeSet<String>) {
    for field in &message.fields {
        if let Type::Message(name) | Type::Enum(name) = &field.of
            && needed.insert(name.clone())
            && let Some(inner) = model.message(name)
        {
            collect(model, inner, needed);
        }
    }
}

fn object(message: &Message) -> Vec<(String, Tree)> {
    let properties = message
        .fields
        .iter()
        .map(|field| (field.name.clone(), property(field, message.strict)))
        .collect();
    let required: Vec<Tree> = message
        .fields
        .iter()
        .filter(|field| field.presence == Presence::Required && field.of != Type::Bool)
        .map(|field| field.name.as_str().into())
        .collect();
    let mut entries = vec![
        ("description".to_owned(), message.doc.flowing().into()),
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), Tree::Map(properties)),
    ];
    if !required.is_empty() {
        entries.push(("required".to_owned(), Tree::List(required)));
    }
    if message.strict {
        entries.push(("additionalProperties".to_owned(), Tree::Bool(false)));
    }
    entries
}

fn property(field: &Field, strict: bool) -> Tree {
    let item = item(&field.of);
    let mut entries = vec![("description".to_owned(), field.doc.flowing().into())];
    let mut shape = match field.presence {
        Presence::Required | Presence::Optional => item,
        Presence::List => vec![
            ("type".to_owned(), "array".into()),
            ("items".to_owned(), Tree::Map(item)),
        ],
        Presence::Map => vec![
            ("type".to_owned(), "object".into()),
            ("additionalProperties".to_owned(), Tree::Map(item)),
        ],
    };
    let nullable = strict && field.presence != Presence::Required;
    match shape.first_mut() {
        Some((key, of)) if key == "type" && nullable => {
            *of = Tree::List(vec![of.clone(), "null".into()]);
        }
        // Beside a `$ref`, draft 7 ignores everything else.
        Some((key, _)) if key == "$ref" => {
            let mut choices = vec![Tree::Map(shape)];
            if nullable {
                choices.push(map([("type", "null".into())]));
            }
            shape = vec![("anyOf".to_owned(), Tree::List(choices))];
        }
        _ => {}
    }
    entries.extend(shape);
    Tree::Map(entries)
}

fn item(of: &Type) -> Vec<(String, Tree)> {
    let typed = |name: &str| vec![("type".to_owned(), name.into())];
    let number = |from: i64, to: i64| {
        let mut entries = typed("integer");
        entries.push(("minimum".to_owned(), Tree::Number(from)));
        entries.push(("maximum".to_owned(), Tree::Number(to)));
        entries
    };
    match of {
        Type::Bool => typed("boolean"),
        Type::Text => typed("string"),
        Type::Int32 => number(i32::MIN.into(), i32::MAX.into()),
        Type::Uint32 => number(0, u32::MAX.into()),
        Type::Json => Vec::new(),
        Type::Message(name) | Type::Enum(name) => {
            let Tree::Map(entries) = reference(format!("#/definitions/{name}")) else {
                unreachable!("a reference is a map");
            };
            entries
        }
    }
}

fn word(of: &Enum) -> Tree {
    let words = of.words.iter().map(|word| {
        map([
            ("const", word.name.as_str().into()),
            ("description", word.doc.flowing().into()),
        ])
    });
    map([
        ("description", of.doc.flowing().into()),
        ("type", "string".into()),
        ("oneOf", Tree::List(words.collect())),
    ])
}
