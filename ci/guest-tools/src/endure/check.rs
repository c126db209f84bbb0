//! Whether what was printed can be.

use std::io::{self, BufRead};
use std::process::ExitCode;

use crate::worker::{FACTOR, MODULUS, seed};

/// What a line says.
struct Line {
    monotonic: u64,
    back: u64,
    wrong: u64,
    places: Vec<(u64, u64)>,
}

/// Reads lines from standard input, which may have others between. Prints what is wrong, or how far it came.
pub fn check() -> ExitCode {
    let mut last: Option<Line> = None;
    let mut count = 0;
    for text in io::stdin().lock().split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&text);
        let whole = text.rfind("ENDURE monotonic=").and_then(|begin| {
            let line = &text[begin..];
            line.find(" ;").map(|end| &line[..end])
        });
        let Some(whole) = whole else {
            continue;
        };
        let Some(line) = parse(whole) else {
            println!("CHECKED a line is not whole: {}", text.trim());
            return ExitCode::FAILURE;
        };
        if let Some(problem) = problem(&line, last.as_ref()) {
            println!("CHECKED {problem}: {}", text.trim());
            return ExitCode::FAILURE;
        }
        count += 1;
        last = Some(line);
    }
    let Some(last) = last else {
        println!("CHECKED there is nothing");
        return ExitCode::FAILURE;
    };
    let steps: Vec<_> = last
        .places
        .iter()
        .map(|place| place.0.to_string())
        .collect();
    println!("CHECKED {count} lines ok, steps {}", steps.join(" and "));
    ExitCode::SUCCESS
}

fn parse(text: &str) -> Option<Line> {
    let words: Vec<_> = text.split_whitespace().collect();
    let number = |name: &str| {
        let mut values = words.iter().filter_map(|word| word.strip_prefix(name));
        values.next()?.strip_prefix('=')?.parse::<u64>().ok()
    };
    let places = words.iter().filter_map(|word| word.split_once(':'));
    let places = places.map(|(steps, value)| Some((steps.parse().ok()?, value.parse().ok()?)));
    Some(Line {
        monotonic: number("monotonic")?,
        back: number("back")?,
        wrong: number("wrong")?,
        places: places.collect::<Option<_>>()?,
    })
}

fn problem(line: &Line, last: Option<&Line>) -> Option<String> {
    if line.places.is_empty() {
        return Some("no CPU computes".into());
    }
    if line.wrong != 0 || line.back != 0 {
        return Some("memory or the clock is wrong".into());
    }
    for (cpu, &(steps, value)) in line.places.iter().enumerate() {
        if value != seed(cpu) * power(steps) % MODULUS {
            return Some(format!("CPU {cpu} has computed {value} in {steps} steps"));
        }
    }
    let last = last?;
    let earlier = |(now, before): (&(u64, u64), &(u64, u64))| now.0 < before.0;
    if line.monotonic < last.monotonic
        || line.places.len() != last.places.len()
        || line.places.iter().zip(&last.places).any(earlier)
    {
        return Some("it is before the line before".into());
    }
    None
}

/// The factor by which a number changes in so many steps.
fn power(steps: u64) -> u64 {
    let (mut result, mut square, mut rest) = (1, FACTOR, steps);
    while rest != 0 {
        if rest & 1 != 0 {
            result = result * square % MODULUS;
        }
        square = square * square % MODULUS;
        rest >>= 1;
    }
    result
}
