//! A whole disk: partitions, file systems, entries, the choice, and what would be loaded.

use goldcrest_firmware::Survey;
use goldcrest_firmware::entry::Program;
use goldcrest_firmware::linux::Header;

/// Runs the target.
pub fn run(data: &[u8]) {
    let (disk, requests) = crate::disk_image::disk(data);
    let survey = Survey::of(&[disk]);
    match survey.choose(None) {
        Ok(chosen) => assert!(chosen < survey.entries.len()),
        Err(why) => assert!(!why.is_empty() && survey.entries.is_empty()),
    }
    for entry in &survey.entries {
        if let Ok(Program::Linux(program)) = entry.program()
            && let Ok(header) = Header::read(&program.kernel)
        {
            let _ = header.command_line(&program.cmdline);
            let _ = header.version(&program.kernel);
        }
    }
    assert!(requests.borrow().len() < 200_000);
}
