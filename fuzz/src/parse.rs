//! What people type: every parser takes any text, and what it has parsed it writes so that it parses the same.

use goldcrest_boot::Protocol;
use goldcrest_memory::parse_size;
use goldcrest_monitor::{ConsoleConfig, DiskConfig};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_usernet::{Forward, Rule};

/// Runs the target: the first byte chooses the parser, the rest is the text.
pub fn run(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let parsers = [size, protocol, rate, disk, console, rule, forward];
    parsers[usize::from(*choice) % parsers.len()](&text);
}

fn size(text: &str) {
    match parse_size(text) {
        Ok(size) => assert_eq!(parse_size(&size.to_string()).ok(), Some(size)),
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}

fn protocol(text: &str) {
    match text.parse::<Protocol>() {
        Ok(protocol) => assert_eq!(protocol.to_string().parse(), Ok(protocol)),
        Err(error) => assert!(!error.is_empty() && !error.contains('\n')),
    }
}

fn rate(text: &str) {
    match text.parse::<RateConfig>() {
        Ok(rate) => assert_eq!(rate.to_string().parse(), Ok(rate)),
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}

fn disk(text: &str) {
    let Ok(disk) = text.parse::<DiskConfig>() else {
        return;
    };
    // A comma is written twice where it is a part of a path or of a name.
    let mut again = disk.path.display().to_string().replace(',', ",,");
    for (set, word) in [(disk.read_only, "ro"), (disk.direct, "direct")] {
        if set {
            again = format!("{again},{word}");
        }
    }
    again = format!("{again},id={}", disk.id.replace(',', ",,"));
    if let Some(rate) = disk.rate {
        again = format!("{again},rate={rate}");
    }
    assert_eq!(again.parse(), Ok(disk), "{again:?}");
}

fn console(text: &str) {
    let again = match text.parse::<ConsoleConfig>() {
        Ok(ConsoleConfig::Stdio) => "stdio".into(),
        Ok(ConsoleConfig::Pty) => "pty".into(),
        Ok(ConsoleConfig::File(path)) => format!("file:{}", path.display()),
        Ok(ConsoleConfig::Socket(path)) => format!("socket:{}", path.display()),
        Err(_) => return,
    };
    assert_eq!(again, text);
}

fn rule(text: &str) {
    match text.parse::<Rule>() {
        Ok(rule) => assert_eq!(rule.to_string().parse::<Rule>().ok(), Some(rule)),
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}

fn forward(text: &str) {
    match text.parse::<Forward>() {
        Ok(forward) => assert_eq!(forward.to_string().parse::<Forward>().ok(), Some(forward)),
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}
