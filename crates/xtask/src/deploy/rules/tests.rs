//! A good worker passes every rule, and each promise that is taken back is found.

use serde_json::json;

use super::*;

fn good() -> Vec<Value> {
    let labels = json!({"app": "worker"});
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}});
    vec![
        json!({"kind": "ConfigMap", "metadata": {"name": "worker"}, "data": {
            "SUPERSTEP_DRAIN_TIMEOUT": "25s",
            "SUPERSTEP_HEALTH_ADDR": "0.0.0.0:8080",
            "SUPERSTEP_REDIS_URL": "redis://redis:6379",
        }}),
        json!({"kind": "PodDisruptionBudget", "metadata": {"name": "worker"},
            "spec": {"selector": {"matchLabels": labels}}}),
        json!({"kind": "Deployment", "metadata": {"name": "worker"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 45,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "worker",
                    "image": "registry.example.com:5000/superstep:0.1.0",
                    "args": ["worker"],
                    "envFrom": [{"configMapRef": {"name": "worker"}}],
                    "ports": [{"name": "health", "containerPort": 8080}],
                    "startupProbe": probe("/startup"),
                    "readinessProbe": probe("/ready"),
                    "livenessProbe": probe("/live"),
                    "resources": {"requests": {"cpu": "1", "memory": "1Mi"},
                        "limits": {"memory": "1Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                }],
            }},
        }}),
    ]
}

#[test]
fn a_good_worker_passes_every_rule() {
    assert_eq!(findings(&good()), Vec::<String>::new());
}

#[test]
fn each_promise_taken_back_is_found() {
    const POD: &str = "/2/spec/template/spec";
    const CONTAINER: &str = "/2/spec/template/spec/containers/0";
    let cases = [
        (POD, "automountServiceAccountToken", json!(true), "a token"),
        (POD, "enableServiceLinks", json!(null), "service links"),
        (POD, "hostNetwork", json!(true), "hostNetwork"),
        (
            POD,
            "terminationGracePeriodSeconds",
            json!(35),
            "needs more than 35",
        ),
        (
            POD,
            "securityContext",
            json!({"runAsNonRoot": true}),
            "runAsUser",
        ),
        (
            CONTAINER,
            "image",
            json!("host:5000/superstep"),
            "names no version",
        ),
        (
            CONTAINER,
            "image",
            json!("superstep:latest"),
            "names no version",
        ),
        (
            CONTAINER,
            "securityContext",
            json!({}),
            "the root file system",
        ),
        (CONTAINER, "resources", json!({}), "memory is not limited"),
        (
            CONTAINER,
            "livenessProbe",
            json!(null),
            "there is no livenessProbe",
        ),
        (CONTAINER, "ports", json!([]), "not the container's port"),
        (
            CONTAINER,
            "envFrom",
            json!([]),
            "SUPERSTEP_DRAIN_TIMEOUT is not set",
        ),
        (
            CONTAINER,
            "env",
            json!([{"name": "MODEL_TOKEN", "value": "x"}]),
            "holds a secret",
        ),
        (
            "/0/data",
            "SUPERSTEP_REDIS_PASSWORD",
            json!("x"),
            "holds a secret",
        ),
        (
            "/0/data",
            "SUPERSTEP_REDIS_URL",
            json!("redis://:x@redis"),
            "holds a secret",
        ),
        (
            "/0/data",
            "SUPERSTEP_HEALTH_ADDR",
            json!("0.0.0.0:9000"),
            "not the container's port",
        ),
        ("/0", "kind", json!("Secret"), "a secret is part"),
        (
            "/1/spec",
            "selector",
            json!({"matchLabels": {"app": "x"}}),
            "selects no pod",
        ),
    ];
    for (at, key, value, expected) in cases {
        let mut objects = Value::from(good());
        objects.pointer_mut(at).expect("a place")[key] = value;
        let Value::Array(objects) = objects else {
            unreachable!("it was a list")
        };
        let found = findings(&objects);
        let is_found = found.iter().any(|found| found.contains(expected));
        assert!(is_found, "{at} {key}: {found:?}");
    }
    assert_eq!(findings(&[]), ["there is no workload"]);
}

#[test]
fn times_are_read_in_seconds() {
    for (text, read) in [
        ("25s", Some(25)),
        ("10m", Some(600)),
        ("1h", Some(3600)),
        ("1m30s", Some(90)),
        ("1m0", None),
        ("25", None),
        ("500ms", None),
        ("", None),
        ("s", None),
    ] {
        assert_eq!(seconds(text), read, "{text}");
    }
}
