//! The keyboard controller, with a keyboard on which Ctrl-Alt-Del can be pressed (Intel 8042; IBM PC AT Technical
//! Reference, "Keyboard controller" and "Keyboard").
//!
//! Three things are wanted of it: command 0xfe, by which operating systems reset a PC; quick answers to a driver that
//! looks for a keyboard and a mouse, so that it does not wait for one that will not come; and three keys, by which a
//! person asks an operating system to shut down. Every command that owes a byte gets it at once; what is sent to the mouse
//! is answered by nobody.

use std::fmt;

use goldcrest_bus::{Device, Effect, Range};
use goldcrest_irq::IrqLine;
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

/// The data port.
pub const PORT: u16 = 0x60;
/// How many ports, from data to status and command. The ones between (0x61 is the speaker) read all ones.
pub const LEN: u16 = 5;
/// The ISA interrupt of the keyboard.
pub const IRQ: u32 = 1;
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

/// The command byte: interrupt for the keyboard's bytes; scan codes translated from set 2 to set 1.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const TRANSLATES: u8 = 1 << 6;
/// The command byte: self-test passed, keyboard and mouse disabled; and its value after reset.
const SELF_TEST_FLAG: u8 = 1 << 2;
const KEYBOARD_DISABLED: u8 = 1 << 4;
const MOUSE_DISABLED: u8 = 1 << 5;
const COMMAND_BYTE_RESET: u8 = SELF_TEST_FLAG | MOUSE_DISABLED;
/// The output port: not in reset, A20 enabled.
const OUTPUT_PORT: u8 = 0b11;

/// What the keyboard answers to each byte, to 0xff when it has tested itself, to 0xee, and to who asks what it is.
const ACKNOWLEDGE: u8 = 0xfa;
const KEYBOARD_RESET: u8 = 0xff;
const KEYBOARD_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;
const IDENTIFY: u8 = 0xf2;
const IDENTITY: [u8; 2] = [0xab, 0x83];
/// With 0 after it, it asks for the set of scan codes.
const SCAN_CODES: u8 = 0xf0;
/// These have a byte after them, too: indicators, and how fast keys repeat.
const INDICATORS: u8 = 0xed;
const REPEAT: u8 = 0xf3;
/// The set that the keyboard has.
const SET: u8 = 2;

/// Ctrl, Alt and Del pressed, then released: by scan code set 2, and translated to set 1.
const CTRL_ALT_DEL: [u8; 11] = [
    0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14,
];
const CTRL_ALT_DEL_TRANSLATED: [u8; 8] = [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d];
/// The most bytes of the keyboard's that wait, as in a real one.
const MAX_KEYS: usize = 16;

/// The registers of an [`I8042`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// The controller's command byte.
    pub command_byte: u8,
    /// The byte that waits to be read.
    pub output: Option<u8>,
    /// The command that waits for its data byte.
    pub pending: Option<u8>,
    /// Whether the byte that waits to be read is the keyboard's.
    pub from_keyboard: bool,
    /// The keyboard's bytes that come after it.
    pub keys: Vec<u8>,
    /// The keyboard's command that waits for its byte.
    pub keyboard_pending: Option<u8>,
}

/// A keyboard controller.
pub struct I8042(I8042State, IrqLine);

impl fmt::Debug for I8042 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("I8042")
            .field(&self.0)
            .finish_non_exhaustive()
    }
}

impl Default for I8042 {
    /// One that interrupts nobody.
    fn default() -> Self {
        Self::new(IrqLine::detached())
    }
}

impl I8042 {
    /// A controller that interrupts by this line when the keyboard has sent a byte.
    pub fn new(line: IrqLine) -> Self {
        let state = I8042State {
            command_byte: COMMAND_BYTE_RESET,
            output: None,
            pending: None,
            from_keyboard: false,
            keys: Vec::new(),
            keyboard_pending: None,
        };
        Self(state, line)
    }

