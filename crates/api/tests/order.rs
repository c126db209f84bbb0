//! What may be asked for when, and what comes of it, with a machine that is none.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use goldcrest_api::model::{Level, Logger};
use goldcrest_api::{Answer, Controller, Fault, Logs, ScriptedMachine};
use proptest::prelude::*;
use serde_json::{Value, json};

type Scripted = Controller<ScriptedMachine>;

fn controller() -> Scripted {
    Controller::new(ScriptedMachine::default(), "test")
}

/// One that was started.
fn started() -> Scripted {
    let mut controller = controller();
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    put(&mut controller, "/drives/a", DRIVE).unwrap();
    put(&mut controller, "/network-interfaces/e", CARD).unwrap();
    put(&mut controller, "/balloon", BALLOON).unwrap();
    put(&mut controller, "/actions", START).unwrap();
    controller
}

const KERNEL: &str = r#"{"kernel_image_path":"k"}"#;
const DRIVE: &str = r#"{"drive_id":"a","is_root_device":false,"path_on_host":"d"}"#;
const CARD: &str = r#"{"iface_id":"e","host_dev_name":"tap0"}"#;
const BALLOON: &str = r#"{"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1}"#;
const START: &str = r#"{"action_type":"InstanceStart"}"#;
const SAVE: &str = r#"{"snapshot_path":"s","mem_file_path":"m"}"#;
const LOAD: &str =
    r#"{"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"}}"#;

fn ask(controller: &mut Scripted, method: &str, path: &str, body: &str) -> Result<Answer, String> {
    let result = controller.request(method, path, body.as_bytes());
    result.map_err(|error| error.to_string())
}

fn put(controller: &mut Scripted, path: &str, body: &str) -> Result<Answer, String> {
    ask(controller, "PUT", path, body)
}

