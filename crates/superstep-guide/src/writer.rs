//! The writer: a language model if one is configured, else a few words of its own.
//!
//! Any endpoint that speaks OpenAI's chat completions will do. It is asked only if both its
//! address and a model are named, so that a key in the environment is never used unasked.
//! The local writer says in its text that it is one.

use std::time::Duration;

use serde_json::{Value, json};
use superstep::NodeError;

/// How long a model may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Who writes drafts.
#[derive(Clone, Debug)]
pub struct Writer {
    endpoint: Option<Endpoint>,
}

/// An endpoint that speaks OpenAI's chat completions.
#[derive(Clone)]
pub struct Endpoint {
    /// Such as `http://localhost:11434/v1`.
    pub base_url: String,
    /// The model to ask.
    pub model: String,
    /// The key, if it wants one.
    pub api_key: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// The model that `OPENAI_BASE_URL` and `OPENAI_MODEL` name, with the key in
    /// `OPENAI_API_KEY` if there is one; else the local writer.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = set("OPENAI_BASE_URL").zip(set("OPENAI_MODEL"));
        Self {
            endpoint: named.map(|(base_url, model)| Endpoint {
                base_url,
                model,
                api_key: set("OPENAI_API_KEY"),
            }),
        }
    }

    /// The local writer.
    pub fn local() -> Self {
        Self { endpoint: None }
    }

    /// A model at an endpoint.
    pub fn model(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Some(endpoint),
        }
    }

    /// Does what `prompt` asks.
    ///
    /// # Errors
    /// If the endpoint does not answer in time, or not with a text.
    ///
    /// # Panics
    /// Never: asking a model does not panic.
    pub async fn write(&self, prompt: &str) -> Result<String, NodeError> {
        let Some(endpoint) = self.endpoint.clone() else {
            return Ok(format!(
                "[Written by the local writer, as no model is configured. The task was: {prompt}]"
            ));
        };
        let prompt = prompt.to_owned();
        let asked = tokio::task::spawn_blocking(move || ask(&endpoint, &prompt));
        asked.await.expect("asking a model does not panic")
    }
}

fn ask(endpoint: &Endpoint, prompt: &str) -> Result<String, NodeError> {
    let failed = |what: String| {
        let Endpoint {
            base_url, model, ..
        } = endpoint;
        NodeError::new(
            "WriterFailed",
            format!(
                "model `{model}` at {base_url} wrote nothing: {what}; check OPENAI_BASE_URL, \
                 OPENAI_MODEL and OPENAI_API_KEY, then retry the thread"
            ),
        )
    };
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT));
    let agent: ureq::Agent = config.build().into();
    let base = endpoint.base_url.trim_end_matches('/');
    let mut request = agent.post(format!("{base}/chat/completions"));
    if let Some(key) = &endpoint.api_key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = json!({
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
    });
    let mut response = request
        .send_json(body)
        .map_err(|error| failed(error.to_string()))?;
    let answer: Value = response
        .body_mut()
        .read_json()
        .map_err(|error| failed(error.to_string()))?;
    let text = answer["choices"][0]["message"]["content"].as_str();
    let text = text.filter(|text| !text.trim().is_empty());
    text.map(str::to_owned)
        .ok_or_else(|| failed("its answer has no text".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with `status` and `body`, and gives what it was asked.
    fn endpoint(
        status: &'static str,
        body: &'static str,
    ) -> (Endpoint, std::thread::JoinHandle<(String, Value)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut asked = vec![0; length];
            reader.read_exact(&mut asked).unwrap();
            let mut stream = stream;
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            (head, serde_json::from_slice(&asked).unwrap())
        });
        let endpoint = Endpoint {
            base_url: format!("http://{address}/v1/"),
            model: "tiny".to_owned(),
            api_key: Some("secret".to_owned()),
        };
        (endpoint, server)
    }

    #[tokio::test]
    async fn a_model_is_asked_for_the_draft() {
        let body = r#"{"choices": [{"message": {"content": "Dear Ada"}}]}"#;
        let (endpoint, server) = endpoint("200 OK", body);
        let text = Writer::model(endpoint).write("Write.").await.unwrap();
        assert_eq!(text, "Dear Ada");
        let (head, asked) = server.join().unwrap();
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        assert!(head.contains("Bearer secret"), "{head}");
        assert_eq!(asked["model"], "tiny");
        assert_eq!(asked["messages"][0]["content"], "Write.");
    }

    #[tokio::test]
    async fn a_failing_model_says_what_to_check() {
        for (status, body) in [("500 Oops", "{}"), ("200 OK", "{}"), ("200 OK", "no json")] {
            let (endpoint, server) = endpoint(status, body);
            let error = Writer::model(endpoint).write("Write.").await.unwrap_err();
            server.join().unwrap();
            assert_eq!(error.kind(), "WriterFailed");
            assert!(error.message().contains("OPENAI_BASE_URL"), "{error}");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_local_writer_says_that_it_is_one() {
        let text = Writer::local().write("Write.").await.unwrap();
        assert!(text.contains("local writer"), "{text}");
    }
}
