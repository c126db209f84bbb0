//! Power control: the sleep registers of ACPI's hardware-reduced profile (ACPI 6.5 §4.8.3.7) and the reset register
//! that the FADT names (§4.8.3.6).
//!
//! The numbers stand in `goldcrest-abi`: the ACPI tables that the guest reads are made of them too.

pub use goldcrest_abi::power::{RESET, RESET_VALUE, S5_TYPE, SLEEP_CONTROL, SLEEP_STATUS};
use goldcrest_bus::{Device, Effect, Range};

/// The first port.
pub const PORT: u16 = SLEEP_CONTROL;
/// How many ports.
pub const LEN: u16 = 3;
const _: () = assert!(SLEEP_STATUS == PORT + 1 && RESET == PORT + LEN - 1);
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);

/// Sleep control: the sleep type, bits 4:2 (Table 4.21).
const SLP_TYP_SHIFT: u32 = 2;
const SLP_TYP_MASK: u8 = 0b111;
/// Sleep control: enter the state. Always reads 0.
const SLP_EN: u8 = 1 << 5;

/// The device. All registers read 0, and there is no state to save.
#[derive(Debug, Clone, Copy, Default)]
pub struct Power {
    ignored: u64,
}

impl Power {
    /// How many requests named a sleep state that does not exist or a wrong reset value.
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    fn write_register(&mut self, port: u64, value: u8) -> Effect {
        let sleep_type = (value >> SLP_TYP_SHIFT) & SLP_TYP_MASK;
        if port == u64::from(SLEEP_CONTROL) && value & SLP_EN == 0 {
            // Only a type, which takes effect together with SLP_EN.
            Effect::None
        } else if port == u64::from(SLEEP_CONTROL) && sleep_type == S5_TYPE {
            Effect::PowerOff
        } else if port == u64::from(RESET) && value == RESET_VALUE {
            Effect::Reset
        } else {
            self.ignored = self.ignored.saturating_add(1);
            Effect::None
        }
    }
}

impl Device for Power {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        for (port, &value) in (u64::from(PORT).saturating_add(offset)..).zip(data) {
            let effect = self.write_register(port, value);
            if !matches!(effect, Effect::None) {
                return effect;
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn out(power: &mut Power, port: u16, data: &[u8]) -> Effect {
        power.write(u64::from(port - PORT), data)
    }

    #[test]
    fn acpi_4_8_3_7_soft_off_needs_its_type_and_slp_en() {
        let mut power = Power::default();
        assert!(matches!(
            out(&mut power, SLEEP_CONTROL, &[S5_TYPE << 2]),
            Effect::None
        ));
        assert_eq!(power.ignored(), 0);
        assert!(matches!(
            out(&mut power, SLEEP_CONTROL, &[S5_TYPE << 2 | SLP_EN]),
            Effect::PowerOff
        ));
        for other in (0..8).filter(|t| *t != S5_TYPE) {
            assert!(matches!(
                out(&mut power, SLEEP_CONTROL, &[other << 2 | SLP_EN]),
                Effect::None
            ));
        }
        assert_eq!(power.ignored(), 7);
    }

    #[test]
    fn acpi_4_8_3_6_reset_needs_its_value() {
        let mut power = Power::default();
        assert!(matches!(out(&mut power, RESET, &[0]), Effect::None));
        assert!(matches!(
            out(&mut power, RESET, &[RESET_VALUE]),
            Effect::Reset
        ));
        // A wide write reaches each register in turn.
        assert!(matches!(
            out(&mut power, SLEEP_STATUS, &[0x80, RESET_VALUE]),
            Effect::Reset
        ));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(offset: u64, mut data in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut power = Power::default();
            let _ = power.write(offset, &data);
            power.read(offset, &mut data);
            prop_assert!(data.iter().all(|b| *b == 0));
        }
    }
}