fn get(controller: &mut Scripted, path: &str) -> Value {
    match ask(controller, "GET", path, "").unwrap() {
        Answer::Json(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_goes_from_configured_to_running_to_paused_and_back() {
    let mut controller = controller();
    let state = |controller: &mut Scripted| get(controller, "/")["state"].clone();
    assert_eq!(state(&mut controller), "Not started");
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    assert_eq!(put(&mut controller, "/actions", START), Ok(Answer::Done));
    assert_eq!(state(&mut controller), "Running");
    let vm = |state| format!(r#"{{"state":"{state}"}}"#);
    ask(&mut controller, "PATCH", "/vm", &vm("Paused")).unwrap();
    assert_eq!(state(&mut controller), "Paused");
    put(&mut controller, "/snapshot/create", SAVE).unwrap();
    ask(&mut controller, "PATCH", "/vm", &vm("Resumed")).unwrap();
    assert_eq!(state(&mut controller), "Running");
    put(&mut controller, "/goldcrest/v1/stop", "{}").unwrap();
    let asked = [
        "start with 0 drives",
        "pause",
        "save to s",
        "resume",
        "stop",
    ];
    assert_eq!(controller.machine().asked, asked);
}

#[test]
fn what_belongs_before_the_start_is_refused_after_it() {
    let mut controller = started();
    for (path, body) in [
        ("/boot-source", KERNEL),
        ("/drives/a", DRIVE),
        ("/network-interfaces/e", CARD),
        ("/balloon", BALLOON),
        ("/machine-config", r#"{"vcpu_count":1,"mem_size_mib":64}"#),
        ("/vsock", r#"{"guest_cid":3,"uds_path":"v"}"#),
        ("/entropy", "{}"),
        ("/serial", "{}"),
        ("/metrics", r#"{"metrics_path":"m"}"#),
        ("/cpu-config", "{}"),
        ("/actions", START),
        ("/snapshot/load", LOAD),
    ] {
        let before = get(&mut controller, "/vm/config");
        let why = put(&mut controller, path, body).unwrap_err();
        assert!(
            why.ends_with("is not possible once the machine is started"),
            "{path}: {why}"
        );
        assert_eq!(get(&mut controller, "/vm/config"), before);
    }
}

#[test]
fn what_belongs_after_the_start_is_refused_before_it() {
    let mut controller = controller();
    for (method, path, body) in [
        ("PATCH", "/vm", r#"{"state":"Paused"}"#),
        ("PATCH", "/vm", r#"{"state":"Resumed"}"#),
        ("PATCH", "/drives/a", r#"{"drive_id":"a"}"#),
        ("PATCH", "/network-interfaces/e", r#"{"iface_id":"e"}"#),
        ("PATCH", "/balloon", r#"{"amount_mib":2}"#),
        (
            "PATCH",
            "/balloon/statistics",
            r#"{"stats_polling_interval_s":2}"#,
        ),
        ("GET", "/balloon/statistics", ""),
        ("PUT", "/snapshot/create", SAVE),
        ("PUT", "/actions", r#"{"action_type":"FlushMetrics"}"#),
        ("PUT", "/actions", r#"{"action_type":"SendCtrlAltDel"}"#),
    ] {
        let why = ask(&mut controller, method, path, body).unwrap_err();
        assert!(
            why.ends_with("is not possible before the machine is started"),
            "{path}: {why}"
        );
    }
    let why = put(&mut controller, "/actions", START).unwrap_err();
    assert!(why.contains("PUT /boot-source"), "{why}");
    assert!(controller.machine().asked.is_empty());
}

#[test]
fn devices_of_a_running_machine_change() {
    let mut controller = started();
    let bucket = r#"{"size":1000,"refill_time":100}"#;
    let drive =
        format!(r#"{{"drive_id":"a","path_on_host":"n","rate_limiter":{{"ops":{bucket}}}}}"#);
    ask(&mut controller, "PATCH", "/drives/a", &drive).unwrap();
    let card = format!(r#"{{"iface_id":"e","tx_rate_limiter":{{"bandwidth":{bucket}}}}}"#);
    ask(&mut controller, "PATCH", "/network-interfaces/e", &card).unwrap();
    ask(&mut controller, "PATCH", "/balloon", r#"{"amount_mib":64}"#).unwrap();
    assert_eq!(get(&mut controller, "/balloon")["amount_mib"], 64);
    let asked = &controller.machine().asked[1..];
    assert_eq!(asked[0], r#"drive 0: Some("10000ops/1000"), Some("n")"#);
    assert_eq!(asked[1], r#"card 0: None, Some("10000/1000")"#);
    assert_eq!(asked[2], "balloon: Some(67108864), None");
    let config = get(&mut controller, "/vm/config");
    assert_eq!(config["drives"][0]["path_on_host"], "n");
    // What is not possible changes nothing.
    controller.machine_mut().fails = true;
    let more = ask(
        &mut controller,
        "PATCH",
        "/drives/a",
        r#"{"drive_id":"a","path_on_host":"x"}"#,
    );
    assert_eq!(more, Err("it fails".into()));
    assert_eq!(get(&mut controller, "/vm/config"), config);
    for (path, body, why) in [
        (
            "/drives/b",
            r#"{"drive_id":"b"}"#,
            "there is no drive \"b\"",
        ),
        (
            "/network-interfaces/f",
            r#"{"iface_id":"f"}"#,
            "no network interface \"f\"",
        ),
        (
            "/balloon",
            r#"{"amount_mib":129}"#,
            "more than all memory, which is 128 MiB",
        ),
        (
            "/balloon/statistics",
            r#"{"stats_polling_interval_s":0}"#,
            "on or off",
        ),
    ] {
        let refused = ask(&mut controller, "PATCH", path, body).unwrap_err();
        assert!(refused.contains(why), "{path}: {refused}");
    }
}

#[test]
fn configurations_that_cannot_be_are_refused_with_the_reason() {
    let mut controller = controller();
    put(
        &mut controller,
        "/drives/root",
        r#"{"drive_id":"root","is_root_device":true,"path_on_host":"d"}"#,
    )
    .unwrap();
    put(
        &mut controller,
        "/network-interfaces/e",
        r#"{"iface_id":"e","host_dev_name":"t","guest_mac":"02:00:00:00:00:0A"}"#,
    )
    .unwrap();
    for (path, body, why) in [
        (
            "/machine-config",
            r#"{"vcpu_count":0,"mem_size_mib":64}"#,
            "not 1 to 32",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":33,"mem_size_mib":64}"#,
            "not 1 to 32",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":0}"#,
            "at least 1 MiB",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":18446744073709551615}"#,
            "too much",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":64,"smt":true}"#,
            "smt is not possible",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":63,"huge_pages":"2M"}"#,
            "multiple of 2 MiB",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":64,"cpu_template":"T2"}"#,
            "no cpu_template \"T2\"",
        ),
        (
            "/machine-config",
            r#"{"vcpu_count":1}"#,
            "missing field `mem_size_mib`",
        ),
        (
            "/boot-source",
            r#"{"kernel_image_path":"missing"}"#,
            "no such kernel",
        ),
        (
            "/drives/a",
            r#"{"drive_id":"a","is_root_device":false}"#,
            "path_on_host is missing",
        ),
        (
            "/drives/a",
            r#"{"drive_id":"a","is_root_device":false,"socket":"s"}"#,
            "vhost-user is not possible",
        ),
        (
            "/drives/a",
            r#"{"drive_id":"a","is_root_device":false,"path_on_host":"missing"}"#,
            "no such disk",
        ),
        (
            "/drives/a",
            r#"{"drive_id":"a","is_root_device":true,"path_on_host":"d"}"#,
            "\"root\" is the root device already",
        ),
        (
            "/drives/a",
            r#"{"drive_id":"a","is_root_device":true,"path_on_host":"d","partuuid":"a b"}"#,
            "hexadecimal",
        ),
        (
            "/network-interfaces/f",
            r#"{"iface_id":"f","host_dev_name":"t","guest_mac":"02:00:00:00:00:0a"}"#,
            "\"e\" has the same guest_mac",
        ),
        (
            "/network-interfaces/f",
            r#"{"iface_id":"f","host_dev_name":"sixteen-bytes-xx"}"#,
            "not 1 to 15",
        ),
        (
            "/network-interfaces/f",
            r#"{"iface_id":"f","host_dev_name":"t","guest_mac":"here"}"#,
            "six bytes",
        ),
        (
            "/vsock",
            r#"{"guest_cid":2,"uds_path":"v"}"#,
            "CID 2 is reserved",
        ),
        (
            "/balloon",
            r#"{"amount_mib":129,"deflate_on_oom":true}"#,
            "128 MiB",
        ),
        (
            "/balloon",
            r#"{"amount_mib":1,"deflate_on_oom":true,"free_page_hinting":true}"#,
            "free_page_reporting",
        ),
        (
            "/cpu-config",
            r#"{"kvm_capabilities":["171"]}"#,
            "\"171\" cannot be asked for",
        ),
        (
            "/cpu-config",
            r#"{"msr_modifiers":[{"addr":"0x10a","bitmap":"0b2"}]}"#,
            "\"0b2\" is no bitmap",
        ),
        (
            "/cpu-config",
            r#"{"reg_modifiers":[]}"#,
            "unknown field `reg_modifiers`",
        ),
        ("/logger", r#"{"level":"Loud"}"#, "\"Loud\" is no level"),
        ("/logger", "{}", "this program has no log"),
    ] {
        let before = get(&mut controller, "/vm/config");
        let refused = put(&mut controller, path, body).unwrap_err();
        assert!(refused.contains(why), "{path} {body}: {refused}");
        assert_eq!(get(&mut controller, "/vm/config"), before);
    }
}

/// A log that writes down how it is set.
#[derive(Clone, Default)]
struct Settings(Arc<Mutex<Vec<(String, Logger)>>>);

impl Logs for Settings {
    fn set(&mut self, id: &str, logger: &Logger) -> Result<(), Fault> {
        if logger.log_path == Some("/nowhere".into()) {
            return Err(Fault::new("cannot open the log /nowhere"));
        }
        let mut settings = self.0.lock().unwrap();
        settings.push((id.to_owned(), logger.clone()));
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }
}

#[test]
fn the_log_is_set_at_any_time_and_keeps_what_is_not_named() {
    let settings = Settings::default();
    let mut controller = controller().with_logs(Box::new(settings.clone()));
    put(
        &mut controller,
        "/logger",
        r#"{"level":"warn","show_level":true}"#,
    )
    .unwrap();
    let before = get(&mut controller, "/vm/config");
    let refused = put(&mut controller, "/logger", r#"{"log_path":"/nowhere"}"#);
    assert_eq!(refused, Err("cannot open the log /nowhere".to_owned()));
    assert_eq!(get(&mut controller, "/vm/config"), before);
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    put(&mut controller, "/actions", START).unwrap();
    put(
        &mut controller,
        "/logger",
        r#"{"module":"goldcrest_api","log_path":"log"}"#,
    )
    .unwrap();
    let config = get(&mut controller, "/vm/config");
    let wanted = json!({
        "log_path": "log", "level": "Warning", "show_level": true, "show_log_origin": null,
        "module": "goldcrest_api",
    });
    assert_eq!(config["logger"], wanted);
    let seen = settings.0.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].1.level, Some(Level::Warning));
    assert_eq!(seen[1].1.level, None);
}

#[test]
fn the_root_device_comes_first_and_a_drive_is_set_anew() {
    let mut controller = controller();
    put(&mut controller, "/drives/a", DRIVE).unwrap();
    put(
        &mut controller,
        "/drives/r",
        r#"{"drive_id":"r","is_root_device":true,"path_on_host":"r"}"#,
    )
    .unwrap();
    put(
        &mut controller,
        "/drives/a",
        r#"{"drive_id":"a","is_root_device":false,"path_on_host":"z"}"#,
    )
    .unwrap();
    let config = get(&mut controller, "/vm/config");
    let drives: Vec<_> = config["drives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drive| &drive["path_on_host"])
        .collect();
    assert_eq!(drives, ["r", "z"]);
}

#[test]
fn a_snapshot_is_loaded_into_a_machine_of_which_nothing_is_configured() {
    let mut fresh = controller();
    put(&mut fresh, "/snapshot/load", LOAD).unwrap();
    assert_eq!(get(&mut fresh, "/")["state"], "Paused");
    let mut configured = controller();
    put(&mut configured, "/boot-source", KERNEL).unwrap();
    let why = put(&mut configured, "/snapshot/load", LOAD).unwrap_err();
    assert!(why.ends_with("here /boot-source is"), "{why}");
    for body in [
        r#"{"snapshot_path":"s"}"#,
        r#"{"snapshot_path":"s","mem_file_path":"m","mem_backend":{"backend_type":"File","backend_path":"m"}}"#,
    ] {
        let why = put(&mut controller(), "/snapshot/load", body).unwrap_err();
        assert!(why.contains("not both and not none"), "{why}");
    }
    let why = put(&mut started(), "/snapshot/create", SAVE).unwrap_err();
    assert!(why.contains("pause it first"), "{why}");
}

#[test]
fn metadata_is_there_before_and_after_the_start_and_found_on_cards_that_are() {
    let mut controller = controller();
    assert_eq!(get(&mut controller, "/mmds"), serde_json::json!({}));
    let early = ask(&mut controller, "PATCH", "/mmds", "{}").unwrap_err();
    assert!(!early.is_empty());
    put(&mut controller, "/mmds", r#"{"a":{"b":"c"}}"#).unwrap();
    ask(&mut controller, "PATCH", "/mmds", r#"{"a":{"d":1}}"#).unwrap();
    let config = r#"{"network_interfaces":["e"],"version":"V2","ipv4_address":"169.254.170.2"}"#;
    let unknown = put(&mut controller, "/mmds/config", config).unwrap_err();
    assert!(unknown.contains("no network interface \"e\""), "{unknown}");
    put(&mut controller, "/network-interfaces/e", CARD).unwrap();
    let elsewhere = r#"{"network_interfaces":["e"],"ipv4_address":"10.0.0.1"}"#;
    let refused = put(&mut controller, "/mmds/config", elsewhere).unwrap_err();
    assert!(refused.contains("link-local"), "{refused}");
    put(&mut controller, "/mmds/config", config).unwrap();
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    put(&mut controller, "/actions", START).unwrap();
    assert_eq!(
        controller.machine().asked,
        ["start with 0 drives and metadata"]
    );
    let late = put(&mut controller, "/mmds/config", config).unwrap_err();
    assert!(late.ends_with("once the machine is started"), "{late}");
    ask(&mut controller, "PATCH", "/mmds", r#"{"a":{"b":null}}"#).unwrap();
    assert_eq!(
        get(&mut controller, "/mmds"),
        serde_json::json!({ "a": { "d": 1 } })
    );
    let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(60_000));
    let error = controller
        .request("PUT", "/mmds", long.as_bytes())
        .unwrap_err();
    assert_eq!(error.status(), 413);
}

#[test]
fn a_machine_that_cannot_be_started_can_be_configured_on() {
    let mut controller = controller();
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    controller.machine_mut().fails = true;
    assert_eq!(
        put(&mut controller, "/actions", START),
        Err("it fails".into())
    );
    controller.machine_mut().fails = false;
    put(&mut controller, "/boot-source", KERNEL).unwrap();
    put(&mut controller, "/actions", START).unwrap();
}

#[test]
fn a_configuration_that_was_read_configures_the_same_machine() {
    let mut first = controller();
    put(&mut first, "/boot-source", KERNEL).unwrap();
    put(&mut first, "/drives/a", DRIVE).unwrap();
    put(&mut first, "/network-interfaces/e", CARD).unwrap();
    put(&mut first, "/balloon", BALLOON).unwrap();
    put(&mut first, "/entropy", "{}").unwrap();
    put(&mut first, "/vsock", r#"{"guest_cid":3,"uds_path":"v"}"#).unwrap();
    let config = get(&mut first, "/vm/config");
    let mut second = controller();
    second
        .configure(serde_json::from_value(config.clone()).unwrap())
        .unwrap();
    assert_eq!(get(&mut second, "/vm/config"), config);
}

proptest! {
    /// Whatever comes, in whatever order: an answer or a reason, and the state is one of the three.
    #[test]
    fn any_requests_are_answered_or_refused(
        requests in prop::collection::vec((
            prop::sample::select(vec!["GET", "PUT", "PATCH", "POST"]),
            prop::sample::select(vec![
                "/", "/vm", "/vm/config", "/actions", "/boot-source", "/drives/a", "/machine-config",
                "/balloon", "/balloon/statistics", "/network-interfaces/e", "/snapshot/load",
                "/snapshot/create", "/vsock", "/entropy", "/goldcrest/v1/stop", "/x",
            ]),
            prop::sample::select(vec![
                "", "{}", KERNEL, DRIVE, CARD, BALLOON, START, SAVE, LOAD,
                r#"{"state":"Paused"}"#, r#"{"amount_mib":2}"#, "[", "null", "\u{0}",
            ]),
        ), 0..40),
    ) {
        let mut controller = controller();
        for (method, path, body) in requests {
            if let Err(why) = ask(&mut controller, method, path, body) {
                prop_assert!(!why.is_empty() && !why.contains('\n'), "{why}");
            }
        }
        let state = get(&mut controller, "/")["state"].clone();
        prop_assert!(["Not started", "Running", "Paused"].map(Value::from).contains(&state));
    }
}
