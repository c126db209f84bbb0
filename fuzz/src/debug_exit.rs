//! The debug exit: a write of 1, 2 or 4 bytes ends the machine with an odd status, and nothing else does.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::Effect;
use goldcrest_chipset::debug_exit::{self, DebugExit};

use crate::access::Access;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    while !input.is_empty() {
        let access = Access::take(input, debug_exit::LEN.into())?;
        let outcome = access.apply(&mut DebugExit);
        assert!(outcome.read().iter().all(|byte| *byte == 0));
        match outcome.effect {
            Effect::Exit(status) => {
                assert!(matches!(access.written().len(), 1 | 2 | 4));
                assert_eq!(status & 1, 1);
            }
            Effect::None => assert!(matches!(access.written().len(), 0 | 3)),
            effect => panic!("{effect:?}"),
        }
    }
    Ok(())
}
