//! Power control: the ports by which a guest goes off and resets, as the ACPI tables name them.
//!
//! The sleep registers are those of the hardware-reduced profile (ACPI 6.5 §4.8.3.7), the reset register is the FADT's
//! `RESET_REG` (§4.8.3.6). All have 8 bits.

/// The port of the sleep control register (FADT `SLEEP_CONTROL_REG`).
pub const SLEEP_CONTROL: u16 = 0x600;

/// The port of the sleep status register (FADT `SLEEP_STATUS_REG`). `WAK_STS` is never set: nothing sleeps.
pub const SLEEP_STATUS: u16 = 0x601;

/// The port of the reset register (FADT `RESET_REG`).
pub const RESET: u16 = 0x602;

/// What resets the machine when written to [`RESET`] (FADT `RESET_VALUE`).
pub const RESET_VALUE: u8 = 1;

/// `SLP_TYPx` of S5, "soft off": the first element of the DSDT's `\_S5` package.
pub const S5_TYPE: u8 = 5;
