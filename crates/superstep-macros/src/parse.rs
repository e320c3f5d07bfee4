//! Parse: a struct with its `#[state(..)]` attributes becomes a model, or an error at the words
//! that are wrong.
//!
//! serde's own attributes are honoured where they name a field and refused where they change
//! its form, because a channel is read and written alone. What is made of the model is left to
//! `expand`.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Fields, GenericArgument, Ident, Lit, Meta,
    Path, PathArguments, Result, Token, Type, Visibility, meta::ParseNestedMeta, spanned::Spanned,
};

use crate::case::field_in_case;

const REDUCERS: [&str; 8] = [
    "append", "add", "concat", "merge", "union", "max", "by_id", "messages",
];
const CHANNELS: [&str; 8] = [
    "last",
    "any",
    "topic",
    "topic_acc",
    "ephemeral",
    "untracked",
    "remaining_steps",
    "is_last_step",
];

/// How a field's channel takes writes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A channel without a reducer, by its word.
    Channel(&'static str),
    /// A built-in reducer, by its word.
    Reducer(&'static str),
    /// A reducer of the author's.
    Custom(Path),
}

impl Kind {
    /// Whether the engine supplies the value, so that nobody writes it.
    pub(crate) fn is_managed(&self) -> bool {
        matches!(self, Self::Channel("remaining_steps" | "is_last_step"))
    }

    /// Whether a write is a list of items that are added.
    pub(crate) fn takes_items(&self) -> bool {
        matches!(
            self,
            Self::Reducer("append" | "union" | "by_id" | "messages")
                | Self::Channel("topic" | "topic_acc")
        )
    }

    pub(crate) fn reduces(&self) -> bool {
        matches!(self, Self::Reducer(_) | Self::Custom(_))
    }
}

/// A field of the state.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) channel: String,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) docs: Vec<Attribute>,
}

/// The struct that derives `State`.
#[derive(Debug)]
pub(crate) struct StateStruct {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) fields: Vec<Field>,
}

impl StateStruct {
    pub(crate) fn parse(input: &DeriveInput) -> Result<Self> {
        if !input.generics.params.is_empty() {
            let message = "a state cannot be generic: its channels are fixed when a graph is built";
            return Err(Error::new(input.generics.span(), message));
        }
        let Data::Struct(data) = &input.data else {
            let message = "a state is a struct with named fields, one for each channel";
            return Err(Error::new(input.ident.span(), message));
        };
        let named = match &data.fields {
            Fields::Named(named) => &named.named,
            Fields::Unnamed(_) | Fields::Unit => {
                let message = "a state has named fields, one for each channel";
                return Err(Error::new(input.ident.span(), message));
            }
        };
        refuse_on_struct(&input.attrs)?;
        let rename_all = rename_all(&input.attrs)?;
        let mut fields = Vec::new();
        let mut errors: Option<Error> = None;
        let mut taken: BTreeMap<String, Span> = BTreeMap::new();
        for field in named {
            match parse_field(field, rename_all.as_deref()) {
                Ok(field) => {
                    let span = field.ident.span();
                    if taken.insert(field.channel.clone(), span).is_some() {
                        let message = format!("two fields are channel `{}`", field.channel);
                        combine(&mut errors, Error::new(span, message));
                    }
                    fields.push(field);
                }
                Err(error) => combine(&mut errors, error),
            }
        }
        match errors {
            Some(errors) => Err(errors),
            None => Ok(Self {
                ident: input.ident.clone(),
                vis: input.vis.clone(),
                fields,
            }),
        }
    }
}

fn combine(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}

fn refuse_on_struct(attrs: &[Attribute]) -> Result<()> {
    match attrs.iter().find(|attr| attr.path().is_ident("state")) {
        Some(attr) => Err(Error::new_spanned(
            attr,
            "`#[state(..)]` belongs on a field, not on the struct",
        )),
        None => Ok(()),
    }
}

fn parse_field(field: &syn::Field, rename_all: Option<&str>) -> Result<Field> {
    let ident = field
        .ident
        .clone()
        .expect("the fields of a struct with braces are named");
    let plain = ident.to_string();
    let plain = plain.strip_prefix("r#").unwrap_or(&plain);
    let mut attributes = FieldAttributes::default();
    for attr in &field.attrs {
        if attr.path().is_ident("state") {
            attr.parse_nested_meta(|meta| attributes.take(&meta))?;
        }
    }
    let renamed = match attributes.rename {
        Some(name) => Some(name),
        None => serde_rename(&field.attrs)?,
    };
    let cased = rename_all.and_then(|case| field_in_case(case, plain));
    let kind = attributes.kind.unwrap_or(Kind::Channel("last"));
    if let (Some(span), true) = (attributes.required, kind.is_managed()) {
        let message = "the engine supplies this channel; an input cannot name it";
        return Err(Error::new(span, message));
    }
    Ok(Field {
        channel: renamed.or(cased).unwrap_or_else(|| plain.to_owned()),
        ty: field.ty.clone(),
        kind,
        required: attributes.required.is_some(),
        docs: field
            .attrs
            .iter()
            .filter(|attr| attr.path().is_ident("doc"))
            .cloned()
            .collect(),
        ident,
    })
}

