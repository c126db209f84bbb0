//! Templates of processors.

use goldcrest_monitor::{CpuTemplate, CpuidChange, CpuidRegister, MsrChange};
use serde::{Deserialize, Serialize};

use crate::Fault;

/// `PUT /cpu-config`: a custom template for x86-64. Numbers are texts, as Firecracker has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuConfig {
    /// Capabilities of KVM that need not be there, each after a `!`. Others cannot be named: what is needed is looked for
    /// where it is.
    #[serde(default)]
    pub kvm_capabilities: Vec<String>,
    /// Changes to what the `cpuid` instruction says.
    #[serde(default)]
    pub cpuid_modifiers: Vec<CpuidModifier>,
    /// Changes to model-specific registers.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes to a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidModifier {
    /// The leaf.
    pub leaf: String,
    /// The subleaf.
    pub subleaf: String,
    /// KVM's flags of the leaf: whether the subleaf matters, which is known here.
    pub flags: u32,
    /// Changes to registers.
    pub modifiers: Vec<RegisterModifier>,
}

/// A change to a register of a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModifier {
    /// Which.
    pub register: Register,
    /// `0b`, and for each bit from the highest one 0, 1, or `x` if it stays. Bits that are not there stay, too.
    pub bitmap: String,
}

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the processor's")]
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A change to a model-specific register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// Its number.
    pub addr: String,
    /// As that of a register of a leaf, with 64 bits.
    pub bitmap: String,
}

impl CpuConfig {
    /// The same for the monitor.
    ///
    /// # Errors
    ///
    /// [`Fault`] with what in it is no number, no bitmap, or not possible.
    pub fn template(&self) -> Result<CpuTemplate, Fault> {
        if let Some(other) = self.kvm_capabilities.iter().find(|c| !c.starts_with('!')) {
            return Err(Fault::new(format!(
                "kvm_capabilities: {other:?} cannot be asked for, only left out by a '!' before it"
            )));
        }
        let mut template = CpuTemplate::default();
        for modifier in &self.cpuid_modifiers {
            let (leaf, subleaf) = (number(&modifier.leaf)?, number(&modifier.subleaf)?);
            for change in &modifier.modifiers {
                let (mask, value) = bits(&change.bitmap, u32::BITS)?;
                template.cpuid.push(CpuidChange {
                    leaf,
                    subleaf,
                    register: change.register.into(),
                    mask: u32::try_from(mask).unwrap_or(u32::MAX),
                    value: u32::try_from(value).unwrap_or(u32::MAX),
                });
            }
        }
        for modifier in &self.msr_modifiers {
            let (mask, value) = bits(&modifier.bitmap, u64::BITS)?;
            template.msrs.push(MsrChange {
                index: number(&modifier.addr)?,
                mask,
                value,
            });
        }
        Ok(template)
    }
}

impl From<Register> for CpuidRegister {
    fn from(register: Register) -> Self {
        match register {
            Register::Eax => Self::Eax,
            Register::Ebx => Self::Ebx,
            Register::Ecx => Self::Ecx,
            Register::Edx => Self::Edx,
        }
    }
}

/// A number in hexadecimal or binary digits after `0x` or `0b`, or in decimal ones.
fn number(text: &str) -> Result<u32, Fault> {
    let parsed = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
        (Some(digits), _) => u32::from_str_radix(digits, 16),
        (_, Some(digits)) => u32::from_str_radix(digits, 2),
        _ => text.parse(),
    };
    parsed.map_err(|error| Fault::new(format!("{text:?} is no number of 32 bits: {error}")))
}

/// The bits that a bitmap names, and their values.
fn bits(text: &str, most: u32) -> Result<(u64, u64), Fault> {
    let refuse = || {
        Fault::new(format!(
            "{text:?} is no bitmap: it is 0b, then at most {most} of 0, 1 and x"
        ))
    };
    let digits = text.strip_prefix("0b").ok_or_else(refuse)?;
    let (mut count, mut mask, mut value) = (0, 0_u64, 0_u64);
    for digit in digits.chars().filter(|digit| *digit != '_') {
        let (named, set) = match digit {
            '0' => (1, 0),
            '1' => (1, 1),
            'x' => (0, 0),
            _ => return Err(refuse()),
        };
        count += 1;
        if count > most {
            return Err(refuse());
        }
        (mask, value) = (mask << 1 | named, value << 1 | set);
    }
    match count {
        0 => Err(refuse()),
        _ => Ok((mask, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_name_bits_and_their_values() {
        assert_eq!(bits("0b1", 32), Ok((1, 1)));
        assert_eq!(bits("0bxx01_x", 32), Ok((0b110, 0b010)));
        assert_eq!(
            bits(&format!("0b{}", "1".repeat(64)), 64),
            Ok((u64::MAX, u64::MAX))
        );
        let long = format!("0b{}", "x".repeat(33));
        for text in ["", "0b", "0b_", "1", "0x1", "0b2", "0b1é", &long] {
            assert!(bits(text, 32).is_err(), "{text}");
        }
        assert_eq!(
            (number("0x10a"), number("0b11"), number("7")),
            (Ok(266), Ok(3), Ok(7))
        );
        for text in ["", "0x", "-1", "4294967296", "0xg"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_is_the_monitors() {
        let text = r#"{
            "kvm_capabilities": ["!171"],
            "cpuid_modifiers": [{ "leaf": "0x7", "subleaf": "0x0", "flags": 1,
                "modifiers": [{ "register": "ebx", "bitmap": "0bx01" }] }],
            "msr_modifiers": [{ "addr": "0x10a", "bitmap": "0b1" }]
        }"#;
        let config: CpuConfig = serde_json::from_str(text).unwrap();
        let template = config.template().unwrap();
        assert_eq!(template.cpuid[0].register, CpuidRegister::Ebx);
        assert_eq!(
            (template.cpuid[0].mask, template.cpuid[0].value),
            (0b11, 0b01)
        );
        assert_eq!(template.msrs[0].index, 0x10a);
        let asked = CpuConfig {
            kvm_capabilities: vec!["171".into()],
            ..config
        };
        assert!(
            asked
                .template()
                .unwrap_err()
                .to_string()
                .contains("\"171\"")
        );
        assert!(CpuConfig::default().template().unwrap().is_empty());
    }
}
