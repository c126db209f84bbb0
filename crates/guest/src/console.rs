//! Printing: [`print!`](crate::print) and [`println!`](crate::println).
//!
//! Every line costs one exit to the monitor, however many pieces it is formatted from. What does not end in a newline
//! is held back until one follows, 1 KiB has come together, or the machine ends.

use core::fmt::{self, Write};

use crate::exclusive::Exclusive;
use crate::line::LineBuffer;
use crate::machine;

static BUFFER: Exclusive<LineBuffer> = Exclusive::new(LineBuffer::new());

/// Prints to the console, without a newline.
///
/// ```no_run
/// goldcrest_guest::print!("{} of {}\n", 1, 2);
/// ```
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(::core::format_args!($($argument)*)) };
}

/// Prints a line to the console: one exit to the monitor.
///
/// ```no_run
/// goldcrest_guest::println!("ready after {} ns", 1234);
/// ```
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($($argument)*)))
    };
}

/// What the macros call. May be called from a trap handler: text then goes ahead of what the interrupted code prints.
pub fn print(text: fmt::Arguments<'_>) {
    let buffered = BUFFER.try_with(|buffer| {
        // Formatting fails only if an argument's own implementation does; what it wrote until then is printed.
        let _ = Buffered(buffer).write_fmt(text);
        buffer.flush_lines(&mut machine::send);
    });
    if buffered.is_none() {
        let mut own = LineBuffer::new();
        let _ = Buffered(&mut own).write_fmt(text);
        own.flush(&mut machine::send);
    }
}

/// Sends what is held back.
pub fn flush() {
    BUFFER.try_with(|buffer| buffer.flush(&mut machine::send));
}

/// A byte that was typed, if there is one: looked for at the first serial port, which costs an exit to the monitor.
///
/// A host may begin to read what is typed only when it sees that somebody waits for it: Goldcrest's does at the
/// sixteenth time that nothing was printed in between.
pub fn read_byte() -> Option<u8> {
    machine::receive()
}

struct Buffered<'a>(&'a mut LineBuffer);

impl Write for Buffered<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push(text.as_bytes(), &mut machine::send);
        Ok(())
    }
}
