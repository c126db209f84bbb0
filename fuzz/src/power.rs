//! The sleep and reset registers: only the right values end the machine, whatever else is in the same access.

use arbitrary::{Result, Unstructured};
use goldcrest_bus::Effect;
use goldcrest_chipset::power::{self, Power, RESET, RESET_VALUE, S5_TYPE, SLEEP_CONTROL};

use crate::access::Access;

/// Sleep control: the sleep type, and that it is entered.
const SLEEP_TYPE: u8 = 0b111 << 2;
const SLEEP_ENABLE: u8 = 1 << 5;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut power = Power::default();
    let mut written = 0;
    while !input.is_empty() {
        let access = Access::take(input, power::LEN.into())?;
        let outcome = access.apply(&mut power);
        assert!(outcome.read().iter().all(|byte| *byte == 0));
        match (outcome.effect, expected(&access)) {
            (Effect::None, None) => {}
            (Effect::PowerOff, Some(SLEEP_CONTROL)) | (Effect::Reset, Some(RESET)) => {}
            (effect, expected) => panic!("{effect:?} instead of {expected:?}"),
        }
        written += access.written().len() as u64;
        assert!(power.ignored() <= written);
    }
    Ok(())
}

/// The port whose byte is the first that ends the machine.
fn expected(access: &Access) -> Option<u16> {
    access.written_at().find_map(|(offset, value)| {
        let port = power::PORT + u16::try_from(offset).expect("three ports");
        let ends = match port {
            SLEEP_CONTROL => value & (SLEEP_TYPE | SLEEP_ENABLE) == S5_TYPE << 2 | SLEEP_ENABLE,
            RESET => value == RESET_VALUE,
            _ => false,
        };
        ends.then_some(port)
    })
}
