//! Where what is logged goes: for the program to say, which has one log for all that it does.

use crate::Fault;
use crate::model::Logger;

/// A program's log, as clients set it (`PUT /logger`).
///
/// The crates here say what happens as events of the crate `tracing`. Where those go is chosen once in a program: by its
/// subscriber. A program whose subscriber can be set while it runs has clients set it by this.
pub trait Logs: Send {
    /// Has lines be written as a client wants them, from now on; what it does not name stays. `id` is the machine's name.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the file cannot be opened: all is as before then.
    fn set(&mut self, id: &str, logger: &Logger) -> Result<(), Fault>;

    /// How many lines could not be written so far: a pipe that nobody reads holds nobody up.
    fn lost(&self) -> u64;
}
