//! Settings: where they come from, and what is said of wrong ones.

use crate::run::Shell;

#[test]
fn every_wrong_setting_is_named_with_its_place() {
    let shell = Shell::new();
    std::fs::write(
        shell.dir().join("superstep.toml"),
        "nats_ulr = \"nats://a\"\nnamespace = \"a.b\"\nconcurrency = 0\n",
    )
    .unwrap();
    let ran = shell.run_with(
        &["--nats-url", "nowhere", "worker", "--task-timeout", "soon"],
        &[("SUPERSTEP_REDIS_URL", "http://u:s3cret@h")],
        "",
    );
    let ran = ran.code(2).says(&[
        "6 settings are wrong",
        "nats_ulr in superstep.toml is no setting",
        "namespace in superstep.toml is wrong",
        "concurrency in superstep.toml is `0`",
        "--nats-url has `nowhere`",
        "--task-timeout is `soon`",
        "SUPERSTEP_REDIS_URL has `http://h`",
    ]);
    assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
}

#[test]
fn a_flag_counts_over_a_variable_and_that_over_a_file() {
    let shell = Shell::new();
    let file = shell.dir().join("own.toml");
    std::fs::write(&file, "connect_timeout_ms = 0\n").unwrap();
    let file = file.to_str().unwrap();
    let list = ["--config", file, "threads", "list"];
    shell.run(&list).code(2).says(&["own.toml"]);
    let named = [("SUPERSTEP_CONFIG", file)];
    shell
        .run_with(&["threads", "list"], &named, "")
        .code(2)
        .says(&["own.toml"]);
    let variable = [("SUPERSTEP_CONNECT_TIMEOUT_MS", "none")];
    shell
        .run_with(&list, &variable, "")
        .code(2)
        .says(&["SUPERSTEP_CONNECT_TIMEOUT_MS"]);
    let flag = [&list[..2], &["--connect-timeout-ms", "-1"], &list[2..]].concat();
    shell.run_with(&flag, &variable, "").code(2);
    let right = [
        "--config",
        file,
        "--connect-timeout-ms",
        "500",
        "--data",
        "none",
        "threads",
        "list",
    ];
    shell.run_with(&right, &variable, "").code(2).says(&[
        "no store in the data folder none",
        "superstep --data none dev",
    ]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let shell = Shell::new();
    shell
        .run(&["--config", "none.toml", "threads", "list"])
        .code(2)
        .says(&["none.toml"]);
    std::fs::write(shell.dir().join("superstep.toml"), "nats_url nats://a").unwrap();
    shell
        .run(&["threads", "list"])
        .code(2)
        .says(&["superstep.toml is not TOML", "line 1"]);
}

#[test]
fn errors_are_json_when_asked_for() {
    let shell = Shell::new();
    let ran = shell.run(&["--json", "--data", "none", "threads", "list"]);
    let ran = ran.code(2);
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
    assert!(error["error"]["message"].as_str().unwrap().contains("none"));
    assert_eq!(ran.stdout, "");
}
