//! The scripts, and how a call of one is put together.
//!
//! A call goes out as EVALSHA; a server that does not know the script (restarted, flushed, another
//! master) is sent the text once, by the link. The rule it keeps: every key that a script writes
//! is named in the call, so that a Cluster that is moving the slot can tell.

use std::sync::LazyLock;

use redis::{Arg, Cmd, Script};

macro_rules! scripts {
    ($($name:ident: $file:literal),+ $(,)?) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));)+

        /// The text of the script with this hash.
        fn text_of(sha: &[u8]) -> Option<&'static str> {
            $(if $name.get_hash().as_bytes() == sha {
                return Some(include_str!(concat!("lua/", $file)));
            })+
            None
        }
    };
}

scripts! {
    APPEND: "append.lua",
    LOAD: "load.lua",
    HISTORY: "history.lua",
    PUT_RESULT: "put_result.lua",
    PUT_PROGRESS: "put_progress.lua",
    PROGRESS: "progress.lua",
    CLAIM: "claim.lua",
    ATTEMPT: "attempt.lua",
    PUT_OUTCOME: "put_outcome.lua",
    PUT_BLOB: "put_blob.lua",
    UNWATCH: "unwatch.lua",
    WATCHED: "watched.lua",
    PAGE: "page.lua",
    TRIM: "trim.lua",
    INVENTORY: "inventory.lua",
    DELETE: "delete.lua",
    REGISTER: "register.lua",
    NOW: "now.lua",
    KEPT: "kept.lua",
    STRAYS: "strays.lua",
    STRAY: "stray.lua",
    REINDEX: "reindex.lua",
    BARE_APPEND: "bare_append.lua",
    BARE_PUT: "bare_put.lua",
}

/// The call of a script: all keys, then the arguments with `arg`.
pub(crate) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(script.get_hash()).arg(keys.len()).arg(keys);
    cmd
}

/// The same call with the script's text in the place of its hash; `None` if it is no call.
pub(crate) fn with_text(call: &Cmd) -> Option<Cmd> {
    let mut args = call.args_iter();
    match (args.next()?, args.next()?) {
        (Arg::Simple(b"EVALSHA"), Arg::Simple(sha)) => {
            let mut cmd = redis::cmd("EVAL");
            cmd.arg(text_of(sha)?);
            for arg in args {
                if let Arg::Simple(bytes) = arg {
                    cmd.arg(bytes);
                }
            }
            Some(cmd)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_its_text_keeps_keys_and_arguments() {
        let mut cmd = call(&UNWATCH, &["a".to_owned(), "b".to_owned()]);
        cmd.arg("head").arg("");
        let text = with_text(&cmd).unwrap();
        let args: Vec<_> = text
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(args[0], "EVAL");
        assert!(args[1].contains("HDEL"));
        assert_eq!(args[2..], ["2", "a", "b", "head", ""]);
        assert!(with_text(&redis::cmd("TIME")).is_none());
    }
}
