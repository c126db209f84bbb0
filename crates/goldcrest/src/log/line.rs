//! A line of the log.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::Metadata;
use tracing::field::{Field, Visit};

use super::Format;

/// The most bytes of what an event says: a line fits into a pipe in one piece.
const MAX: usize = 2048;

/// How lines are written.
#[derive(Debug, Default)]
pub(super) struct Style {
    /// The machine's name.
    pub(super) id: String,
    pub(super) format: Format,
    /// Whether lines of text have the level; those of JSON always have it.
    pub(super) show_level: bool,
    /// Whether they have the place in the source.
    pub(super) show_origin: bool,
}

/// What an event says.
#[derive(Debug, Default)]
pub(super) struct Content {
    message: String,
    fields: Vec<(&'static str, Value)>,
    len: usize,
}

impl Content {
    /// One more.
    pub(super) fn add(&mut self, name: &'static str, value: Value) {
        self.fields.push((name, value));
    }

    /// As much of a text as there is room for.
    fn clipped(&mut self, text: &str) -> String {
        let room = MAX.saturating_sub(self.len);
        let mut end = room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.len += end;
        text.get(..end).unwrap_or_default().to_owned()
    }

    fn text(&mut self, field: &Field, text: &str) {
        let text = self.clipped(text);
        match field.name() {
            "message" => self.message = text,
            name => self.add(name, text.into()),
        }
    }
}

impl Visit for Content {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }
}

impl Style {
    /// The line of an event, with its end.
    pub(super) fn line(&self, metadata: &Metadata<'_>, content: &Content) -> String {
        let time = Time::now();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("-");
        match self.format {
            Format::Text => self.text(&time, thread, metadata, content),
            Format::Json => self.json(&time, thread, metadata, content),
        }
    }

    fn text(
        &self,
        time: &Time,
        thread: &str,
        metadata: &Metadata<'_>,
        content: &Content,
    ) -> String {
        let mut line = format!("{time} [{}:{thread}", self.id);
        // A string takes all.
        if self.show_level {
            let _ = write!(line, ":{}", metadata.level());
        }
        if let (true, Some(file), Some(at)) = (self.show_origin, metadata.file(), metadata.line()) {
            let _ = write!(line, ":{file}:{at}");
        }
        let _ = write!(line, "] {}", OneLine(&content.message));
        for (name, value) in &content.fields {
            let _ = match value {
                Value::String(text) if is_word(text) => write!(line, " {name}={text}"),
                Value::String(text) => write!(line, " {name}=\"{}\"", OneLine(text)),
                value => write!(line, " {name}={value}"),
            };
        }
        line.push('\n');
        line
    }

    fn json(
        &self,
        time: &Time,
        thread: &str,
        metadata: &Metadata<'_>,
        content: &Content,
    ) -> String {
        let mut object = Map::new();
        let mut add = |name: &str, value: Value| {
            object.insert(name.to_owned(), value);
        };
        for (name, value) in &content.fields {
            add(name, value.clone());
        }
        add("timestamp", time.to_string().into());
        add("level", metadata.level().to_string().into());
        add("id", self.id.as_str().into());
        add("thread", thread.into());
        add("target", metadata.target().into());
        add("message", content.message.as_str().into());
        if let (true, Some(file), Some(line)) = (self.show_origin, metadata.file(), metadata.line())
        {
            add("origin", json!(format!("{file}:{line}")));
        }
        Value::Object(object).to_string() + "\n"
    }
}

fn is_word(text: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_graphic() && !['"', '\\', '='].contains(&char);
    !text.is_empty() && text.chars().all(is_plain)
}

/// A text as it is, but on one line and without what a terminal obeys.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char.is_control() || char == '"' || char == '\\' {
                true => write!(f, "{}", char.escape_default())?,
                false => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// A time (UTC) as RFC 3339 writes it.
struct Time(Duration);

impl Time {
    fn now() -> Self {
        Self(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let micros = self.0.subsec_micros();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

/// The date so many days after 1970-01-01, by the Gregorian calendar: 400 years have 146,097 days. Years are counted
/// from March on, so that the day that some have more is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (cycle, day) = (days / 146_097, days % 146_097);
    // A day less in 4 years, one more in 100, one less in 400.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 153 days in each five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    match month < 10 {
        true => (year, month + 3, day),
        false => (year + 1, month - 9, day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Time(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn texts_are_one_line_of_bounded_length() {
        assert_eq!(
            OneLine("a\nb\x1b[0m\"ä").to_string(),
            "a\\nb\\u{1b}[0m\\\"ä"
        );
        assert!(is_word("/vm/config") && !is_word("") && !is_word("a b") && !is_word("a=b"));
        let mut content = Content::default();
        assert_eq!(content.clipped(&"ä".repeat(MAX)).len(), MAX);
        assert_eq!(content.clipped("a"), "");
    }
}