    /// Ctrl, Alt and Del are pressed and released. Returns whether they are: not if so much waits for the guest already
    /// that there is no room.
    pub fn press_ctrl_alt_del(&mut self) -> bool {
        let codes = match self.0.command_byte & TRANSLATES {
            0 => &CTRL_ALT_DEL[..],
            _ => &CTRL_ALT_DEL_TRANSLATED,
        };
        let has_room = self.0.keys.len() + codes.len() <= MAX_KEYS;
        if has_room {
            self.0.keys.extend(codes);
            self.feed();
        }
        has_room
    }

    /// The keyboard's next byte takes its place, and the line says whether one is there.
    fn feed(&mut self) {
        let state = &mut self.0;
        let may_send = state.command_byte & KEYBOARD_DISABLED == 0;
        if state.output.is_none() && may_send && !state.keys.is_empty() {
            state.output = Some(state.keys.remove(0));
            state.from_keyboard = true;
        }
        self.signal();
    }

    fn signal(&self) {
        let state = &self.0;
        let interrupts = state.command_byte & KEYBOARD_INTERRUPT != 0;
        self.1
            .set(state.output.is_some() && state.from_keyboard && interrupts);
    }

    /// The byte that waits is read.
    fn take(&mut self) -> u8 {
        let byte = self.0.output.take().unwrap_or(0);
        // The line falls between two bytes, or the second would not interrupt.
        self.signal();
        self.feed();
        byte
    }

    /// The keyboard gets a byte. It answers if there is room.
    fn keyboard(&mut self, value: u8) {
        let state = &mut self.0;
        let answer: &[u8] = match (state.keyboard_pending.take(), value) {
            (Some(SCAN_CODES), 0) => &[ACKNOWLEDGE, SET],
            (Some(_), _) => &[ACKNOWLEDGE],
            (None, KEYBOARD_RESET) => &[ACKNOWLEDGE, KEYBOARD_PASSED],
            (None, ECHO) => &[ECHO],
            (None, IDENTIFY) => {
                let [first, second] = IDENTITY;
                &[ACKNOWLEDGE, first, second]
            }
            (None, value) => {
                state.keyboard_pending = Some(value).filter(|value| keyboard_takes_data(*value));
                &[ACKNOWLEDGE]
            }
        };
        if state.keys.len() + answer.len() <= MAX_KEYS {
            state.keys.extend(answer);
        }
    }

    fn status(&self) -> u8 {
        let full = if self.0.output.is_some() { OBF } else { 0 };
        SYSTEM | UNLOCKED | full
    }

    fn command(&mut self, command: u8) -> Effect {
        let state = &mut self.0;
        state.pending = None;
        let before = state.output.take();
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
        // An answer takes the place of what was there.
        match state.output {
            Some(_) => state.from_keyboard = false,
            None => state.output = before,
        }
        Effect::None
    }

    fn data(&mut self, value: u8) -> Effect {
        let state = &mut self.0;
        match state.pending.take() {
            Some(WRITE_COMMAND_BYTE) => state.command_byte = value,
            Some(WRITE_OUTPUT_PORT) if value & LINE_RESET == 0 => return Effect::Reset,
            // A mouse's byte would have its own status flag: without it, drivers know there is none.
            Some(WRITE_KEYBOARD_BUFFER | WRITE_MOUSE_BUFFER) => {
                state.output = Some(value);
                state.from_keyboard = false;
            }
            Some(_) => {}
            None => self.keyboard(value),
        }
        Effect::None
    }
}

/// Whether a byte follows the keyboard's command.
const fn keyboard_takes_data(command: u8) -> bool {
    matches!(command, INDICATORS | SCAN_CODES | REPEAT)
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
                0 => self.take(),
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
            self.feed();
        }
        Effect::None
    }
}

impl Snapshot for I8042 {
    type State = I8042State;
    const KIND: &'static str = "i8042";
    const VERSION: u16 = 2;

    fn save(&self) -> I8042State {
        self.0.clone()
    }

