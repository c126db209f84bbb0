//! What people type: every parser takes any text, and what it has parsed it writes so that it parses the same.

use goldcrest_boot::Protocol;
use goldcrest_memory::parse_size;

/// Runs the target: the first byte chooses the parser, the rest is the text.
pub fn run(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let parsers = [size, protocol];
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
        Ok(protocol) => assert_eq!(protocol.to_string(), text),
        Err(error) => assert!(error.contains(&format!("{text:?}"))),
    }
}
