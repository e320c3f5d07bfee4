//! The generator on small contracts of its own, in a folder that goes away.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{Mode, lock, model::Model, run};

const CONTRACT: &str = "\
// A file.
syntax = \"proto3\";
package superstep.v1;
import \"google/protobuf/struct.proto\";
// Starts.
message StartCommand {
  // The input.
  optional google.protobuf.Value input = 1;
  // The words.
  map<string, google.protobuf.Value> metadata = 2;
  // FIELD
}
";

fn repository(contract: &str) -> TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("proto/superstep/v1");
    fs::create_dir_all(&folder).expect("a folder in it");
    fs::write(folder.join("commands.proto"), contract).expect("a file in it");
    root
}

fn model(root: &Path) -> Model {
    Model::compile(&root.join("proto")).expect("the contract compiles")
}

/// What compiling a contract with this field says.
#[track_caller]
fn refused(field: &str, because: &str) {
    let root = repository(&CONTRACT.replace("// FIELD", &format!("// A field.\n{field}")));
    let Err(error) = Model::compile(&root.path().join("proto")) else {
        panic!("{field} compiles");
    };
    let text = format!("{error:#}");
    assert!(text.contains(because), "{text}");
}

#[test]
fn what_the_wire_has_no_form_for_is_refused() {
    refused("int64 size = 3;", "TYPE_INT64 has no form");
    refused("double ratio = 3;", "TYPE_DOUBLE has no form");
    refused("bytes blob = 3;", "TYPE_BYTES has no form");
    refused("oneof a {\n// B.\nstring b = 3; }", "`oneof` has no form");
    refused("map<int32, string> names = 3;", "keys of a JSON object");
    refused(
        "google.protobuf.Struct data = 3;",
        "only google.protobuf.Value",
    );
    refused("string a = 1;", "does not compile");
}

#[test]
fn everything_must_have_a_comment() {
    let root = repository(&CONTRACT.replace("// FIELD", "string bare = 3;"));
    let Err(error) = Model::compile(&root.path().join("proto")) else {
        panic!("a field without a comment compiles");
    };
    assert!(format!("{error:#}").contains("at bare: a comment is missing"));
}

#[test]
fn a_field_may_be_added_to_the_lock() {
    let before = repository(CONTRACT);
    let before = lock::advance("", &model(before.path())).expect("nothing was promised");
    let after = repository(&CONTRACT.replace("// FIELD", "// New.\noptional string new = 3;"));
    let after = lock::advance(&before, &model(after.path())).expect("nothing is broken");
    assert!(after.contains("StartCommand.new = 3 optional string\n"));
    assert_ne!(before, after);
}

#[test]
fn a_commands_field_may_cease_to_be_required() {
    let strict = CONTRACT.replace(
        "optional google.protobuf.Value input",
        "google.protobuf.Value input",
    );
    let before = repository(&strict);
    let before = lock::advance("", &model(before.path())).expect("nothing was promised");
    let after = repository(CONTRACT);
    let after = lock::advance(&before, &model(after.path())).expect("senders need no change");
    assert!(before.contains("StartCommand.input = 1 json\n"));
    assert!(after.contains("StartCommand.input = 1 optional json\n"));
    let renamed = repository(&strict.replace("StartCommand", "Started"));
    let told = lock::advance("", &model(renamed.path())).expect("nothing was promised");
    let looser = repository(&CONTRACT.replace("StartCommand", "Started"));
    let error = lock::advance(&told, &model(looser.path())).expect_err("others read this one");
    assert!(
        error.to_string().contains("is now 1 optional json"),
        "{error}"
    );
}

#[test]
fn a_promised_field_cannot_change_or_go() {
    let before = repository(CONTRACT);
    let before = lock::advance("", &model(before.path())).expect("nothing was promised");
    for (from, to, because) in [
        (
            "input = 1",
            "input = 7",
            "StartCommand.input was 1 optional json and is now 7 optional json",
        ),
        (
            "input = 1",
            "inputs = 1",
            "StartCommand.input = 1 optional json is gone",
        ),
        (
            "optional google.protobuf.Value input",
            "optional string input",
            "is now 1 optional string",
        ),
        (
            "optional google.protobuf.Value input",
            "google.protobuf.Value input",
            "is now 1 json",
        ),
    ] {
        let after = repository(&CONTRACT.replace(from, to));
        let error = lock::advance(&before, &model(after.path())).expect_err(because);
        assert!(error.to_string().contains(because), "{error}");
    }
}

#[test]
fn check_finds_what_write_would_change() {
    let root = project_copy();
    run(root.path(), Mode::Write).expect("it is written");
    run(root.path(), Mode::Check).expect("what was written is up to date");

    let schema = root.path().join("proto/schemas/Reply.json");
    fs::write(&schema, "{}").expect("a file can be changed");
    fs::write(root.path().join("proto/schemas/Gone.json"), "{}").expect("a file can be added");
    fs::remove_file(root.path().join("proto/lock.txt")).expect("a file can be removed");
    let error = run(root.path(), Mode::Check).expect_err("three files are wrong");
    assert_eq!(
        error.to_string(),
        "what is made from proto/ is not up to date (proto/lock.txt is missing, \
         proto/schemas/Reply.json differs, proto/schemas/Gone.json is not made any more); run \
         `cargo xtask fix`"
    );
    assert_eq!(fs::read_to_string(&schema).expect("it is there"), "{}");

    run(root.path(), Mode::Write).expect("it is written again");
    run(root.path(), Mode::Check).expect("it is up to date again");
}

/// A folder with this project's own `.proto` files and nothing else.
fn project_copy() -> TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/superstep/v1");
    let to = root.path().join("proto/superstep/v1");
    fs::create_dir_all(&to).expect("a folder in it");
    for entry in fs::read_dir(from).expect("the contract is there") {
        let entry = entry.expect("the folder can be listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
    root
}
