//! The control API of the tool: machines that programs configure, start, pause and end, and clients that mean ill.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::served::*;
use support::*;

#[test]
fn a_machine_is_configured_started_paused_resumed_and_ended() {
    if skip_without_kvm() {
        return;
    }
    let served = serve(&["--id", "one"]);
    let mode = fs::metadata(&served.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(served.state(), "Not started");
    let machine = json!({ "vcpu_count": 2, "mem_size_mib": 64 });
    served.put("/machine-config", &machine).unwrap();
    served.boot(&guests::chatty(), "");
    assert_eq!(served.state(), "Running");
    served.goes_on();

    served.ctl(&["pause"]).unwrap();
    assert_eq!(served.state(), "Paused");
    let printed = served.printed();
    sleep(Duration::from_millis(300));
    assert_eq!(served.printed(), printed, "it is paused");
    served.ctl(&["pause"]).unwrap();
    served.ctl(&["resume"]).unwrap();
    assert_eq!(served.state(), "Running");
    served.goes_on();

    let status = served.ctl(&["status"]).unwrap();
    assert_contains(&status, &["one: Running\n", "2 CPUs, 64 MiB\n", "up for "]);
    served.ctl(&["stop"]).unwrap();
    let ended = served.finish().soon().expect(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_guests_status_is_the_processes() {
    if skip_without_kvm() {
        return;
    }
    // It may have to be built, which takes time.
    let image = unikernel("exit-status");
    let served = serve(&[]);
    served.boot(&image, "7");
    assert_eq!(served.finish().soon().expect(7).stderr, "");
}

#[test]
fn a_file_describes_a_machine_with_and_without_an_api() {
    if skip_without_kvm() {
        return;
    }
    let config = |image: PathBuf, args: &str| {
        file(
            json!({
                "boot-source": { "kernel_image_path": image, "boot_args": args },
                "machine-config": { "vcpu_count": 1, "mem_size_mib": 32 },
                "drives": [],
            })
            .to_string(),
        )
    };
    let path = config(unikernel("exit-status"), "9");
    let mut tool = goldcrest();
    tool.args(["run", "--no-api", "--config-file"]).arg(&path);
    let running = Running::start(&mut tool);
    assert_eq!(running.finish().soon().expect(9).stderr, "");

    let image = guests::chatty();
    let path = config(image.to_path_buf(), "");
    let served = serve(&["--config-file", path.to_str().unwrap()]);
    served.goes_on();
    assert_eq!(served.state(), "Running");
    let again = served.ctl(&["start"]).unwrap_err();
    assert_eq!(
        again,
        "to start it again is not possible once the machine is started"
    );
    served.ctl(&["stop"]).unwrap();
    served.finish().soon().expect(0);

    for (text, why) in [
        ("{", "EOF while parsing"),
        (r#"{"x": 1, "y": null}"#, "unknown field `x`"),
        ("{}", "nothing to boot is configured"),
        (
            r#"{"machine-config": {"vcpu_count": 99, "mem_size_mib": 1}}"#,
            "vcpu_count is 99",
        ),
        (
            r#"{"boot-source": {"kernel_image_path": "/missing"}}"#,
            "/missing",
        ),
    ] {
        let path = file(text);
        let mut tool = goldcrest();
        tool.args(["run", "--no-api", "--config-file"]).arg(&path);
        let complaint = run(&mut tool).complaint(2);
        assert_contains(&complaint, &[why, "configuration"]);
    }
}

#[test]
fn what_cannot_be_started_is_said_and_something_else_can_be() {
    if skip_without_kvm() {
        return;
    }
    let image = unikernel("exit-status");
    let served = serve(&[]);
    let nothing = served.ctl(&["start"]).unwrap_err();
    assert_contains(&nothing, &["nothing to boot", "PUT /boot-source"]);
    let missing = json!({ "kernel_image_path": "/missing" });
    assert_contains(
        &served.put("/boot-source", &missing).unwrap_err(),
        &["/missing"],
    );
    // It is a file, but no kernel: that shows when it is loaded.
    let text = file("no kernel");
    served
        .put("/boot-source", &json!({ "kernel_image_path": &*text }))
        .unwrap();
    let refused = served.ctl(&["start"]).unwrap_err();
    assert!(refused.contains(text.to_str().unwrap()), "{refused}");
    assert_eq!(served.state(), "Not started");
    served.boot(&image, "3");
    served.finish().soon().expect(3);
}

#[test]
fn a_process_that_waits_ends_by_a_signal() {
    if skip_without_kvm() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let served = serve(&[]);
        served.running.signal(signal);
        let ended = served.finish().soon().expect(128 + signal as i32);
        assert!(!ended.was_killed());
    }
    let served = serve(&[]);
    served.ctl(&["stop"]).unwrap();
    served.finish().soon().expect(0);
}

#[test]
fn a_socket_belongs_to_one_process() {
    if skip_without_kvm() {
        return;
    }
    let served = serve(&[]);
    let complaint = run(&mut serving(&served.socket)).complaint(2);
    assert_contains(
        &complaint,
        &["cannot serve the API", "another process listens there"],
    );
    assert_eq!(served.state(), "Not started");
    // One that was killed leaves its socket, which the next one takes.
    served.running.signal(Signal::SIGKILL);
    let Served {
        running,
        socket,
        dir,
    } = served;
    drop(running);
    assert!(socket.exists());
    let running = Running::start(&mut serving(&socket));
    wait_until_served(&socket);
    running.signal(Signal::SIGTERM);
    running.finish().soon();
    drop(dir);
}

#[test]
fn clients_that_mean_ill_do_not_disturb_the_guest() {
    if skip_without_kvm() {
        return;
    }
    let served = serve(&[]);
    served.boot(&guests::chatty(), "");
    served.goes_on();
    let mut idle = Vec::new();
    for number in 0..1000 {
        let mut stream = UnixStream::connect(&served.socket).unwrap();
        let _ = stream.write_all(match number % 4 {
            0 => b"",
            1 => b"\0\xff\x80 / \r\n\r\n",
            2 => b"PUT /vsock HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            _ => b"PATCH /vm HTTP/1.1\r\nContent-Length: 20\r\n\r\n{",
        });
        idle.push(stream);
    }
    served.goes_on();
    assert_eq!(served.state(), "Running");
    for (path, body) in [
        ("/boot-source", json!({ "kernel_image_path": "/missing" })),
        (
            "/machine-config",
            json!({ "vcpu_count": 1, "mem_size_mib": 1 }),
        ),
        ("/actions", json!({ "action_type": "InstanceStart" })),
        (
            "/snapshot/load",
            json!({ "snapshot_path": "a", "mem_file_path": "b" }),
        ),
        (
            "/snapshot/create",
            json!({ "snapshot_path": "/a", "mem_file_path": "/b" }),
        ),
        (
            "/balloon",
            json!({ "amount_mib": 4_000_000_000_u32, "deflate_on_oom": true }),
        ),
        ("/nothing", json!({})),
    ] {
        assert!(served.put(path, &body).is_err(), "{path}");
    }
    assert_eq!(served.state(), "Running");
    served.goes_on();
    drop(idle);
    served.ctl(&["stop"]).unwrap();
    served.finish().soon().expect(0);
}

#[test]
fn the_api_has_a_thread_when_it_is_asked_for_and_not_otherwise() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    let mut running = Running::start(&mut boot(&image));
    running.wait_for(">");
    assert!(!running.threads().contains(&"api\n".into()));
    drop(running);
    let served = serve(&[]);
    let begun = Instant::now();
    // Its socket is there before it is.
    while !served.running.threads().contains(&"api\n".into()) {
        assert!(begun.elapsed() < SOON, "there is no such thread");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn devices_are_configured_and_changed() {
    if skip_without_kvm() {
        return;
    }
    let served = serve(&[]);
    let disk = tempfile::NamedTempFile::new_in(served.dir.path()).unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let other = tempfile::NamedTempFile::new_in(served.dir.path()).unwrap();
    other.as_file().set_len(2 << 20).unwrap();
    let drive = json!({
        "drive_id": "data", "is_root_device": false, "path_on_host": disk.path(),
        "rate_limiter": { "bandwidth": { "size": 1048576, "refill_time": 1000 } },
    });
    served.put("/drives/data", &drive).unwrap();
    let card = json!({ "iface_id": "eth0", "host_dev_name": "goldcrest:user" });
    served.put("/network-interfaces/eth0", &card).unwrap();
    let sockets = served.dir.path().join("vsock");
    served
        .put("/vsock", &json!({ "guest_cid": 3, "uds_path": sockets }))
        .unwrap();
    served.put("/entropy", &json!({})).unwrap();
    let balloon = json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1 });
    served.put("/balloon", &balloon).unwrap();
    let metrics = served.dir.path().join("metrics");
    served
        .put("/metrics", &json!({ "metrics_path": metrics }))
        .unwrap();
    let log = served.dir.path().join("log");
    served
        .put("/logger", &json!({ "log_path": log, "level": "info" }))
        .unwrap();
    let serial = served.dir.path().join("serial");
    served
        .put("/serial", &json!({ "serial_out_path": serial }))
        .unwrap();
    served.boot(&guests::spinning(), "");
    assert!(sockets.exists());

    let patch = |path: &str, body: Value| served.ctl(&["patch", path, &body.to_string()]);
    let more = json!({ "drive_id": "data", "rate_limiter": { "ops": { "size": 10, "refill_time": 100 } } });
    patch("/drives/data", more).unwrap();
    patch(
        "/drives/data",
        json!({ "drive_id": "data", "path_on_host": other.path() }),
    )
    .unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    // The first is free again.
    patch(
        "/drives/data",
        json!({ "drive_id": "data", "path_on_host": disk.path() }),
    )
    .unwrap();
    disk.as_file().set_len(4 << 20).unwrap();
    patch(
        "/drives/data",
        json!({ "drive_id": "data", "path_on_host": disk.path() }),
    )
    .unwrap();
    disk.as_file().set_len(1000).unwrap();
    let odd = patch(
        "/drives/data",
        json!({ "drive_id": "data", "path_on_host": disk.path() }),
    );
    assert_contains(&odd.unwrap_err(), &["size 1000 is not a multiple of 512"]);
    let rate = json!({ "iface_id": "eth0", "rx_rate_limiter": { "ops": { "size": 1, "refill_time": 1 } } });
    patch("/network-interfaces/eth0", rate).unwrap();
    served.ctl(&["balloon", "16"]).unwrap();
    patch(
        "/balloon/statistics",
        json!({ "stats_polling_interval_s": 2 }),
    )
    .unwrap();
    let statistics = served.ctl(&["get", "/balloon/statistics"]).unwrap();
    assert_contains(&statistics, &[r#""target_mib":16"#, r#""actual_mib":0"#]);
    served
        .put("/actions", &json!({ "action_type": "FlushMetrics" }))
        .unwrap();
    assert_contains(
        &fs::read_to_string(&metrics).unwrap(),
        &["put_api_requests", "uptime_ms"],
    );
    assert_contains(
        &fs::read_to_string(&log).unwrap(),
        &["method=PUT path=/actions status=204", "is not a multiple"],
    );
    assert_eq!(fs::read_to_string(&serial).unwrap(), ">");
    let config: Value = serde_json::from_str(&served.ctl(&["get", "/vm/config"]).unwrap()).unwrap();
    assert_eq!(config["balloon"]["amount_mib"], 16);
    assert_eq!(config["drives"][0]["rate_limiter"]["ops"]["size"], 10);
    served.ctl(&["stop"]).unwrap();
    served.finish().soon().expect(0);
}

#[test]
fn a_machine_is_saved_and_goes_on_in_another_process() {
    if skip_without_kvm() {
        return;
    }
    let saved = tempfile::tempdir().unwrap();
    let first = serve(&[]);
    let machine = json!({ "vcpu_count": 1, "mem_size_mib": 16 });
    first.put("/machine-config", &machine).unwrap();
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let drive = json!({ "drive_id": "data", "is_root_device": false, "path_on_host": disk.path() });
    first.put("/drives/data", &drive).unwrap();
    first
        .put(
            "/entropy",
            &json!({ "rate_limiter": { "ops": { "size": 5, "refill_time": 100 } } }),
        )
        .unwrap();
    let card = json!({ "iface_id": "eth0", "host_dev_name": "goldcrest:user" });
    first.put("/network-interfaces/eth0", &card).unwrap();
    let metadata = json!({
        "network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.7.7",
    });
    first.put("/mmds/config", &metadata).unwrap();
    first.put("/mmds", &json!({ "secret": "s" })).unwrap();
    first.boot(&guests::chatty(), "");
    first.goes_on();
    let rate = json!({ "drive_id": "data", "rate_limiter": { "ops": { "size": 50, "refill_time": 1000 } } });
    first
        .ctl(&["patch", "/drives/data", &rate.to_string()])
        .unwrap();
    let directory = saved.path().join("frozen");
    let directory = directory.to_str().unwrap();
    let running = first.ctl(&["snapshot", directory]).unwrap_err();
    assert_contains(&running, &["pause it first"]);
    first.ctl(&["pause"]).unwrap();
    let mut tool = goldcrest();
    tool.args(["snapshot", "create", "-s"])
        .arg(&first.socket)
        .arg(directory);
    run(&mut tool).expect(0);
    // The one that was saved goes on as well.
    first.ctl(&["resume"]).unwrap();
    first.goes_on();
    first.ctl(&["stop"]).unwrap();
    first.finish().expect(0);

    let second = serve(&[]);
    let load = |backend: &str, memory: &str| {
        json!({
            "snapshot_path": format!("{directory}/state"),
            "mem_backend": { "backend_type": backend, "backend_path": format!("{directory}/{memory}") },
        })
    };
    for (request, why) in [
        (load("Uffd", "memory"), "page server"),
        (load("File", "missing"), "missing"),
        (load("File", "state"), "state"),
    ] {
        let refused = second.put("/snapshot/load", &request).unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(second.state(), "Not started");
    }
    second
        .put("/snapshot/load", &load("File", "memory"))
        .unwrap();
    assert_eq!(second.state(), "Paused");
    let printed = second.printed();
    sleep(Duration::from_millis(200));
    assert_eq!(second.printed(), printed);
    second.ctl(&["resume"]).unwrap();
    second.goes_on();
    assert_eq!(second.state(), "Running");
    let config = second.ctl(&["get", "/vm/config"]).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["machine-config"]["mem_size_mib"], 16);
    assert_eq!(config["drives"][0]["drive_id"], "data");
    assert_eq!(
        config["drives"][0]["rate_limiter"]["ops"],
        json!({ "size": 50, "one_time_burst": null, "refill_time": 1000 })
    );
    assert_eq!(config["entropy"]["rate_limiter"]["ops"]["size"], 5);
    // The metadata service is as it was, and has nothing to tell until it is told.
    assert_eq!(
        config["mmds-config"],
        json!({
            "version": "V2", "network_interfaces": ["eth0"], "ipv4_address": "169.254.7.7",
            "imds_compat": false,
        })
    );
    assert_eq!(second.ctl(&["get", "/mmds"]).unwrap().trim(), "{}");
    second.put("/mmds", &json!({ "a": "b" })).unwrap();
    second
        .ctl(&["patch", "/drives/data", &rate.to_string()])
        .unwrap();
    assert!(
        second
            .put("/snapshot/load", &load("File", "memory"))
            .is_err()
    );
    second.ctl(&["stop"]).unwrap();
    second.finish().expect(0);
}

#[test]
fn a_template_of_processors_is_applied_or_refused_by_name() {
    if skip_without_kvm() {
        return;
    }
    let served = serve(&[]);
    let image = guests::chatty();
    served
        .put("/boot-source", &json!({ "kernel_image_path": &*image }))
        .unwrap();
    let template = |leaf: &str, msr: &str| {
        json!({
            "cpuid_modifiers": [{ "leaf": leaf, "subleaf": "0x0", "flags": 0,
                "modifiers": [{ "register": "ecx", "bitmap": "0bx0" }] }],
            "msr_modifiers": [{ "addr": msr, "bitmap": "0b0xxx" }],
        })
    };
    for (leaf, msr, why) in [
        ("0x40ff0000", "0x174", "no CPUID leaf 0x40ff0000"),
        ("0x1", "0x12345678", "0x12345678"),
    ] {
        served.put("/cpu-config", &template(leaf, msr)).unwrap();
        let refused = served.ctl(&["start"]).unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(served.state(), "Not started");
    }
    served
        .put("/cpu-config", &template("0x1", "0x174"))
        .unwrap();
    served.ctl(&["start"]).unwrap();
    served.goes_on();
    served.ctl(&["stop"]).unwrap();
    served.finish().expect(0);
}

#[test]
fn ctrl_alt_del_reaches_a_guest_that_reads_its_keyboard() {
    if skip_without_kvm() {
        return;
    }
    let mut served = serve(&[]);
    let press = |served: &Served| {
        let action = json!({ "action_type": "SendCtrlAltDel" });
        served.put("/actions", &action)
    };
    assert!(press(&served).is_err(), "it is not started");
    served.boot(&guests::typist(), "");
    served.running.wait_for(">");
    press(&served).unwrap();
    // Scan codes, of which the guest prints seven bits each: pressed, then released.
    let keys = "\x14\x11\x60\x71\x60\x70\x71\x70\x11\x70\x14";
    served.running.wait_for(keys);
    press(&served).unwrap();
    served.running.wait_for(&format!("{keys}{keys}"));
    served.ctl(&["stop"]).unwrap();
    served.finish().expect(0);
}

#[test]
fn what_has_changed_is_saved_and_loaded_with_what_it_was_saved_after() {
    if skip_without_kvm() {
        return;
    }
    let saved = tempfile::tempdir().unwrap();
    let directory = |name: &str| saved.path().join(name).to_str().unwrap().to_owned();
    let create = |machine: &Served, kind: &str, name: &str| {
        machine.ctl(&["pause"]).unwrap();
        std::fs::create_dir_all(directory(name)).unwrap();
        let request = json!({
            "snapshot_type": kind,
            "snapshot_path": directory(&format!("{name}/state")),
            "mem_file_path": directory(&format!("{name}/memory")),
        });
        let created = machine.put("/snapshot/create", &request);
        machine.ctl(&["resume"]).unwrap();
        machine.goes_on();
        created
    };
    let first = serve(&[]);
    let machine = json!({ "vcpu_count": 1, "mem_size_mib": 16, "track_dirty_pages": true });
    first.put("/machine-config", &machine).unwrap();
    first.boot(&guests::chatty(), "");
    first.goes_on();
    let early = create(&first, "Diff", "early").unwrap_err();
    assert_contains(&early, &["make a full one"]);
    create(&first, "Full", "full").unwrap();
    create(&first, "Diff", "one").unwrap();
    let replaced = create(&first, "Diff", "full").unwrap_err();
    assert_contains(&replaced, &["write that elsewhere"]);
    first.ctl(&["stop"]).unwrap();
    first.finish().expect(0);

    let second = serve(&[]);
    let request = json!({
        "snapshot_path": directory("one/state"),
        "mem_backend": { "backend_type": "File", "backend_path": directory("one/memory") },
        "enable_diff_snapshots": true,
        "resume_vm": true,
    });
    second.put("/snapshot/load", &request).unwrap();
    second.goes_on();
    second.ctl(&["pause"]).unwrap();
    let mut tool = goldcrest();
    tool.args(["snapshot", "create", "--diff", "-s"])
        .arg(&second.socket)
        .arg(directory("two"));
    run(&mut tool).expect(0);
    second.ctl(&["stop"]).unwrap();
    second.finish().expect(0);
    let verified = run(goldcrest().args(["snapshot", "verify", &directory("two")]));
    assert_contains(&verified.stdout, &["ok, ", "with 2 snapshots before it"]);
}

#[test]
fn a_guest_finds_the_metadata_that_it_is_given() {
    if skip_without_kvm() {
        return;
    }
    let image = unikernel("metadata");
    let served = serve(&[]);
    let card = json!({ "iface_id": "eth0", "host_dev_name": "goldcrest:user" });
    served.put("/network-interfaces/eth0", &card).unwrap();
    let config = json!({ "network_interfaces": ["eth0"], "version": "V2" });
    served.put("/mmds/config", &config).unwrap();
    served
        .put("/mmds", &json!({ "latest": { "name": "wren" } }))
        .unwrap();
    let change = json!({ "latest": { "name": "dipper" } }).to_string();
    served.ctl(&["patch", "/mmds", &change]).unwrap();
    assert_eq!(
        served.ctl(&["get", "/mmds"]).unwrap(),
        format!("{change}\n")
    );
    served.boot(&image, "path=/latest/name token=60");
    let ended = served.finish().expect(0);
    assert_eq!(ended.stdout, "dipper\n");
}

#[test]
fn an_output_that_nobody_reads_keeps_no_request_for_ever() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = Running::start_with_stdout(serving(&socket).stdout(writer));
    wait_until_served(&socket);
    let served = Served {
        running,
        socket,
        dir,
    };
    served.boot(&guests::chatty(), "");
    // The pipe is full soon: then the guest's access waits, and so would who pauses it.
    sleep(Duration::from_millis(1500));
    let mut tool = goldcrest();
    tool.args(["ctl", "-s"]).arg(&served.socket).arg("pause");
    let paused = run(&mut tool);
    assert!(paused.took < Duration::from_secs(30), "{paused:?}");
    if paused.code() != 0 {
        assert!(
            paused.stderr.contains("a reader of its output"),
            "{paused:?}"
        );
        assert_eq!(served.state(), "Running");
    }
    served.ctl(&["stop"]).unwrap();
    let _ = reader.read(&mut [0; 16]);
    served.finish().expect(0);
}

#[test]
fn a_machine_that_programs_describe_is_not_described_by_options_too() {
    for options in [
        &["--api-sock", "s", "--memory", "1G"][..],
        &["--api-sock", "s", "vmlinuz"],
        &["--config-file", "c", "--cpus", "2"],
        &["--no-api"],
        &["--config-file", "c", "--no-api", "--api-sock", "s"],
    ] {
        run(goldcrest().arg("run").args(options)).usage_error();
    }
}

/// The API has one thread: what waits there keeps everybody waiting.
#[test]
fn named_pipes_are_not_waited_for() {
    if skip_without_kvm() {
        return;
    }
    let (served, echo) = (serve(&[]), guests::echo());
    let pipe = served.dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let drive = json!({
        "drive_id": "data", "is_root_device": false, "is_read_only": true, "path_on_host": pipe,
    });
    let refused = served.put("/drives/data", &drive).unwrap_err();
    assert_contains(
        &refused,
        &["pipe is neither a regular file nor a block device"],
    );
    let kernel = json!({ "kernel_image_path": pipe });
    let refused = served.put("/boot-source", &kernel).unwrap_err();
    assert_contains(&refused, &["not a regular file but a named pipe"]);
    served
        .put("/serial", &json!({ "serial_out_path": pipe }))
        .unwrap();
    served
        .put("/boot-source", &json!({ "kernel_image_path": &*echo }))
        .unwrap();
    let refused = served.ctl(&["start"]).unwrap_err();
    assert_contains(
        &refused,
        &["for the serial port", "No such device or address"],
    );
}
