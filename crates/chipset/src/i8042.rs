//! The keyboard controller, without a keyboard (Intel 8042; IBM PC AT Technical Reference, "Keyboard controller").
//!
//! Two things are wanted of it: command 0xfe, by which operating systems reset a PC, and quick answers to a driver that
//! looks for a keyboard and a mouse, so that it does not wait for ones that will not come. Every command that owes a
//! byte gets it at once; what is sent to keyboard or mouse is answered by nobody. There are no interrupts.

use goldcrest_bus::{Device, Effect, Range};
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

/// The data port.
pub const PORT: u16 = 0x60;
/// How many ports, from data to status and command. The ones between (0x61 is the speaker) read all ones.
pub const LEN: u16 = 5;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);
/// The offset of the status (read) and command (write) port.
const STATUS: u64 = 4;

/// Status: output buffer full; self-test passed (system flag); keyboard not locked.
const OBF: u8 = 1 << 0;
const SYSTEM: u8 = 1 << 2;
const UNLOCKED: u8 = 1 << 4;

/// Commands.
const READ_COMMAND_BYTE: u8 = 0x20;
const WRITE_COMMAND_BYTE: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const ENABLE_MOUSE: u8 = 0xa8;
const TEST_MOUSE: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const READ_INPUT_PORT: u8 = 0xc0;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_KEYBOARD_BUFFER: u8 = 0xd2;
const WRITE_MOUSE_BUFFER: u8 = 0xd3;
const WRITE_MOUSE: u8 = 0xd4;
/// 0xf0 and up pulse those output lines whose bit is 0; line 0 is the processor's reset.
const PULSE: u8 = 0xf0;
const LINE_RESET: u8 = 1 << 0;

/// Answers to the tests.
const SELF_TEST_PASSED: u8 = 0x55;
const INTERFACE_FINE: u8 = 0x00;
const CLOCK_STUCK_LOW: u8 = 0x01;

/// The command byte: self-test passed, keyboard and mouse disabled; and its value after reset.
const SELF_TEST_FLAG: u8 = 1 << 2;
const KEYBOARD_DISABLED: u8 = 1 << 4;
const MOUSE_DISABLED: u8 = 1 << 5;
const COMMAND_BYTE_RESET: u8 = SELF_TEST_FLAG | MOUSE_DISABLED;
/// The output port: not in reset, A20 enabled.
const OUTPUT_PORT: u8 = 0b11;

/// The registers of an [`I8042`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// The controller's command byte.
    pub command_byte: u8,
    /// The byte that waits to be read.
    pub output: Option<u8>,
    /// The command that waits for its data byte.
    pub pending: Option<u8>,
}

/// A keyboard controller.
#[derive(Debug)]
pub struct I8042(I8042State);

impl Default for I8042 {
    fn default() -> Self {
        Self(I8042State {
            command_byte: COMMAND_BYTE_RESET,
            output: None,
            pending: None,
        })
    }
}

impl I8042 {
    fn status(&self) -> u8 {
        let full = if self.0.output.is_some() { OBF } else { 0 };
        SYSTEM | UNLOCKED | full
    }

    fn command(&mut self, command: u8) -> Effect {
        let state = &mut self.0;
        state.pending = None;
        match command {
            READ_COMMAND_BYTE => state.output = Some(state.command_byte),
            SELF_TEST => state.output = Some(SELF_TEST_PASSED),
            TEST_KEYBOARD => state.output = Some(INTERFACE_FINE),
            // No mouse: a driver that hears of a fault looks no further.
            TEST_MOUSE => state.output = Some(CLOCK_STUCK_LOW),
            READ_INPUT_PORT => state.output = Some(0),
            READ_OUTPUT_PORT => state.output = Some(OUTPUT_PORT),
            DISABLE_KEYBOARD => state.command_byte |= KEYBOARD_DISABLED,
            ENABLE_KEYBOARD => state.command_byte &= !KEYBOARD_DISABLED,
            DISABLE_MOUSE => state.command_byte |= MOUSE_DISABLED,
            ENABLE_MOUSE => state.command_byte &= !MOUSE_DISABLED,
            _ if takes_data(command) => state.pending = Some(command),
            PULSE.. if command & LINE_RESET == 0 => return Effect::Reset,
            _ => {}
        }
        Effect::None
    }

    fn data(&mut self, value: u8) -> Effect {
        let state = &mut self.0;
        match state.pending.take() {
            Some(WRITE_COMMAND_BYTE) => state.command_byte = value,
            Some(WRITE_OUTPUT_PORT) if value & LINE_RESET == 0 => return Effect::Reset,
            // A mouse's byte would have its own status flag: without it, drivers know there is none.
            Some(WRITE_KEYBOARD_BUFFER | WRITE_MOUSE_BUFFER) => state.output = Some(value),
            _ => {}
        }
        Effect::None
    }
}

/// Whether a byte for the data port follows the command.
const fn takes_data(command: u8) -> bool {
    matches!(
        command,
        WRITE_COMMAND_BYTE
            | WRITE_OUTPUT_PORT
            | WRITE_KEYBOARD_BUFFER
            | WRITE_MOUSE_BUFFER
            | WRITE_MOUSE
    )
}

