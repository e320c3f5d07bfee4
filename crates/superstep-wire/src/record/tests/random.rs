//! Any record is read as it was written, however much of it goes out of line.
//!
//! The values are any JSON; which of them are large is drawn by the limit, down to none at all.

use proptest::prelude::*;

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |f| f.is_finite())
            .prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_change() -> impl Strategy<Value = ChannelChange> {
    prop_oneof![
        any_json().prop_map(ChannelChange::Set),
        prop::collection::vec(any_json(), 0..4).prop_map(ChannelChange::Push),
        Just(ChannelChange::Remove),
    ]
}

fn channels<T: std::fmt::Debug>(
    values: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<ChannelName, T>> {
    prop::collection::btree_map("[a-d:]{1,3}".prop_map(ChannelName::from), values, 0..4)
}

fn any_body() -> impl Strategy<Value = RecordBody> {
    let checkpoint = (
        channels(any_change()),
        channels(any_change()),
        prop::option::of(any_json()),
    )
        .prop_map(|(channels, untracked, packet)| {
            let RecordBody::Committed(mut record) = committed() else {
                unreachable!("a checkpoint")
            };
            (record.delta.channels, record.delta.untracked) = (channels, untracked);
            record.tasks[0].packet = packet;
            RecordBody::Committed(record)
        });
    let answers = any_json().prop_map(|answer| {
        let is_resume = |record: &Record| matches!(record.body, RecordBody::Resumed { .. });
        let mut body = records().into_iter().find(is_resume).unwrap().body;
        if let RecordBody::Resumed { answers, .. } = &mut body {
            *answers.values_mut().next().unwrap() = answer;
        }
        body
    });
    let questions = (any_json(), any_json()).prop_map(|(payload, wrote)| {
        let mut parked = parked(None);
        for result in parked.results.values_mut() {
            match result {
                TaskResult::Interrupted { raised, .. } => raised[0].payload = payload.clone(),
                TaskResult::Finished { writes, .. } => {
                    *writes = vec![Write::set("a", wrote.clone())];
                }
                TaskResult::Failed { .. } | TaskResult::Paused(_) => {}
            }
        }
        RecordBody::Interrupted(parked)
    });
    prop_oneof![4 => checkpoint, 1 => answers, 1 => questions]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_record_is_read_as_it_was_written(
        body in any_body(),
        snapshot in prop::option::of((channels(any_json()), channels(any_json()))),
        inline_bytes_max in prop_oneof![Just(0), 0..200_usize, Just(usize::MAX)],
    ) {
        let first = records().remove(0);
        let snapshot = snapshot.map(|(values, untracked)| {
            let mut state = first.snapshot.clone().expect("the first record has one");
            (state.checkpoint.values, state.checkpoint.untracked) = (values, untracked);
            state
        });
        let record = Record { body, snapshot, ..first };
        let encoded = encode(record.clone(), inline_bytes_max);
        let decoded = decode(&encoded.bytes).expect("what was written is readable");
        let needed = decoded.blob_ids();
        prop_assert_eq!(&needed, &encoded.blobs.keys().cloned().collect::<Vec<_>>());
        if inline_bytes_max == usize::MAX {
            prop_assert!(needed.is_empty());
        }
        prop_assert_eq!(decoded.resolve(&encoded.blobs).expect("all blobs are there"), record);
    }

    #[test]
    fn any_task_result_is_read_as_it_was_written(value in any_json()) {
        for (_, mut result) in parked(None).results {
            if let TaskResult::Finished { writes, .. } = &mut result {
                *writes = vec![Write::set("a", value.clone())];
            }
            prop_assert_eq!(decode_result(&encode_result(result.clone())).expect("readable"), result);
        }
    }
}
