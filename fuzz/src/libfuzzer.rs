//! What a target's program is: libFuzzer's where cargo-fuzz builds it, else one that runs the target on files.

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Makes the program of the target in a module: with libFuzzer's `main`, if cargo-fuzz builds it.
#[cfg(fuzzing)]
#[macro_export]
macro_rules! fuzz_target {
    ($module:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$module::run(data));
    };
}

/// Makes the program of the target in a module, which runs it on the files that it is given.
#[cfg(not(fuzzing))]
#[macro_export]
macro_rules! fuzz_target {
    ($module:ident) => {
        fn main() -> std::process::ExitCode {
            $crate::run_on_files($crate::$module::run)
        }
    };
}

/// Runs a target on the files that are the program's arguments.
#[cfg(not(fuzzing))]
pub fn run_on_files(run: fn(&[u8])) -> std::process::ExitCode {
    let mut files = std::env::args_os().skip(1).peekable();
    if files.peek().is_none() {
        eprintln!("name the files to run the target on; to fuzz it, run ci/fuzz");
        return std::process::ExitCode::from(2);
    }
    for file in files {
        match std::fs::read(&file) {
            Ok(data) => run(&data),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    std::process::ExitCode::SUCCESS
}
