//! What the rules read: the files of the repository, and its crates as cargo sees them.
//!
//! Files are read once, by path from the root, with their text where a rule may look into it.
//! Build output and what git itself keeps are left out.
//!
//! The rule it keeps: a rule gets a `Repository` and nothing else, so that a made-up one tests it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use superstep_tests::workspace_root;

/// Folders that hold nothing of ours.
const LEFT_OUT: &[&str] = &[".git", "target", "node_modules", ".superstep"];

/// Files whose text rules look into, by how their name ends.
const READ: &[&str] = &[
    "rs", "md", "toml", "proto", "lua", "sql", "yaml", "yml", "sh",
];

/// Something that a rule objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The path from the root.
    pub(crate) file: String,
    /// The line, counted from one; zero where the whole file is meant.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Finding {
    /// An objection to one line, or with line zero to the whole file.
    pub(crate) fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The files of a repository by their path from its root; text is empty where none is read.
#[derive(Debug, Default)]
pub(crate) struct Repository {
    files: BTreeMap<String, String>,
}

impl Repository {
    /// The repository that this test was built from.
    pub(crate) fn this() -> &'static Self {
        static THIS: OnceLock<Repository> = OnceLock::new();
        THIS.get_or_init(|| {
            let mut files = BTreeMap::new();
            collect(workspace_root(), "", &mut files);
            Self { files }
        })
    }

    /// A made-up repository.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self {
            files: files.iter().map(owned).collect(),
        }
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The files whose name ends in one of `extensions`, with their texts.
    pub(crate) fn with_extension<'a>(
        &'a self,
        extensions: &'a [&str],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| extension(path).is_some_and(|e| extensions.contains(&e)))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// What stands behind the last dot of a path's file name.
pub(crate) fn extension(path: &str) -> Option<&str> {
    Path::new(path)
        .extension()
        .and_then(|extension| extension.to_str())
}

/// The lines of a text, counted from one.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Fails the test with every finding on a line of its own.
#[track_caller]
pub(crate) fn expect_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} found:\n{}\n",
        findings.len(),
        lines.join("\n")
    );
}

/// Checks one row of a rule's table: the lines at which it objects to `text` in a file of that path.
#[track_caller]
pub(crate) fn check_row(
    rule: fn(&Repository) -> Vec<Finding>,
    path: &str,
    text: &str,
    lines: &[usize],
) {
    let found: Vec<usize> = rule(&Repository::of(&[(path, text)]))
        .iter()
        .map(|finding| finding.line)
        .collect();
    assert_eq!(found, lines, "in {path}:\n{text}");
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    let entries = std::fs::read_dir(dir).expect("the folders of the repository can be listed");
    for entry in entries {
        let entry = entry.expect("the folders of the repository can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else {
            let read = extension(&path).is_some_and(|e| READ.contains(&e)) || path == ".ci/run";
            let text = if read {
                std::fs::read_to_string(entry.path())
            } else {
                Ok(String::new())
            };
            files.insert(path, text.unwrap_or_default());
        }
    }
}
