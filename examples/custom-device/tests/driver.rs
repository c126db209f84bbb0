//! A unikernel drives the device on the machine's real KVM.

#[path = "../../minimal-monitor/tests/unikernel/mod.rs"]
mod unikernel;

#[test]
fn guest_and_host_agree_on_what_the_device_did() {
    let monitor = env!("CARGO_BIN_EXE_custom-device");
    let Some((stdout, status)) = unikernel::run(monitor, "custom-device", "") else {
        return;
    };
    assert_eq!(
        stdout,
        "The adder says 124500, and so do I.\n\
         It refuses what is not memory, and what is too much.\n\
         On the host: the adder added up 1000 bytes; the guest ended with status 0.\n"
    );
    assert_eq!(status, Some(0));
}
