//! The control API: any requests in any order; what is refused changes nothing.

use goldcrest_api::{Answer, ApiError, Call, Controller, ScriptedMachine};

/// Requests of an input.
const MAX_REQUESTS: usize = 64;

/// Runs the target: each line is a request, `METHOD PATH BODY`.
pub fn run(data: &[u8]) {
    let mut controller = Controller::new(ScriptedMachine::default(), "fuzzed");
    for line in data.split(|byte| *byte == b'\n').take(MAX_REQUESTS) {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default());
        let (method, path) = (text().into_owned(), text().into_owned());
        request(
            &mut controller,
            &method,
            &path,
            parts.next().unwrap_or_default(),
        );
    }
    configures_another(&mut controller);
}

fn request(controller: &mut Controller<ScriptedMachine>, method: &str, path: &str, body: &[u8]) {
    let call = Call::read(method, path, body);
    // This opens a file, wherever the input says.
    if let Ok(Call::PutMetrics(_)) = call {
        return;
    }
    let before = (all(controller), controller.machine().asked.len());
    match controller.request(method, path, body) {
        Err(error) => {
            assert_refusal(&error);
            let after = (all(controller), controller.machine().asked.len());
            assert_eq!(after, before, "refused: {error}");
        }
        Ok(Answer::Json(text)) => {
            serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
        }
        Ok(Answer::Done) => assert!(call.is_ok() && method != "GET"),
        Ok(Answer::Text(_)) => assert_eq!(call.ok(), Some(Call::GetMetrics)),
        Ok(Answer::Document(_)) => assert_eq!(call.ok(), Some(Call::GetOpenApi)),
    }
}

/// A reason on one line, of bounded length, in a body that clients can read.
fn assert_refusal(error: &ApiError) {
    assert!([400, 413].contains(&error.status()));
    let body: serde_json::Value = serde_json::from_str(&error.body()).expect("it is JSON");
    let why = body["fault_message"].as_str().expect("it says why");
    assert!(!why.is_empty());
}

/// What the machine does, and how it is configured.
fn all(controller: &mut Controller<ScriptedMachine>) -> (String, String) {
    let mut get = |path| match controller.request("GET", path, b"") {
        Ok(Answer::Json(text)) => text,
        other => panic!("{path}: {other:?}"),
    };
    (get("/"), get("/vm/config"))
}

/// What is read of a configuration configures the same.
fn configures_another(controller: &mut Controller<ScriptedMachine>) {
    let (_, config) = all(controller);
    let mut other = Controller::new(ScriptedMachine::default(), "other");
    let parsed = serde_json::from_str(&config).expect("it is a configuration");
    other.configure(parsed).expect("it was configured so");
    assert_eq!(all(&mut other).1, config);
}
