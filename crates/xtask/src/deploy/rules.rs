//! Rules for the objects of a render: what a pod may do, what finds what, where secrets are.
//!
//! Pure: objects in, findings out. What the API allows is left to its schemas; these are the
//! promises of `deploy/` that no schema knows.
//!
//! The rule it keeps: a pod is judged as it is rendered, so that a patch or a value cannot take a
//! promise back unseen.

use serde_json::{Map, Value};

/// What a drain may take beyond its time until the worker counts as hung; its pod must outlive it.
const DRAIN_SLACK_SECONDS: u64 = 10;

/// A workload and what its pods are.
pub(super) struct Pod<'a> {
    /// Such as `Deployment/superstep-worker`.
    pub(super) name: String,
    pub(super) labels: &'a Value,
    pub(super) spec: &'a Value,
}

/// The pods that the workloads make.
pub(super) fn pods(objects: &[Value]) -> Vec<Pod<'_>> {
    objects
        .iter()
        .filter(|object| object["spec"]["template"]["spec"].is_object())
        .map(|object| Pod {
            name: name_of(object),
            labels: &object["spec"]["template"]["metadata"]["labels"],
            spec: &object["spec"]["template"]["spec"],
        })
        .collect()
}

/// The containers of a pod.
pub(super) fn containers<'a>(pod: &Pod<'a>) -> &'a [Value] {
    list(&pod.spec["containers"])
}

/// The container of a worker, if the pod is one's.
pub(super) fn worker<'a>(pod: &Pod<'a>) -> Option<&'a Value> {
    containers(pod)
        .iter()
        .find(|container| list(&container["args"]).first() == Some(&Value::from("worker")))
}

/// The variables of a container, as far as the render itself says them.
pub(super) fn variables(container: &Value, objects: &[Value]) -> Map<String, Value> {
    let mut variables = Map::new();
    for source in list(&container["envFrom"]) {
        let name = &source["configMapRef"]["name"];
        let map = objects
            .iter()
            .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == *name);
        if let Some(Value::Object(data)) = map.map(|map| &map["data"]) {
            variables.extend(data.clone());
        }
    }
    for variable in list(&container["env"]) {
        if let Some(name) = variable["name"].as_str() {
            variables.insert(name.to_owned(), variable["value"].clone());
        }
    }
    variables
}

/// Everything that is wrong with the objects of one render.
pub(super) fn findings(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    let pods = pods(objects);
    if pods.is_empty() {
        found.push("there is no workload".to_owned());
    }
    for pod in &pods {
        let mut wrong = Vec::new();
        confined(pod, &mut wrong);
        if let Some(container) = worker(pod) {
            drains(pod, container, objects, &mut wrong);
            listens(container, objects, &mut wrong);
        }
        found.extend(
            wrong
                .into_iter()
                .map(|wrong| format!("{}: {wrong}", pod.name)),
        );
    }
    for object in objects {
        secrets(object, &mut found);
        selects(object, &pods, &mut found);
    }
    found
}

/// What a pod may not do.
fn confined(pod: &Pod<'_>, wrong: &mut Vec<String>) {
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    let spec = pod.spec;
    let security = &spec["securityContext"];
    must(security["runAsNonRoot"] == true, "runAsNonRoot is not true");
    must(
        security["runAsUser"].as_u64().is_some_and(|user| user > 0),
        "runAsUser is no number above 0",
    );
    must(
        security["seccompProfile"]["type"] == "RuntimeDefault",
        "seccompProfile is not RuntimeDefault",
    );
    must(
        spec["automountServiceAccountToken"] == false,
        "a token of the API is mounted",
    );
    must(spec["enableServiceLinks"] == false, "service links are on");
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        must(spec[host] != true, &format!("{host} is on"));
    }
    for container in containers(pod) {
        let security = &container["securityContext"];
        must(
            security["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation is not false",
        );
        must(
            security["readOnlyRootFilesystem"] == true,
            "the root file system can be written",
        );
        must(
            list(&security["capabilities"]["drop"]).contains(&"ALL".into()),
            "not all capabilities are dropped",
        );
        let resources = &container["resources"];
        must(
            resources["requests"]["cpu"].is_string() && resources["requests"]["memory"].is_string(),
            "cpu and memory are not requested",
        );
        must(
            resources["limits"]["memory"].is_string(),
            "memory is not limited",
        );
        let image = container["image"].as_str().unwrap_or_default();
        let (_, last) = image.rsplit_once('/').unwrap_or(("", image));
        must(
            (last.contains(':') || last.contains('@')) && !last.ends_with(":latest"),
            &format!("the image {image} names no version"),
        );
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            must(
                container[probe].is_object(),
                &format!("there is no {probe}"),
            );
        }
    }
}

