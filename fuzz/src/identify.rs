//! Any bytes as any file: what is said of it is a few lines that a terminal can show.

use goldcrest_boot::{Image, inspect};

/// Runs the target.
pub fn run(data: &[u8]) {
    let Ok(image) = Image::from_bytes("file", data.to_vec()) else {
        assert!(data.is_empty());
        return;
    };
    let inspection = inspect(&image).expect("bytes in memory can be read");
    let text = inspection.to_string();
    assert!(text.lines().count() < 200);
    assert!(
        text.lines()
            .all(|line| line.len() < 1024 && !line.contains(char::is_control))
    );
    assert_eq!(inspection.offers.is_empty(), inspection.problem.is_some());
}
