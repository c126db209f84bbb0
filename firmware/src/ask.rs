//! The menu on the machine's serial port.

use alloc::string::String;

use goldcrest_firmware::entry::Timeout;
use goldcrest_firmware::{Menu, Survey};
use goldcrest_guest::{alarm, console, print, ring0, time};

/// How long to wait between two looks at the serial port, in nanoseconds.
const PAUSE: u64 = 20_000_000;
/// Looks at the serial port at a time: a host begins to read what is typed when it sees enough of them.
const LOOKS: u32 = 16;

/// Which entry to start: the default one, unless there is a menu and a person says otherwise.
pub(crate) fn ask(survey: &Survey, default: usize, asked: Option<Timeout>) -> usize {
    let timeout = survey.timeout(asked);
    if timeout == Timeout::None {
        return default;
    }
    let Some(mut menu) = Menu::new(&survey.entries, default, timeout, time::now_ns()) else {
        return default;
    };
    show(&menu.draw());
    loop {
        for _ in 0..LOOKS {
            let Some(byte) = console::read_byte() else {
                continue;
            };
            match menu.key(byte) {
                Ok(chosen) => return chosen,
                Err(text) => show(&text),
            }
        }
        match menu.tick(time::now_ns()) {
            Ok(chosen) => return chosen,
            Err(Some(text)) => show(&text),
            Err(None) => {}
        }
        pause();
    }
}

fn show(text: &String) {
    print!("{text}");
    console::flush();
}

/// Lets the processor rest for a moment.
fn pause() {
    let until = time::now_ns().saturating_add(PAUSE);
    ring0::disable_interrupts();
    while alarm::set(until) {
        ring0::wait_for_interrupt();
    }
}
