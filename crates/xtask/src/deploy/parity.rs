//! The chart with its default values is the same as the Kustomize base.
//!
//! Two ways to the same objects drift apart unless something holds them together. Names that carry
//! a hash, and labels and annotations that only Helm writes, are taken away before they are
//! compared.
//!
//! The rule it keeps: what is left is compared whole, so that a difference is either wanted in both
//! or in none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rules::name_of;

/// What only Helm writes, and says nothing about what runs.
const OF_HELM: [&str; 4] = [
    "helm.sh/chart",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "checksum/settings",
];

/// Every difference between the two.
pub(super) fn findings(base: &[Value], chart: &[Value]) -> Vec<String> {
    let (base, chart) = (plain(base), plain(chart));
    let mut found = Vec::new();
    for name in base
        .keys()
        .chain(chart.keys().filter(|name| !base.contains_key(*name)))
    {
        match (base.get(name), chart.get(name)) {
            (Some(base), Some(chart)) => differences(name, base, chart, &mut found),
            (Some(_), None) => found.push(format!("{name} is in the base only")),
            _ => found.push(format!("{name} is in the chart only")),
        }
    }
    found
}

/// The objects by name, as comparable as they can be.
fn plain(objects: &[Value]) -> BTreeMap<String, Value> {
    let mut text = Value::from(objects.to_vec()).to_string();
    for object in objects
        .iter()
        .filter(|object| object["kind"] == "ConfigMap")
    {
        if let Some((name, hash)) = object["metadata"]["name"]
            .as_str()
            .and_then(|name| Some((name, name.rsplit_once('-')?)))
            .filter(|(_, (_, hash))| hash.len() == 10)
        {
            text = text.replace(name, hash.0);
        }
    }
    let objects: Vec<Value> = serde_json::from_str(&text).expect("it was JSON");
    objects
        .into_iter()
        .map(|mut object| {
            strip(&mut object);
            (name_of(&object), object)
        })
        .collect()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !OF_HELM.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn differences(path: &str, base: &Value, chart: &Value, found: &mut Vec<String>) {
    match (base, chart) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differences(&path, a, b, found),
                    (Some(_), None) => found.push(format!("{path} is in the base only")),
                    _ => found.push(format!("{path} is in the chart only")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if base != chart => {
            found.push(format!(
                "{path} is {base} in the base and {chart} in the chart"
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_helm_writes_is_overlooked() {
        let map = |name: &str, labels: Value, value: &str| {
            json!({"kind": "ConfigMap", "metadata": {"name": name, "labels": labels},
                "data": {"A": value}})
        };
        let base = [map("worker-8h4d29f2t7", json!({"app": "a"}), "1")];
        let labels = json!({"app": "a", "helm.sh/chart": "x-1"});
        assert!(findings(&base, &[map("worker", labels.clone(), "1")]).is_empty());
        assert_eq!(
            findings(&base, &[map("worker", labels, "2")]),
            [r#"ConfigMap/worker.data.A is "1" in the base and "2" in the chart"#]
        );
        assert_eq!(
            findings(&base, &[]),
            ["ConfigMap/worker is in the base only"]
        );
    }
}
