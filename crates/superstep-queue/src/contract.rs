//! The contract suite: what every queue must do, in memory, on SQLite and on NATS alike.
//!
//! Each promise of the port is one function here; [`contract_tests!`](crate::contract_tests)
//! makes a test of each. A queue under test comes from a function that is given
//! [`ContractSettings`] (short leases, small bounds) and returns a [`ContractQueue`], empty and
//! used by nobody else. The suite looks only through the port, never sleeps to wait for
//! something to happen, and waits no longer than [`DEADLINE`] for anything.

#![expect(
    clippy::missing_panics_doc,
    reason = "every function here is a test: it panics where the queue breaks its promise"
)]

mod commands;
mod events;
mod limits;
mod live;
mod work;

use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use superstep_protocol::GraphId;
use tokio::time::{Instant, timeout};

pub use self::{commands::*, events::*, limits::*, live::*, work::*};
use crate::{
    CommandKind, CommandMessage, Consumer, Delivery, EventMessage, Headers, Queue, Received,
    Subscription, WorkMessage, header,
};

/// How long the suite waits for what must happen. Far beyond what any queue needs, so that a
/// slow machine fails no test.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long the suite watches that nothing happens. A broken queue is caught if it errs within
/// this; a right one never fails by it.
const SILENCE: Duration = Duration::from_millis(300);

/// What the suite asks of the queue it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractSettings {
    /// The lease of work.
    pub ack_wait: Duration,
    /// The lease of commands.
    pub command_ack_wait: Duration,
    /// Work messages held at once before `Full`; `None` for the queue's own bound, which must
    /// be above 10,000.
    pub work_messages_max: Option<usize>,
}

impl Default for ContractSettings {
    fn default() -> Self {
        Self {
            ack_wait: Duration::from_secs(1),
            command_ack_wait: Duration::from_secs(1),
            work_messages_max: None,
        }
    }
}

/// Leases that no slow machine lets end within a test that is not about leases.
fn unhurried() -> ContractSettings {
    ContractSettings {
        ack_wait: DEADLINE * 3,
        command_ack_wait: DEADLINE * 3,
        ..ContractSettings::default()
    }
}

type RawPublish = Pin<Box<dyn Future<Output = ()> + Send>>;
type RawPublisher = Box<dyn Fn(String, Headers, Bytes) -> RawPublish + Send + Sync>;

/// A queue under test with what belongs to it.
pub struct ContractQueue {
    queue: Arc<dyn Queue>,
    peer: Option<Arc<dyn Queue>>,
    raw: Option<RawPublisher>,
    /// Dropped last: the server or folder that the queues live on.
    guard: Option<Box<dyn Any>>,
}

impl ContractQueue {
    /// A queue with nothing else; [`Queue::setup`] is called by the suite.
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self {
            queue,
            peer: None,
            raw: None,
            guard: None,
        }
    }

    /// Another client (a connection, an open file) of the same system, for tests where two
    /// parties meet. Without it they share one handle.
    #[must_use]
    pub fn with_peer(mut self, peer: Arc<dyn Queue>) -> Self {
        self.peer = Some(peer);
        self
    }

    /// A way to publish under a subject of any form and wait until it is stored, as a plain
    /// client of that system would. Without it, tests of foreign subjects have nothing to do.
    #[must_use]
    pub fn with_raw<F>(
        mut self,
        publish: impl Fn(String, Headers, Bytes) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.raw = Some(Box::new(move |subject, headers, body| {
            Box::pin(publish(subject, headers, body))
        }));
        self
    }

    /// What must live as long as the queue, such as a server process or a temporary folder.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    async fn ready(self) -> Self {
        self.queue.setup().await.expect("setup");
        self
    }

    fn queue(&self) -> &dyn Queue {
        &*self.queue
    }

    fn peer(&self) -> &dyn Queue {
        self.peer.as_deref().unwrap_or(&*self.queue)
    }
}

impl fmt::Debug for ContractQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContractQueue").finish_non_exhaustive()
    }
}

/// Makes a queue for one test.
pub trait MakeQueue: AsyncFn(ContractSettings) -> ContractQueue {}

impl<F: AsyncFn(ContractSettings) -> ContractQueue> MakeQueue for F {}

