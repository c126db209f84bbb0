//! Says how long it takes until a program's guest, a shell at its prompt, answers: `answer COMMAND [ARGUMENT...]`.
//!
//! An empty line is written to the program's standard input at once, and again and again, since what comes before the guest
//! goes on may be lost. The shell answers by its prompt; then the program is ended. Prints `ANSWER n us`, from before the
//! program was started.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const LINE: &[u8] = b"\n";
const ANSWER: &[u8] = b"# ";
const INTERVAL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match measure(&words) {
        Ok(time) => {
            println!("ANSWER {} us", time.as_micros());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: &[String]) -> io::Result<Duration> {
    let [program, arguments @ ..] = words else {
        return Err(io::Error::other("which program?"));
    };
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let (answered, answer) = channel();
    thread::spawn(move || {
        let _ = answered.send(wait_for_answer(output).map(|()| begun.elapsed()));
    });
    thread::spawn(move || {
        // Until the program has ended, or does not read any more.
        while input.write_all(LINE).is_ok() {
            thread::sleep(INTERVAL);
        }
    });
    let answer = answer.recv_timeout(PATIENCE);
    child.kill()?;
    child.wait()?;
    answer.map_err(|_| io::Error::other("no answer"))?
}

fn wait_for_answer(mut output: impl Read) -> io::Result<()> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            let text = String::from_utf8_lossy(&seen).into_owned();
            return Err(io::Error::other(format!("it ended with {text:?}")));
        }
        seen.extend(&buffer[..count]);
        if seen.windows(ANSWER.len()).any(|window| window == ANSWER) {
            return Ok(());
        }
    }
}
