//! What the driver does next.

use arbitrary::{Result, Unstructured};
use goldcrest_virtio::spec::{feature, mmio};

use crate::{Access, place};

/// The registers that a driver writes, and the configuration behind them.
const REGISTERS: u64 = mmio::CONFIG + 0x40;
const WRITTEN: [u64; 16] = [
    mmio::DEVICE_FEATURES_SEL,
    mmio::DRIVER_FEATURES,
    mmio::DRIVER_FEATURES_SEL,
    mmio::QUEUE_SEL,
    mmio::QUEUE_SIZE,
    mmio::QUEUE_READY,
    mmio::QUEUE_NOTIFY,
    mmio::INTERRUPT_ACK,
    mmio::STATUS,
    mmio::QUEUE_DESC_LOW,
    mmio::QUEUE_DESC_HIGH,
    mmio::QUEUE_DRIVER_LOW,
    mmio::QUEUE_DRIVER_HIGH,
    mmio::QUEUE_DEVICE_LOW,
    mmio::QUEUE_RESET,
    mmio::SHM_SEL,
];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// The whole of §3.1.1, with these of the offered features, and one queue's part laid elsewhere.
    Start {
        features: u64,
        spoilt: Option<(u8, Part)>,
    },
    /// All up to DRIVER_OK.
    Prepare {
        features: u64,
    },
    Status(u8),
    Register {
        register: u64,
        value: u32,
    },
    Access(Access),
    /// A register of a queue, of one that is reset before.
    Lay {
        queue: u8,
        part: Part,
        reset: bool,
    },
    Ready {
        queue: u8,
    },
    Notify(u32),
    Request(Request),
    Descriptor(Descriptor),
    /// A head in the available ring, and a notification.
    Offer {
        queue: u8,
        head: u16,
        notify: bool,
    },
    AvailableIndex {
        queue: u8,
        by: u16,
    },
    /// What the driver wants to be interrupted for.
    Suppress {
        queue: u8,
        flags: u16,
        event: u16,
    },
    Scribble {
        address: u64,
        bytes: [u8; 8],
    },
    Interfere {
        address: u64,
        bytes: [u8; 8],
    },
    Faults([u8; 4]),
    Events,
    Acknowledge,
    Restore,
    Reset,
}

/// Something of a queue's layout.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Size(u32),
    Descriptors(u64),
    Available(u64),
    Used(u64),
}

/// A chain that is well-formed, of buffers that may not be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) queue: u8,
    pub(crate) readable: u8,
    pub(crate) writable: u8,
    pub(crate) indirect: bool,
    pub(crate) notify: bool,
    pub(crate) address: u64,
    pub(crate) len: u32,
    /// Bytes at its beginning: what most devices take for a header.
    pub(crate) header: [u8; 16],
}

/// A descriptor in a queue's table or in an indirect one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) queue: u8,
    pub(crate) in_table: bool,
    pub(crate) index: u8,
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Action {
    /// Takes the next from the input.
    pub(crate) fn take(input: &mut Unstructured<'_>) -> Result<Self> {
        let op: u8 = input.arbitrary()?;
        Ok(match op & 0x1f {
            0 => Self::Start {
                features: features(input)?,
                spoilt: if op & 0x80 != 0 {
                    Some((input.arbitrary()?, Part::take(input)?))
                } else {
                    None
                },
            },
            1 => Self::Prepare {
                features: features(input)?,
            },
            2 => Self::Status(input.arbitrary()?),
            3 => Self::Register {
                register: WRITTEN[usize::from(input.arbitrary::<u8>()? & 0xf)],
                value: value(input)?,
            },
            4 | 5 => Self::Access(Access::take(input, REGISTERS)?),
            6 => Self::Lay {
                queue: input.arbitrary()?,
                part: Part::take(input)?,
                reset: op & 0x80 != 0,
            },
            7 => Self::Ready {
                queue: input.arbitrary()?,
            },
            8 | 9 => Self::Notify(value(input)?),
            10..=15 => Self::Request(Request::take(op, input)?),
            16 | 17 => Self::Descriptor(Descriptor::take(op, input)?),
            18 | 19 => Self::Offer {
                queue: input.arbitrary()?,
                head: number(input)?,
                notify: op & 0x80 == 0,
            },
            20 => Self::AvailableIndex {
                queue: input.arbitrary()?,
                by: number(input)?,
            },
            21 => Self::Suppress {
                queue: input.arbitrary()?,
                flags: u16::from(op >> 7),
                event: number(input)?,
            },
            22 => Self::Scribble {
                address: place::address(input)?,
                bytes: input.arbitrary()?,
            },
            23 => Self::Interfere {
                address: place::address(input)?,
                bytes: input.arbitrary()?,
            },
            24 | 25 => Self::Faults(input.arbitrary()?),
            26 | 27 => Self::Events,
            28 => Self::Acknowledge,
            29 => Self::Restore,
            30 => Self::Reset,
            _ => Self::Status(0x0f),
        })
    }
}

impl Part {
    fn take(input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match input.arbitrary::<u8>()? & 3 {
            0 => Self::Size(place::size(input)?),
            1 => Self::Descriptors(place::address(input)?),
            2 => Self::Available(place::address(input)?),
            _ => Self::Used(place::address(input)?),
        })
    }
}

impl Request {
    fn take(op: u8, input: &mut Unstructured<'_>) -> Result<Self> {
        let [queue, counts] = input.arbitrary()?;
        let (address, len) = (place::address(input)?, place::length(input)?);
        let mut header = [0; 16];
        // Headers have small numbers at their beginnings, and zeros.
        let given = usize::from(op >> 5 & 3) * 4;
        header[..given].copy_from_slice(input.bytes(given)?);
        Ok(Self {
            queue,
            readable: counts & 7,
            writable: counts >> 3 & 7,
            indirect: counts & 0x80 != 0,
            notify: op & 0x80 == 0,
            address,
            len,
            header,
        })
    }
}

impl Descriptor {
    fn take(op: u8, input: &mut Unstructured<'_>) -> Result<Self> {
        let [queue, index, flags] = input.arbitrary()?;
        Ok(Self {
            queue,
            in_table: op & 0x80 != 0,
            index,
            address: place::address(input)?,
            len: place::length(input)?,
            flags: flags.into(),
            next: number(input)?,
        })
    }
}

/// All that a driver could take, or some: only of those that are offered matter.
fn features(input: &mut Unstructured<'_>) -> Result<u64> {
    let choice: u8 = input.arbitrary()?;
    let of_queues = [
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        feature::RING_RESET,
    ];
    let of_type = u64::from_le_bytes([choice; 8]) & feature::DEVICE_TYPE;
    let chosen = (0..)
        .zip(of_queues)
        .filter(|(bit, _)| choice >> bit & 1 != 0);
    Ok(chosen.fold(of_type | feature::VERSION_1, |all, (_, one)| all | one))
}

fn value(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match input.arbitrary::<u8>()? {
        0xff => input.arbitrary()?,
        value => value.into(),
    })
}

/// Mostly small, or near the end.
fn number(input: &mut Unstructured<'_>) -> Result<u16> {
    Ok(match input.arbitrary::<u8>()? {
        0xff => input.arbitrary()?,
        number @ 0xf0.. => 0xff00 | u16::from(number),
        number => number.into(),
    })
}
