//! `--timeline`: where start-up went, for people, programs and pictures.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use goldcrest_monitor::{Stage, Timeline};
use nix::time::{ClockId, clock_gettime};

use crate::args::TimelineFormat;
use crate::failure::Failure;
use crate::say;

/// Stages with the time since the process started.
type Marks = [(Stage, Duration)];

/// Loading a program takes less than this. More, and the process was another program before, as under `cargo run`,
/// whose time it counts too: then the timeline starts in `main`.
const LONGEST_LOAD: Duration = Duration::from_millis(10);

/// When the process reached `main`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MainReached {
    at: Instant,
    /// The processor time that it had used by then.
    used: Duration,
}

impl MainReached {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            used: clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
                .map_or(Duration::ZERO, Duration::from),
        }
    }
}

/// Starts a timeline at the start of the process.
///
/// The kernel does not tell when that was; the processor time that the process had used when it reached `main` comes
/// close, as nothing in a program's loading waits.
pub(crate) fn begin(main_reached: MainReached) -> Timeline {
    let MainReached { at, used } = main_reached;
    let before_main = if used < LONGEST_LOAD {
        used
    } else {
        Duration::ZERO
    };
    let start = at.checked_sub(before_main).unwrap_or(at);
    let timeline = Timeline::new(start);
    timeline.mark_at(Stage::ProcessStart, start);
    timeline.mark_at(Stage::Main, at);
    timeline
}

/// One line: how long until the guest's first instruction, its first output, and its end.
pub(crate) fn summary(marks: &Marks) -> String {
    let at = |wanted| marks.iter().find(|(stage, _)| *stage == wanted);
    let mut line = String::from("goldcrest:");
    for (stage, what) in [
        (Stage::Main, "started after"),
        (Stage::KvmOpened, "KVM open at"),
        (Stage::VcpuReady, "machine ready at"),
        (Stage::FirstInstruction, "first instruction at"),
        (Stage::GuestMain, "guest main at"),
        (Stage::MachineEnded, "ended at"),
    ] {
        if let Some((_, time)) = at(stage)
            && !time.is_zero()
        {
            let comma = if line.ends_with(':') { "" } else { "," };
            let _ = write!(line, "{comma} {what} {:.2} ms", milliseconds(*time));
        }
    }
    line
}

/// Writes the timeline to a file, or where its format goes by default.
pub(crate) fn write(
    marks: &Marks,
    format: TimelineFormat,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let text = match format {
        TimelineFormat::Text => text(marks),
        TimelineFormat::Json => json(marks),
        TimelineFormat::Svg => svg(marks),
    };
    let file = match (file, format) {
        (None, TimelineFormat::Svg) => Some(Path::new("timeline.svg")),
        (file, _) => file,
    };
    let Some(file) = file else {
        say(&text);
        return Ok(());
    };
    std::fs::write(file, text).map_err(|source| {
        Failure::failed(
            format_args!("cannot write the timeline {}", file.display()),
            source,
        )
    })
}

/// Columns of the bars.
const WIDTH: usize = 48;

fn text(marks: &Marks) -> String {
    let total = total(marks);
    let mut text = format!("{:>9} {:>9}  {:18}\n", "at µs", "took µs", "reached");
    for (stage, from, to) in steps(marks) {
        let column = |time: Duration| {
            let share = time.as_nanos() * WIDTH as u128 / total.as_nanos().max(1);
            usize::try_from(share).unwrap_or(WIDTH).min(WIDTH)
        };
        let (begin, end) = (column(from), column(to));
        let bar = "█".repeat((end - begin).max(usize::from(end < WIDTH || begin < end)));
        let _ = writeln!(
            text,
            "{:>9.1} {:>9.1}  {:18} {}{bar}",
            microseconds(to),
            microseconds(to.saturating_sub(from)),
            stage.label(),
            " ".repeat(begin),
        );
    }
    text
}

fn json(marks: &Marks) -> String {
    let stages: Vec<_> = marks
        .iter()
        .map(|(stage, time)| {
            serde_json::json!({ "stage": stage.label(), "at_us": microseconds(*time) })
        })
        .collect();
    format!("{}\n", serde_json::json!({ "timeline": stages }))
}

/// Sizes of the picture, in its own units.
const ROW: usize = 22;
const LABELS: usize = 150;
const BARS: usize = 520;
const VALUES: usize = 90;

fn svg(marks: &Marks) -> String {
    let total = total(marks).as_secs_f64().max(f64::MIN_POSITIVE);
    let width = LABELS + BARS + VALUES;
    let height = ROW * (marks.len() + 1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Start-up of a guest under Goldcrest</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (row, (stage, from, to)) in steps(marks).enumerate() {
        let y = ROW / 2 + row * ROW;
        let x = |time: Duration| LABELS as f64 + time.as_secs_f64() / total * BARS as f64;
        let (begin, end) = (x(from), x(to));
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#333333\">{}</text>\
             <rect x=\"{begin:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"#e0a526\"/>\
             <text x=\"{:.1}\" y=\"{}\" fill=\"#333333\">{:.0} µs</text>",
            LABELS - 8,
            y + 13,
            stage.label(),
            (end - begin).max(1.0),
            ROW - 6,
            end + 6.0,
            y + 13,
            microseconds(to),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// What was reached, from when to when: each stage but the first.
fn steps(marks: &Marks) -> impl Iterator<Item = (Stage, Duration, Duration)> {
    let ends = marks.iter().skip(1);
    marks
        .iter()
        .zip(ends)
        .map(|((_, from), (stage, to))| (*stage, *from, *to))
}

fn total(marks: &Marks) -> Duration {
    marks.last().map_or(Duration::ZERO, |(_, time)| *time)
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<(Stage, Duration)> {
        [
            (Stage::ProcessStart, 0),
            (Stage::Main, 300),
            (Stage::KvmOpened, 350),
            (Stage::FirstInstruction, 900),
            (Stage::MachineEnded, 1000),
        ]
        .map(|(stage, time)| (stage, Duration::from_micros(time)))
        .into()
    }

    #[test]
    fn the_summary_leaves_out_what_was_not_reached() {
        assert_eq!(
            summary(&marks()),
            "goldcrest: started after 0.30 ms, KVM open at 0.35 ms, \
             first instruction at 0.90 ms, ended at 1.00 ms"
        );
    }

    #[test]
    fn text_has_a_row_a_step_with_the_bars_in_order() {
        let text = text(&marks());
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows.len(), 5);
        assert!(
            rows[3].contains("900.0     550.0  first instruction"),
            "{text}"
        );
        let begin = |row: &str| row.chars().position(|c| c == '█');
        assert!(begin(rows[1]) < begin(rows[3]), "{text}");
    }

    #[test]
    fn json_is_json_and_svg_has_every_stage() {
        let value: serde_json::Value = serde_json::from_str(&json(&marks())).unwrap();
        assert_eq!(value["timeline"][3]["stage"], "first instruction");
        assert_eq!(value["timeline"][3]["at_us"], 900.0);
        let svg = svg(&marks());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), 1 + 4);
    }

    #[test]
    fn an_empty_timeline_is_no_problem() {
        for text in [text(&[]), json(&[]), svg(&[]), summary(&[])] {
            assert!(!text.is_empty());
        }
    }
}