/// The pod outlives its worker's drain.
fn drains(pod: &Pod<'_>, container: &Value, objects: &[Value], wrong: &mut Vec<String>) {
    let variables = variables(container, objects);
    let drain = variables
        .get("SUPERSTEP_DRAIN_TIMEOUT")
        .and_then(Value::as_str);
    let Some(drain) = drain.and_then(seconds) else {
        wrong.push("SUPERSTEP_DRAIN_TIMEOUT is not set in seconds, such as 25s".to_owned());
        return;
    };
    let grace = pod.spec["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap_or(30);
    if grace <= with_slack(drain) {
        wrong.push(format!(
            "terminationGracePeriodSeconds is {grace}, and the drain of {drain} s needs more than \
             {}",
            with_slack(drain)
        ));
    }
}

/// The worker listens where its probes ask.
fn listens(container: &Value, objects: &[Value], wrong: &mut Vec<String>) {
    let variables = variables(container, objects);
    let address = variables
        .get("SUPERSTEP_HEALTH_ADDR")
        .and_then(Value::as_str);
    let port = address
        .and_then(|address| address.rsplit_once(':'))
        .and_then(|(_, port)| port.parse::<u64>().ok());
    let open = list(&container["ports"])
        .iter()
        .find(|open| open["name"] == "health");
    if port.is_none() || open.and_then(|open| open["containerPort"].as_u64()) != port {
        wrong.push(format!(
            "SUPERSTEP_HEALTH_ADDR is {address:?}, which is not the container's port `health`"
        ));
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if container[probe]["httpGet"]["port"] != "health" {
            wrong.push(format!("{probe} does not ask the port `health`"));
        }
    }
}

/// Nothing that must be kept secret is written down.
fn secrets(object: &Value, found: &mut Vec<String>) {
    let name = name_of(object);
    if object["kind"] == "Secret" {
        found.push(format!("{name}: a secret is part of what is rendered"));
    }
    let mut written: Vec<(&str, &str)> = Vec::new();
    if let Value::Object(data) = &object["data"] {
        written.extend(
            data.iter()
                .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))),
        );
    }
    for container in list(&object["spec"]["template"]["spec"]["containers"]) {
        for variable in list(&container["env"]) {
            if let (Some(name), Some(value)) =
                (variable["name"].as_str(), variable["value"].as_str())
            {
                written.push((name, value));
            }
        }
    }
    for (key, value) in written {
        let secret = ["PASSWORD", "TOKEN", "SECRET"];
        let in_address = value.contains("://") && value.contains('@');
        if secret.iter().any(|end| key.ends_with(end)) || in_address {
            found.push(format!("{name}: {key} holds a secret"));
        }
    }
}

/// What chooses pods by their labels finds some.
fn selects(object: &Value, pods: &[Pod<'_>], found: &mut Vec<String>) {
    let spec = &object["spec"];
    let labels = match object["kind"].as_str() {
        Some("PodDisruptionBudget" | "Deployment" | "StatefulSet") => {
            &spec["selector"]["matchLabels"]
        }
        Some("NetworkPolicy") => &spec["podSelector"]["matchLabels"],
        Some("Service") => &spec["selector"],
        _ => return,
    };
    let chooses = |pod: &Pod<'_>| {
        labels.as_object().is_some_and(|labels| {
            !labels.is_empty() && labels.iter().all(|(key, value)| pod.labels[key] == *value)
        })
    };
    if !pods.iter().any(chooses) {
        found.push(format!(
            "{}: it selects no pod that is here",
            name_of(object)
        ));
    }
}

/// A time such as `25s`, `10m` or `1m30s` in seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let mut sum = None;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return None,
        };
        sum = Some(sum.unwrap_or(0) + number.parse::<u64>().ok()? * unit);
        number.clear();
    }
    sum.filter(|_| number.is_empty())
}

/// What must be outlived for a drain of so many seconds to be over, well or hung.
pub(super) fn with_slack(drain: u64) -> u64 {
    drain + DRAIN_SLACK_SECONDS
}

/// The kind and name of an object.
pub(super) fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

/// The items of a list; none where there is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
