//! The keyboard controller.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::i8042::{self, I8042, I8042State};
use goldcrest_snapshot::Snapshot;

use crate::access::Access;
use crate::saved;

const DATA: u64 = 0;
const STATUS: u64 = 4;
const OUTPUT_FULL: u8 = 1 << 0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(I8042::default(), &mut Unstructured::new(data));
}

pub(crate) fn drive(mut controller: I8042, input: &mut Unstructured<'_>) -> Result<()> {
    while !input.is_empty() {
        match input.peek_bytes(1) {
            Some([0xff]) => {
                input.bytes(1)?;
                let mut fresh = I8042::default();
                saved::round_trip(&controller, &mut fresh);
                controller = fresh;
            }
            Some([0xfe]) => {
                input.bytes(1)?;
                let _ = controller.press_ctrl_alt_del();
            }
            _ => {}
        }
        let access = Access::take(input, i8042::LEN.into())?;
        let before = controller.save();
        match access.apply(&mut controller).effect {
            Effect::None => assert!(!asks_for_reset(&access, &before)),
            Effect::Reset => assert!(asks_for_reset(&access, &before)),
            effect => panic!("{effect:?}"),
        }
        check_pending(&access, &controller.save());
        check_status(&mut controller);
    }
    Ok(())
}

/// Whether one of the bytes, in their order, is command 0xf0 to 0xfe with bit 0 clear, or clears bit 0 of the output
/// port. Between data port and command port there are three that do nothing.
fn asks_for_reset(access: &Access, before: &I8042State) -> bool {
    let mut pending = before.pending;
    access.written_at().any(|(offset, value)| match offset {
        DATA => pending.take() == Some(WRITE_OUTPUT_PORT) && value & 1 == 0,
        STATUS => value >= 0xf0 && value & 1 == 0,
        _ => false,
    })
}

/// A command that waits for its byte is the last that was written: another one cancels it.
fn check_pending(access: &Access, after: &I8042State) {
    let command = access.written_at().find(|(offset, _)| *offset == STATUS);
    if let (Some((_, command)), Some(pending)) = (command, after.pending) {
        assert_eq!(pending, command);
    }
}

/// The status register says whether a byte waits.
fn check_status(controller: &mut I8042) {
    let waits = controller.save().output.is_some();
    let mut status = [0];
    controller.read(STATUS, &mut status);
    assert_eq!(status[0] & OUTPUT_FULL != 0, waits);
}
