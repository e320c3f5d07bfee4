//! The contract as the generators see it: files, messages, fields, enums, with their comments.
//!
//! Built from the compiled descriptors. It refuses what the JSON wire of this project has no
//! form for (64-bit numbers, floats, bytes, groups, `oneof`, nested types), so the generators
//! need no second thoughts. It leaves every output format to the modules beside it.
//!
//! The rule it keeps: the order of files, messages and fields is the order in the source.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail, ensure};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    MessageOptions,
    field_descriptor_proto::{Label, Type as ProtoType},
};

/// The package of every message, as a fully qualified prefix.
const PACKAGE: &str = ".superstep.v1.";
/// The folder of the `.proto` files in `proto/`.
const FOLDER: &str = "superstep/v1";
/// The file whose messages come from outside, so that an unknown field in them is refused.
const STRICT_FILE: &str = "commands";

/// All files of the package, by name.
pub(crate) struct Model {
    pub(crate) files: Vec<File>,
}

/// One `.proto` file.
pub(crate) struct File {
    /// Its name without folder and ending.
    pub(crate) stem: String,
    pub(crate) doc: Doc,
    pub(crate) enums: Vec<Enum>,
    pub(crate) messages: Vec<Message>,
}

/// An enum.
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) doc: Doc,
    /// The word for a value that a reader does not know; number 0.
    pub(crate) unknown: Word,
    /// The words that are written.
    pub(crate) words: Vec<Word>,
}

/// One value of an enum.
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) doc: Doc,
}

/// A message.
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) doc: Doc,
    pub(crate) fields: Vec<Field>,
    /// Whether a reader refuses fields that it does not know.
    pub(crate) strict: bool,
}

/// A field.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) doc: Doc,
    pub(crate) of: Type,
    pub(crate) presence: Presence,
}

/// What a field holds, or each item of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Text,
    Int32,
    Uint32,
    /// Any JSON.
    Json,
    Message(String),
    Enum(String),
}

/// How often a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    List,
    /// By text keys.
    Map,
}

/// A comment, line by line, without markers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doc(pub(crate) Vec<String>);

impl Doc {
    /// The comment as flowing text: lines of a paragraph joined, list items and paragraphs kept
    /// apart.
    pub(crate) fn flowing(&self) -> String {
        let mut text = String::new();
        for line in &self.0 {
            let starts_anew = line.is_empty() || line.starts_with("- ");
            if !text.is_empty() {
                text.push(if starts_anew || text.ends_with('\n') {
                    '\n'
                } else {
                    ' '
                });
            }
            text.push_str(line.trim_start());
        }
        text
    }

    /// The lines before the first empty one.
    pub(crate) fn first_paragraph(&self) -> &[String] {
        let end = self.0.iter().position(String::is_empty);
        &self.0[..end.unwrap_or(self.0.len())]
    }
}

impl Model {
    /// Compiles every `.proto` file under `proto`.
    pub(crate) fn compile(proto: &Path) -> anyhow::Result<Self> {
        let folder = proto.join(FOLDER);
        let mut names = Vec::new();
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let name = entry?.file_name();
            let name = name
                .to_str()
                .context("a file name in proto/ is not UTF-8")?;
            if Path::new(name).extension().is_some_and(|e| e == "proto") {
                names.push(format!("{FOLDER}/{name}"));
            }
        }
        names.sort();
        let mut compiler = protox::Compiler::new([proto])?;
        compiler
            .include_source_info(true)
            .open_files(&names)
            .context("the contract in proto/ does not compile")?;
        let descriptors = compiler.file_descriptor_set();
        let files = descriptors
            .file
            .iter()
            .filter(|file| names.iter().any(|name| name == file.name()))
            .map(|file| read_file(file).with_context(|| format!("in proto/{}", file.name())))
            .collect::<anyhow::Result<Vec<File>>>()?;
        let mut model = Self { files };
        model.files.sort_by(|a, b| a.stem.cmp(&b.stem));
        Ok(model)
    }

    /// All messages, file by file.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.files.iter().flat_map(|file| &file.messages)
    }

    /// All enums, file by file.
    pub(crate) fn enums(&self) -> impl Iterator<Item = &Enum> {
        self.files.iter().flat_map(|file| &file.enums)
    }

    /// The message of that name.
    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.messages().find(|message| message.name == name)
    }

    /// The messages that are no part of another: the bodies on the wire.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Message> {
        self.messages().filter(|body| {
            !self
                .messages()
                .flat_map(|message| &message.fields)
                .any(|field| matches!(&field.of, Type::Message(name) if *name == body.name))
        })
    }
}

/// Comments by the path of what they stand before, as descriptors number it.
type Comments = BTreeMap<Vec<i32>, Doc>;