    fn restore(&mut self, state: I8042State) -> Result<(), RestoreError> {
        let refuse = |what, value, limit| {
            let kind = Self::KIND;
            Err(RestoreError {
                kind,
                what,
                value,
                limit,
            })
        };
        let limit = "must take a data byte";
        match (state.pending, state.keyboard_pending, state.keys.len()) {
            (Some(command), ..) if !takes_data(command) => {
                refuse("pending command", command.into(), limit)
            }
            (_, Some(command), _) if !keyboard_takes_data(command) => {
                refuse("pending command of the keyboard", command.into(), limit)
            }
            (.., keys) if keys > MAX_KEYS => refuse(
                "number of bytes that wait",
                keys as u64,
                "must be at most 16",
            ),
            _ => {
                self.0 = state;
                self.signal();
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
        // Nobody answers for the mouse.
        assert_eq!(ask(&mut device, WRITE_MOUSE, Some(0xf2)), None);
        assert_eq!(inb(&mut device, 1), 0xff);
    }

    fn all(device: &mut I8042) -> Vec<u8> {
        let mut bytes = Vec::new();
        while inb(device, STATUS) & OBF != 0 {
            bytes.push(inb(device, 0));
        }
        bytes
    }

    /// What Linux' atkbd driver says.
    #[test]
    fn the_keyboard_answers_its_driver() {
        let mut device = I8042::default();
        for (bytes, answer) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xed, 0x00], &[0xfa, 0xfa]),
            (&[0xf0, 0x00], &[0xfa, 0xfa, 0x02]),
            (&[0xf0, 0x02], &[0xfa, 0xfa]),
            (&[0xf3, 0x00], &[0xfa, 0xfa]),
            (&[0xf4], &[0xfa]),
            (&[0xee], &[0xee]),
        ] {
            for byte in bytes {
                outb(&mut device, 0, *byte);
            }
            assert_eq!(all(&mut device), answer, "{bytes:x?}");
        }
        // Whoever does not read makes nothing grow.
        (0..100).for_each(|_| outb(&mut device, 0, 0xf4));
        assert_eq!(all(&mut device).len(), MAX_KEYS + 1);
    }

    #[test]
    fn keys_interrupt_one_byte_after_the_other_when_the_guest_wants_them() {
        let line = IrqLine::detached();
        let mut device = I8042::new(line.clone());
        assert!(device.press_ctrl_alt_del());
        assert!(!line.level(), "interrupts are off");
        assert_eq!(all(&mut device), CTRL_ALT_DEL);

        outb(&mut device, STATUS, WRITE_COMMAND_BYTE);
        outb(&mut device, 0, KEYBOARD_INTERRUPT | TRANSLATES);
        assert!(device.press_ctrl_alt_del() && line.level());
        let mut copy = I8042::new(IrqLine::detached());
        open(&mut copy, &seal(&device).unwrap()).unwrap();
        for byte in CTRL_ALT_DEL_TRANSLATED {
            assert!(line.level());
            assert_eq!(inb(&mut device, 0), byte);
        }
        assert!(!line.level());
        assert_eq!(all(&mut copy), CTRL_ALT_DEL_TRANSLATED);

        // A keyboard that is turned off keeps them.
        outb(&mut device, STATUS, DISABLE_KEYBOARD);
        assert!(device.press_ctrl_alt_del() && !line.level());
        assert_eq!(all(&mut device), []);
        outb(&mut device, STATUS, ENABLE_KEYBOARD);
        assert!(line.level());
        assert_eq!(all(&mut device), CTRL_ALT_DEL_TRANSLATED);
        assert!(device.press_ctrl_alt_del() && device.press_ctrl_alt_del());
        assert!(!device.press_ctrl_alt_del(), "there is no room");
    }

    #[test]
    fn a_command_without_data_cannot_be_pending() {
        let mut device = I8042::default();
        let state = I8042State {
            pending: Some(SELF_TEST),
            ..device.save()
        };
        assert!(device.restore(state).is_err());
        let state = I8042State {
            keyboard_pending: Some(ECHO),
            ..device.save()
        };
        assert!(device.restore(state).is_err());
        let state = I8042State {
            keys: vec![0; MAX_KEYS + 1],
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
