//! Texts: loader entries, requests to the control API, and to the metadata service.

use crate::Seeds;

/// Loader entries, as kernel-install and people write them.
pub(crate) fn text_seeds() -> Seeds {
    let entry = "a-6.1.0-39+3-1.conf\ntitle Debian\nversion 6.1.0-39\nmachine-id 0123\nsort-key debian\noptions quiet\n\
        linux /a/linux\ninitrd /a/initrd\n";
    let other = "b-6.1.0~rc1^2.conf\ntitle Debian\nversion 6.1.0-40\nsort-key debian\nlinux /b\ntimeout 3\ndefault a-*[0-9]?\n";
    let third = "c.conf\nlinux c\nPRETTY_NAME=\"a \\\"b\"\nID='x'\ntimeout menu-force\n";
    let keys = "j\u{1b}[B\u{1b}[A\r";
    let text = [entry, other, third, keys].join("\0");
    vec![("loader_entries", text.into_bytes())]
}

/// Requests to the control API: each path, in orders that are right and wrong.
pub(crate) fn api_seeds() -> Seeds {
    let configured = r#"PUT /machine-config {"vcpu_count":2,"mem_size_mib":64,"huge_pages":"2M","track_dirty_pages":true}
PATCH /machine-config {"mem_size_mib":128}
PUT /boot-source {"kernel_image_path":"k","initrd_path":"i","boot_args":"a"}
PUT /drives/r {"drive_id":"r","is_root_device":true,"path_on_host":"d","is_read_only":true,"partuuid":"0eaa-01","rate_limiter":{"bandwidth":{"size":9,"one_time_burst":5,"refill_time":100},"ops":{"size":1,"refill_time":1}}}
PUT /network-interfaces/e {"iface_id":"e","host_dev_name":"goldcrest:user,fwd=tcp:1:2","guest_mac":"02:00:00:00:00:01","mtu":1500,"rx_rate_limiter":{},"tx_rate_limiter":{"ops":{"size":1,"refill_time":1}}}
PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap0"}
PUT /vsock {"guest_cid":3,"uds_path":"v"}
PUT /balloon {"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1,"free_page_reporting":true}
PUT /entropy {"rate_limiter":{"ops":{"size":5,"refill_time":9}}}
PUT /serial {"serial_out_path":"s"}
PUT /mmds/config {"version":"V2","network_interfaces":["e"],"ipv4_address":"169.254.7.7","imds_compat":true}
PUT /mmds {"a":{"b":["c",1,null]}}
PATCH /mmds {"a":{"b":null}}
GET /mmds
GET /vm/config
"#;
    let running = r#"PUT /actions {"action_type":"InstanceStart"}
PATCH /vm {"state":"Paused"}
PUT /snapshot/create {"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}
PATCH /vm {"state":"Resumed"}
PATCH /drives/r {"drive_id":"r","path_on_host":"e","rate_limiter":{"bandwidth":{"size":0,"refill_time":0}}}
PATCH /network-interfaces/e {"iface_id":"e","rx_rate_limiter":{"ops":{"size":2,"refill_time":2}}}
PATCH /balloon {"amount_mib":3}
PATCH /balloon/statistics {"stats_polling_interval_s":2}
GET /balloon/statistics
GET /balloon
PUT /actions {"action_type":"SendCtrlAltDel"}
PUT /actions {"action_type":"FlushMetrics"}
GET /goldcrest/v1/status
GET /goldcrest/v1/metrics
GET /goldcrest/v1/metrics/json
GET /goldcrest/v1/openapi
GET /version
PUT /goldcrest/v1/stop {}
"#;
    let loaded = r#"PUT /mmds {"a":1}
PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"},"resume_vm":true,"track_dirty_pages":true,"network_overrides":[{"iface_id":"e","host_dev_name":"tap1"}],"vsock_override":{"uds_path":"w"},"clock_realtime":true}
PUT /snapshot/load {"snapshot_path":"s","mem_file_path":"m","mem_backend":{"backend_type":"Uffd","backend_path":"m"}}
PUT /logger {"log_path":"l","level":"Debug","show_level":true,"show_log_origin":true,"module":"a"}
PUT /cpu-config {"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[]}]}
GET /
"#;
    let seeds = [
        configured.to_owned(),
        [configured, running].concat(),
        [running, configured, running].concat(),
        loaded.to_owned(),
        [loaded, running].concat(),
    ];
    seeds.map(|seed| ("api", seed.into_bytes())).to_vec()
}