fn read_file(file: &FileDescriptorProto) -> anyhow::Result<File> {
    let comments = comments(file);
    let stem = Path::new(file.name())
        .file_stem()
        .and_then(|stem| stem.to_str())
        .context("the file has no name")?
        .to_owned();
    ensure!(
        format!(".{}.", file.package()) == PACKAGE,
        "the package must be superstep.v1"
    );
    let enums = (0..)
        .zip(&file.enum_type)
        .map(|(index, source)| read_enum(source, &comments, index))
        .collect::<anyhow::Result<_>>()?;
    let messages = (0..)
        .zip(&file.message_type)
        .map(|(index, source)| {
            read_message(source, &comments, index, stem == STRICT_FILE)
                .with_context(|| format!("in {}", source.name()))
        })
        .collect::<anyhow::Result<_>>()?;
    // 12 is the number of `syntax`, the first statement: its comment is the file's.
    let doc = doc(&comments, &[12])?;
    Ok(File {
        stem,
        doc,
        enums,
        messages,
    })
}

fn comments(file: &FileDescriptorProto) -> Comments {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    locations
        .filter_map(|location| {
            let text = location.leading_comments.as_ref()?;
            let lines = text
                .lines()
                .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
                .collect();
            Some((location.path.clone(), Doc(lines)))
        })
        .collect()
}

fn doc(comments: &Comments, path: &[i32]) -> anyhow::Result<Doc> {
    match comments.get(path) {
        Some(doc) => Ok(doc.clone()),
        None => bail!("a comment is missing; everything in proto/ says what it is for"),
    }
}

fn read_enum(source: &EnumDescriptorProto, comments: &Comments, at: i32) -> anyhow::Result<Enum> {
    let name = source.name().to_owned();
    let mut words = (0..)
        .zip(&source.value)
        .map(|(index, value)| {
            let doc = doc(comments, &[5, at, 2, index])
                .with_context(|| format!("at {name}.{}", value.name()))?;
            Ok(Word {
                name: value.name().to_owned(),
                number: value.number(),
                doc,
            })
        })
        .collect::<anyhow::Result<Vec<Word>>>()?;
    ensure!(
        words
            .first()
            .is_some_and(|word| word.number == 0 && word.name.ends_with("_unspecified")),
        "{name} must begin with the word <name>_unspecified = 0"
    );
    let unknown = words.remove(0);
    let doc = doc(comments, &[5, at]).with_context(|| format!("at {name}"))?;
    Ok(Enum {
        name,
        doc,
        unknown,
        words,
    })
}

fn read_message(
    source: &DescriptorProto,
    comments: &Comments,
    at: i32,
    strict: bool,
) -> anyhow::Result<Message> {
    let maps: Vec<&DescriptorProto> = source.nested_type.iter().collect();
    ensure!(
        maps.iter().all(|nested| nested
            .options
            .as_ref()
            .is_some_and(MessageOptions::map_entry)),
        "nested types have no place in the contract; put them beside the message"
    );
    let fields = (0..)
        .zip(&source.field)
        .map(|(index, field)| {
            let name = field.name().to_owned();
            let doc = doc(comments, &[4, at, 2, index]).with_context(|| format!("at {name}"))?;
            let (of, presence) = read_type(field, &maps).with_context(|| format!("at {name}"))?;
            Ok(Field {
                name,
                number: field.number(),
                doc,
                of,
                presence,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Message {
        name: source.name().to_owned(),
        doc: doc(comments, &[4, at])?,
        fields,
        strict,
    })
}

fn read_type(
    field: &FieldDescriptorProto,
    maps: &[&DescriptorProto],
) -> anyhow::Result<(Type, Presence)> {
    if field.label() == Label::Repeated {
        let entry = maps
            .iter()
            .find(|entry| field.type_name().ends_with(&format!(".{}", entry.name())));
        let Some(entry) = entry else {
            return Ok((scalar(field)?, Presence::List));
        };
        let [key, value] = entry.field.as_slice() else {
            bail!("a map entry has a key and a value");
        };
        ensure!(
            key.r#type() == ProtoType::String,
            "the keys of a JSON object are strings"
        );
        return Ok((scalar(value)?, Presence::Map));
    }
    ensure!(
        field.oneof_index.is_none() || field.proto3_optional(),
        "`oneof` has no form on the wire; use optional fields"
    );
    let presence = if field.proto3_optional() {
        Presence::Optional
    } else {
        Presence::Required
    };
    Ok((scalar(field)?, presence))
}

fn scalar(field: &FieldDescriptorProto) -> anyhow::Result<Type> {
    let named = || field.type_name().strip_prefix(PACKAGE).map(str::to_owned);
    Ok(match field.r#type() {
        ProtoType::Bool => Type::Bool,
        ProtoType::String => Type::Text,
        ProtoType::Int32 => Type::Int32,
        ProtoType::Uint32 => Type::Uint32,
        ProtoType::Enum => Type::Enum(named().context("the enum is not of this package")?),
        ProtoType::Message if field.type_name() == ".google.protobuf.Value" => Type::Json,
        ProtoType::Message => Type::Message(
            named().context("of other packages only google.protobuf.Value may be used")?,
        ),
        other => bail!(
            "{} has no form on the wire; use bool, string, int32, uint32 or google.protobuf.Value",
            other.as_str_name()
        ),
    })
}
