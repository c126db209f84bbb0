//! The table.

use super::sample::Row;

const HEADS: [&str; 9] = [
    "PID", "STATE", "CPUS", "CPU%", "RSS", "MEMORY", "EXITS/S", "DISK/S", "NET/S",
];
/// How wide each is.
const WIDTHS: [usize; 9] = [7, 11, 4, 6, 7, 7, 8, 8, 8];
/// The widest name.
const NAME: usize = 32;

/// The table, whose lines are as wide and as many as there is room for, if that is limited: columns and lines.
pub(super) fn text(rows: &[Row], size: Option<(usize, usize)>) -> String {
    let mut lines = vec![line(&HEADS.map(str::to_owned), "NAME")];
    lines.extend(rows.iter().map(|row| line(&cells(row), &row.name)));
    if rows.is_empty() {
        lines.push("no machines".to_owned());
    }
    if let Some((columns, most)) = size {
        // The cursor stands in the last one.
        lines.truncate(most.saturating_sub(1));
        for line in &mut lines {
            *line = line.chars().take(columns).collect();
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn cells(row: &Row) -> [String; 9] {
    let unknown = || "-".to_owned();
    let bytes = |bytes: Option<f64>| bytes.map_or_else(unknown, short);
    [
        row.pid.to_string(),
        row.state
            .as_deref()
            .map_or_else(unknown, |state| plain(state, 11)),
        row.cpus
            .map_or_else(unknown, |cpus| plain(&cpus.to_string(), 4)),
        row.cpu_percent
            .map_or_else(unknown, |percent| format!("{percent:.1}")),
        short(row.resident_bytes as f64),
        bytes(row.memory_bytes.map(|memory| memory as f64)),
        bytes(row.exits_per_second),
        bytes(row.disk_bytes_per_second),
        bytes(row.net_bytes_per_second),
    ]
}

fn line(cells: &[String; 9], name: &str) -> String {
    let cells = cells.iter().zip(WIDTHS);
    let cells = cells.map(|(cell, width)| format!("{cell:>width$} "));
    cells.collect::<String>() + &plain(name, NAME)
}

/// As much of a text as there is room for, without what a terminal obeys.
fn plain(text: &str, width: usize) -> String {
    let chars = text.chars().take(width);
    chars
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}

/// A number in few characters: `999`, `1.5K`, `128M`.
fn short(number: f64) -> String {
    let mut number = number;
    for unit in ["", "K", "M", "G", "T", "P"] {
        if number < 999.5 {
            let digits = usize::from(!unit.is_empty() && number < 9.95);
            return format!("{number:.digits$}{unit}");
        }
        number /= 1024.0;
    }
    format!("{number:.0}E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1.0K"),
            (1536.0, "1.5K"),
            (134_217_728.0, "128M"),
            (1.844_674_407_370_955e19, "16E"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn lines_have_no_more_room_than_there_is_and_nothing_that_a_terminal_obeys() {
        let row = Row {
            pid: 42,
            name: "\x1b[31mred\n".repeat(20),
            state: Some("Running\x07".into()),
            cpu_percent: Some(99.96),
            memory_bytes: Some(u64::MAX),
            ..Row::default()
        };
        let all = text(&[row.clone(), row.clone()], None);
        assert_eq!(all.lines().count(), 3);
        assert!(
            all.lines().all(|line| !line.chars().any(char::is_control)),
            "{all:?}"
        );
        assert!(all.contains("Running?") && all.contains("100.0") && all.contains("16E"));
        let clipped = text(&vec![row; 100], Some((20, 10)));
        assert_eq!(clipped.lines().count(), 9);
        assert!(clipped.lines().all(|line| line.chars().count() <= 20));
        assert_eq!(text(&[], Some((0, 0))), "\n");
        assert!(text(&[], None).ends_with("no machines\n"));
    }
}