impl Device for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..u64::from(LEN)).zip(data) {
            *byte = match offset {
                0 => self.0.output.take().unwrap_or(0),
                STATUS => self.status(),
                _ => 0xff,
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        for (offset, &value) in (offset..u64::from(LEN)).zip(data) {
            let effect = match offset {
                0 => self.data(value),
                STATUS => self.command(value),
                _ => Effect::None,
            };
            if !matches!(effect, Effect::None) {
                return effect;
            }
        }
        Effect::None
    }
}

impl Snapshot for I8042 {
    type State = I8042State;
    const KIND: &'static str = "i8042";
    const VERSION: u16 = 1;

    fn save(&self) -> I8042State {
        self.0.clone()
    }

    fn restore(&mut self, state: I8042State) -> Result<(), RestoreError> {
        match state.pending {
            Some(command) if !takes_data(command) => Err(RestoreError {
                kind: Self::KIND,
                what: "pending command",
                value: command.into(),
                limit: "must take a data byte",
            }),
            _ => {
                self.0 = state;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goldcrest_snapshot::{open, seal};
    use proptest::prelude::*;

    fn inb(device: &mut I8042, offset: u64) -> u8 {
        let mut data = [0];
        device.read(offset, &mut data);
        data[0]
    }

    fn outb(device: &mut I8042, offset: u64, value: u8) {
        assert!(matches!(device.write(offset, &[value]), Effect::None));
    }

    /// A command, its data byte, and the answer, as drivers do it: `None` is a driver that would wait.
    fn ask(device: &mut I8042, command: u8, data: Option<u8>) -> Option<u8> {
        outb(device, STATUS, command);
        if let Some(data) = data {
            outb(device, 0, data);
        }
        (inb(device, STATUS) & OBF != 0).then(|| inb(device, 0))
    }

    #[test]
    fn resets() {
        for command in [0xfe, 0xf0, 0xfc] {
            assert!(matches!(
                I8042::default().write(STATUS, &[command]),
                Effect::Reset
            ));
        }
        outb(&mut I8042::default(), STATUS, 0xff);
        let mut device = I8042::default();
        outb(&mut device, STATUS, WRITE_OUTPUT_PORT);
        outb(&mut device, 0, OUTPUT_PORT);
        outb(&mut device, STATUS, WRITE_OUTPUT_PORT);
        assert!(matches!(device.write(0, &[0xfe]), Effect::Reset));
    }

    /// The order in which Linux' i8042 driver looks for its devices.
    #[test]
    fn a_probe_never_waits_and_finds_no_mouse() {
        let mut device = I8042::default();
        // Flush: nothing to read, and no all-ones status, which would mean no controller.
        assert_eq!(inb(&mut device, STATUS), SYSTEM | UNLOCKED);
        assert_eq!(ask(&mut device, SELF_TEST, None), Some(0x55));
        let ctr = ask(&mut device, READ_COMMAND_BYTE, None).unwrap();
        let off = ctr | KEYBOARD_DISABLED | MOUSE_DISABLED;
        assert_eq!(ask(&mut device, WRITE_COMMAND_BYTE, Some(off)), None);
        assert_eq!(ask(&mut device, READ_COMMAND_BYTE, None), Some(off));
        // The loop-back answers without the mouse flag (bit 5), and the mouse port's test fails.
        outb(&mut device, STATUS, WRITE_MOUSE_BUFFER);
        outb(&mut device, 0, 0x5a);
        assert_eq!(inb(&mut device, STATUS) & (OBF | 1 << 5), OBF);
        assert_eq!(inb(&mut device, 0), 0x5a);
        assert_eq!(ask(&mut device, TEST_MOUSE, None), Some(CLOCK_STUCK_LOW));
        assert_eq!(ask(&mut device, TEST_KEYBOARD, None), Some(0));
        assert_eq!(ask(&mut device, ENABLE_KEYBOARD, None), None);
        assert_eq!(
            ask(&mut device, READ_COMMAND_BYTE, None),
            Some(off & !KEYBOARD_DISABLED)
        );
        // Nobody answers for the keyboard or the mouse.
        outb(&mut device, 0, 0xf2);
        assert_eq!(ask(&mut device, WRITE_MOUSE, Some(0xf2)), None);
        assert_eq!(inb(&mut device, 1), 0xff);
    }

    #[test]
    fn a_command_without_data_cannot_be_pending() {
        let mut device = I8042::default();
        let state = I8042State {
            pending: Some(SELF_TEST),
            ..device.save()
        };
        assert!(device.restore(state).is_err());
        assert_eq!(device.save(), I8042::default().save());
    }

    proptest! {
        #[test]
        fn any_access_is_harmless_and_can_be_restored(
            accesses in prop::collection::vec((0_u64..6, prop::collection::vec(any::<u8>(), 0..9)), 0..40)
        ) {
            let mut device = I8042::default();
            for (offset, mut data) in accesses {
                let _ = device.write(offset, &data);
                device.read(offset, &mut data);
                let mut other = I8042::default();
                open(&mut other, &seal(&device).unwrap()).unwrap();
                prop_assert_eq!(other.save(), device.save());
            }
        }
    }
}