#[derive(Default)]
struct FieldAttributes {
    kind: Option<Kind>,
    rename: Option<String>,
    required: Option<Span>,
}

impl FieldAttributes {
    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("reducer") {
            let path: Path = meta.value()?.parse()?;
            self.set_kind(meta, reducer(path))
        } else if meta.path.is_ident("channel") {
            let word: Ident = meta.value()?.parse()?;
            let kind = channel(&word)?;
            self.set_kind(meta, kind)
        } else if meta.path.is_ident("rename") {
            let name: syn::LitStr = meta.value()?.parse()?;
            if name.value().is_empty() {
                return Err(Error::new(name.span(), "a channel's name cannot be empty"));
            }
            self.rename = Some(name.value());
            Ok(())
        } else if meta.path.is_ident("required") {
            self.required = Some(meta.path.span());
            Ok(())
        } else {
            Err(meta.error("a field's state is one of: reducer, channel, rename, required"))
        }
    }

    fn set_kind(&mut self, meta: &ParseNestedMeta<'_>, kind: Kind) -> Result<()> {
        if self.kind.is_some() {
            return Err(meta.error("a field has one `reducer` or one `channel`, not several"));
        }
        self.kind = Some(kind);
        Ok(())
    }
}

fn reducer(path: Path) -> Kind {
    let word = path.get_ident().map(Ident::to_string);
    let built_in = REDUCERS.iter().find(|known| word.as_deref() == Some(known));
    match built_in {
        Some(word) => Kind::Reducer(word),
        None => Kind::Custom(path),
    }
}

fn channel(word: &Ident) -> Result<Kind> {
    let name = word.to_string();
    if let Some(known) = CHANNELS.iter().find(|known| **known == name) {
        return Ok(Kind::Channel(known));
    }
    let message = if REDUCERS.contains(&name.as_str()) {
        format!("`{name}` is a reducer; write `reducer = {name}`")
    } else {
        format!(
            "there is no channel `{name}`; use one of {}",
            CHANNELS.join(", ")
        )
    };
    Err(Error::new(word.span(), message))
}

/// What serde calls the field in both directions.
fn serde_rename(attrs: &[Attribute]) -> Result<Option<String>> {
    let mut renamed = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        for meta in metas(attr)? {
            let Some(word) = meta.path().get_ident().map(Ident::to_string) else {
                continue;
            };
            match word.as_str() {
                "rename" => renamed = Some(text_of(&meta)?),
                "flatten" | "with" | "serialize_with" | "deserialize_with" | "skip"
                | "skip_serializing" | "skip_deserializing" | "getter" => {
                    let message = format!(
                        "a channel is read and written by its type alone, so `serde({word})` \
                         cannot be honoured; give the field a type of its own"
                    );
                    return Err(Error::new(meta.span(), message));
                }
                _ => {}
            }
        }
    }
    Ok(renamed)
}

fn rename_all(attrs: &[Attribute]) -> Result<Option<String>> {
    let mut case = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        for meta in metas(attr)? {
            if meta.path().is_ident("rename_all") {
                let text = text_of(&meta)?;
                if field_in_case(&text, "field").is_none() {
                    let message = format!("`{text}` is not one of serde's cases");
                    return Err(Error::new(meta.span(), message));
                }
                case = Some(text);
            }
        }
    }
    Ok(case)
}

fn metas(attr: &Attribute) -> Result<impl Iterator<Item = Meta>> {
    let parser = syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated;
    Ok(attr.parse_args_with(parser)?.into_iter())
}

fn text_of(meta: &Meta) -> Result<String> {
    let text = match meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        Meta::Path(_) | Meta::List(_) => None,
    };
    let message = "a channel has one name; use `= \"name\"`, the same for both directions";
    text.ok_or_else(|| Error::new(meta.span(), message))
}

/// The `T` of a type that is written `Name<T>`.
pub(crate) fn argument_of<'a>(ty: &'a Type, name: Option<&str>) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if name.is_some_and(|name| last.ident != name) {
        return None;
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match (arguments.args.first(), arguments.args.len()) {
        (Some(GenericArgument::Type(ty)), 1) => Some(ty),
        _ => None,
    }
}

/// Whether a literal of this type would not find its way through `impl Into<T>`: an integer
/// literal without a suffix is an `i32` wherever its type stays open.
pub(crate) fn is_primitive(ty: &Type) -> bool {
    const PRIMITIVES: [&str; 16] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16",
        "u32", "u64", "u128", "usize",
    ];
    matches!(ty, Type::Path(path) if path
        .path
        .get_ident()
        .is_some_and(|ident| PRIMITIVES.iter().any(|name| ident == name)))
}

/// Tokens as text without spaces, for names.
pub(crate) fn compact(tokens: &impl ToTokens) -> String {
    let tokens: TokenStream = tokens.to_token_stream();
    tokens.to_string().replace(' ', "")
}

#[cfg(test)]
mod tests;