/// One `#[tokio::test]` for each promise of the contract.
///
/// `contract_tests!(make_queue)` calls `async fn make_queue(ContractSettings) ->
/// ContractQueue` once for each test; what follows the name goes into the attribute, such as
/// `contract_tests!(make_queue, start_paused = true)`.
#[macro_export]
macro_rules! contract_tests {
    ($make:expr $(, $($attribute:tt)+)?) => {
        $crate::contract_tests! {
            @each ($make) [$($($attribute)+)?]
            each_work_message_reaches_one_of_two_consumers
            an_unacked_message_comes_again_after_ack_wait
            in_progress_prolongs_the_lease
            a_nak_delays_the_next_delivery
            a_nak_without_delay_redelivers_at_once
            a_termed_message_never_comes_again
            an_acked_message_never_comes_again
            a_late_ack_harms_nothing
            a_pull_holds_nothing_beyond_its_max
            a_pull_waits_for_the_first_message
            a_short_batch_ends_the_wait
            an_empty_pull_ends_after_its_wait
            a_dropped_pull_loses_no_message
            work_of_another_version_is_not_seen
            work_waits_for_its_first_consumer
            a_backlog_is_what_no_worker_holds
            work_comes_with_headers_and_body
            commands_carry_their_kind_and_target
            commands_come_in_the_order_of_publishing
            a_repeated_command_id_is_one_command
            a_done_command_is_still_remembered
            commands_without_id_are_all_kept
            a_published_id_names_every_delivery
            many_commands_can_wait_for_their_ack
            commands_under_unknown_subjects_are_delivered
            events_reach_every_subscriber_in_order
            a_repeated_event_id_is_one_event
            events_are_filtered_by_each_part
            a_subscription_begins_where_it_asked
            events_need_no_graph
            a_request_gets_its_outcome
            a_request_without_outcome_ends_in_time
            concurrent_requests_get_their_own_outcomes
            a_reply_goes_only_to_proper_subjects
            a_reply_to_nobody_is_fine
            live_output_reaches_the_threads_subscribers
            live_output_is_not_stored
            a_full_work_stream_refuses_and_loses_nothing
            a_body_over_the_limit_is_refused
            a_body_at_the_limit_is_carried
            odd_ids_travel_unharmed
            ids_without_a_subject_are_refused
            a_thousand_works_all_arrive_once
            setup_and_check_can_be_repeated
        }
    };
    (@each $make:tt $attributes:tt $($name:ident)+) => {
        $($crate::contract_tests! { @one $make $attributes $name })+
    };
    (@one ($make:expr) [$($attribute:tt)*] $name:ident) => {
        #[tokio::test($($attribute)*)]
        async fn $name() {
            $crate::contract::$name($make).await;
        }
    };
}

fn graph(name: &str, version: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: version.into(),
    }
}

fn work(graph: &GraphId, body: &str) -> WorkMessage {
    WorkMessage {
        graph: graph.clone(),
        headers: Headers::new(),
        body: Bytes::from(body.to_owned()),
    }
}

fn works(graph: &GraphId, bodies: std::ops::Range<usize>) -> Vec<WorkMessage> {
    bodies.map(|n| work(graph, &n.to_string())).collect()
}

fn command(kind: CommandKind, target: &str, body: &str) -> CommandMessage {
    CommandMessage {
        kind,
        target: target.to_owned(),
        headers: Headers::new(),
        body: Bytes::from(body.to_owned()),
    }
}

fn command_with_id(id: &str, body: &str) -> CommandMessage {
    let mut message = command(CommandKind::Resume, "order-42", body);
    message
        .headers
        .insert(header::MSG_ID.to_owned(), id.to_owned());
    message
}

fn event(kind: &str, graph: Option<&str>, thread: &str, id: &str) -> EventMessage {
    EventMessage {
        kind: kind.to_owned(),
        graph: graph.map(Into::into),
        thread: thread.into(),
        headers: Headers::from([(header::MSG_ID.to_owned(), id.to_owned())]),
        body: Bytes::from(id.to_owned()),
    }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| text(&d.body)).collect()
}

/// Waits for one delivery.
async fn pull_one(consumer: &mut dyn Consumer) -> Delivery {
    let mut pulled = pull_exactly(consumer, 1).await;
    pulled.remove(0)
}

/// Waits until `count` deliveries came, in as many pulls as it takes.
async fn pull_exactly(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let give_up = Instant::now() + DEADLINE;
    let mut pulled = Vec::new();
    while pulled.len() < count {
        let left = give_up.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "only {} of {count} came", pulled.len());
        let more = consumer
            .pull(count - pulled.len(), left)
            .await
            .expect("pull");
        assert!(more.len() <= count - pulled.len(), "more than max came");
        pulled.extend(more);
    }
    pulled
}

/// Asserts that nothing comes for a while.
async fn assert_silent(consumer: &mut dyn Consumer) {
    let pulled = consumer.pull(10, SILENCE).await.expect("pull");
    assert_eq!(texts(&pulled), [""; 0], "nothing was to come");
}

async fn ack_all(deliveries: &[Delivery]) {
    for delivery in deliveries {
        delivery.acker.ack().await.expect("ack");
    }
}

/// Waits for the next message of a subscription.
async fn next(subscription: &mut dyn Subscription) -> Received {
    timeout(DEADLINE, subscription.next())
        .await
        .expect("a message comes in time")
        .expect("next")
        .expect("the subscription lives")
}

async fn next_texts(subscription: &mut dyn Subscription, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(text(&next(subscription).await.body));
    }
    texts
}

async fn assert_no_more(subscription: &mut dyn Subscription) {
    if let Ok(received) = timeout(SILENCE, subscription.next()).await {
        panic!("nothing was to come, but this did: {received:?}");
    }
}
