//! Which variables ask for an export.

use super::*;

#[track_caller]
fn check(variables: &[(&str, &str)], wanted: Result<bool, &str>) {
    let said = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    match (is_wanted(said), wanted) {
        (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{variables:?}"),
        (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
        (found, wanted) => panic!("{variables:?}: {found:?}, not {wanted:?}"),
    }
}

#[test]
fn only_the_variables_ask_for_an_export() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    check(&[], Ok(false));
    check(&[("OTEL_SERVICE_NAME", "mails")], Ok(false));
    check(&[endpoint], Ok(true));
    check(
        &[(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://127.0.0.1:1/v1/traces",
        )],
        Ok(true),
    );
    check(&[("OTEL_TRACES_EXPORTER", "otlp")], Ok(true));
    check(&[endpoint, ("OTEL_SDK_DISABLED", "True")], Ok(false));
    check(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], Ok(false));
    check(
        &[endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")],
        Err("`otlp` and `none`"),
    );
    check(
        &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        Err("http/protobuf"),
    );
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
    check(
        &[endpoint, of_traces, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        Ok(true),
    );
}
