//! `interrupts`: the questions that wait for an answer, the oldest first.
//!
//! The list is the store's index, the payload the thread's state. Answering is `resume`.

use serde_json::json;
use superstep_checkpoint::InterruptQuery;
use superstep_graph::InterruptId;
use superstep_protocol::ThreadId;
use superstep_worker::{Client, OpenInterrupt};

use crate::{
    args::{InterruptsCommand, PageArgs},
    commands::{send::show_interrupt, threads::more},
    exit::{Exit, Failure},
    output::{DIM, seconds, short_json, table},
    reach::Session,
};

/// How many questions are looked at in one go when one is searched.
const SEARCH_PAGE: usize = 1_000;

pub(crate) async fn run(session: &Session, command: InterruptsCommand) -> Result<Exit, Failure> {
    match command {
        InterruptsCommand::List { thread, page } => list(session, thread, page).await,
        InterruptsCommand::Show { id } => show(session, &id).await,
    }
}

async fn list(session: &Session, thread: Option<String>, page: PageArgs) -> Result<Exit, Failure> {
    let output = session.output;
    let query = InterruptQuery {
        thread: thread.map(ThreadId::from),
        limit: page.limit.into(),
        after: page.after,
    };
    let client = session.connect().await?.client();
    let page = client.interrupts(&query).await?;
    output.value(&json!({"interrupts": page.rows, "next": page.next}))?;
    let mut rows = table(["interrupt", "thread", "node", "since", "asks"], &["asks"]);
    for open in &page.rows {
        rows.add_row([
            open.interrupt_id.to_string(),
            open.thread_id.to_string(),
            open.node.to_string(),
            seconds(&open.opened_at),
            short_json(&open.value, 120),
        ]);
    }
    output.rows(&mut rows, "no open interrupts")?;
    more(output, page.next.as_deref());
    Ok(Exit::Done)
}

async fn show(session: &Session, id: &str) -> Result<Exit, Failure> {
    let output = session.output;
    let client = session.connect().await?.client();
    let found = if InterruptId::is_id(id) {
        find(&client, id).await?.into_iter().collect()
    } else {
        client.interrupts_of(&ThreadId::new(id)).await?
    };
    if found.is_empty() {
        return Err(Failure::failed(format!(
            "there is no open interrupt `{id}`, nor a thread of that name that asks"
        ))
        .with_hint("superstep interrupts list shows those there are"));
    }
    output.value(&json!({"interrupts": found}))?;
    for open in &found {
        show_interrupt(output, open)?;
        output.line(format!(
            "{DIM}answer with: superstep resume {} JSON --interrupt {}{DIM:#}",
            open.thread_id, open.interrupt_id
        ))?;
    }
    Ok(Exit::Done)
}

async fn find(client: &Client, id: &str) -> Result<Option<OpenInterrupt>, Failure> {
    let mut query = InterruptQuery {
        thread: None,
        limit: SEARCH_PAGE,
        after: None,
    };
    loop {
        let page = client.log().interrupts(&query).await?;
        if let Some((thread, row)) = page.rows.into_iter().find(|(_, row)| row.id == *id) {
            let open = client.interrupts_of(&thread).await?;
            return Ok(open.into_iter().find(|open| open.interrupt_id == row.id));
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(None);
        }
    }
}
